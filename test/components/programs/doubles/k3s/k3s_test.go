// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

func run(t *testing.T, version string, args ...string) (code int, out, messages string, entries []journal.Entry) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOUBLE_LOG", dir)
	var o, m bytes.Buffer
	code = Run(t.Context(), stamp.Stamp{Program: "k3s", Version: version}, append([]string{"k3s"}, args...), &o, &m)
	text, err := os.ReadFile(filepath.Join(dir, "k3s-double.jsonl"))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var e journal.Entry
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		entries = append(entries, e)
	}
	return code, o.String(), m.String(), entries
}

// settingsOf parses arguments of a command as it would itself, and stops there.
func settingsOf(t *testing.T, version, command string, args ...string) (settings, error) {
	t.Helper()
	t.Setenv("DOUBLE_LOG", t.TempDir())
	known, err := facts.LoadK3s()
	require.NoError(t, err)
	s := stamp.Stamp{Program: "k3s", Version: version}
	p := &program{stamp: s, facts: known, journal: journal.New(s), log: slog.New(slog.DiscardHandler)}
	var got settings
	app := p.app()
	app.Writer, app.ErrWriter = io.Discard, io.Discard
	for _, c := range app.Commands {
		if c.Name == command {
			c.Action = func(c *cli.Context) (err error) {
				got, err = p.settings(c, command)
				return err
			}
		}
	}
	return got, app.RunContext(t.Context(), append([]string{"k3s", command}, args...))
}

func TestEveryFlagIsTakenSinceItsVersion(t *testing.T) {
	known, err := facts.LoadK3s()
	require.NoError(t, err)
	none := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(none, nil, 0o600))
	for _, version := range []string{"v1.31.0+k3s1", "v1.36.1+k3s1", "v1.37.0+k3s1"} {
		for _, command := range []string{"server", "agent"} {
			for _, f := range known.Flags {
				value := map[string]string{"bool": "true", "int": "1", "duration": "1s"}[f.Type]
				if value == "" {
					value = "x"
				}
				if f.Name == "config" {
					value = none
				}
				want := slices.Contains(f.Commands, command) && stamp.Stamp{Version: version}.AtLeast(f.Since)
				got, err := settingsOf(t, version, command, "--config", none, "--"+f.Name+"="+value)
				if !want {
					require.ErrorContains(t, err, "flag provided but not defined: -"+f.Name, "%s %s", version, command)
					continue
				}
				require.NoError(t, err, "%s %s %s", version, command, f.Name)
				require.Equal(t, value, got.text(f.Name), f.Name)
			}
		}
	}
}

func TestAnUnknownFlagEndsIt(t *testing.T) {
	code, _, messages, entries := run(t, "v1.36.1+k3s1", "server", "--token", "secret", "--nope")
	require.Equal(t, 1, code)
	require.Contains(t, messages, "Incorrect Usage: flag provided but not defined: -nope")
	require.Equal(t, []string{"server", "--token", "…", "--nope"}, entries[0].Args)
	require.Equal(t, []string{"token"}, entries[0].SecretFlags)
	require.Equal(t, "fatal", entries[1].Event)
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"invalid disable item: foo":                           {"server", "--disable=foo"},
		"--cluster-reset required":                            {"server", "--cluster-reset-restore-path=/x"},
		"--server is required with --disable-etcd":            {"server", "--disable-etcd"},
		"cannot use --disable-etcd":                           {"server", "--disable-etcd", "--server=https://a", "--datastore-endpoint=http://b"},
		"is no longer supported":                              {"server", "--flannel-backend=wireguard"},
		"--token is required":                                 {"agent", "--data-dir=/nonexistent"},
		"--server is required":                                {"agent", "--token=x"},
		"only https:// URLs are supported":                    {"agent", "--token=x", "--server=http://a"},
		"No help topic for 'frobnicate'":                      {"frobnicate"},
		"flag provided but not defined: -helm-controller-arg": {"server", "--helm-controller-arg=x"},
	} {
		code, _, messages, _ := run(t, "v1.36.1+k3s1", args...)
		require.Equal(t, 1, code, want)
		require.Contains(t, messages, want)
	}
}

func TestTheConfigurationFiles(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "config.yaml")
	require.NoError(t, os.MkdirAll(main+".d", 0o700))
	for path, text := range map[string]string{
		main:                      "node-name: one\ntls-san: [a]\nnode-label: [k=v]\nwrite-kubeconfig-mode: \"0644\"\nnode-nmae: two\n",
		main + ".d/10-more.yaml":  "tls-san+: [b, c]\nnode-label: [x=y]\n",
		main + ".d/20-other.yaml": "t: secret\ndocker: true\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	t.Setenv("K3S_KUBECONFIG_MODE", "0600")
	got, err := settingsOf(t, "v1.36.1+k3s1", "server", "--config", main, "--node-name", "three")
	require.NoError(t, err)
	require.Equal(t, "three", got.text("node-name"), "the command line goes first")
	require.Equal(t, "0600", got.text("write-kubeconfig-mode"), "the environment goes before the files")
	require.Equal(t, []string{"a", "b", "c"}, got.list("tls-san"))
	require.Equal(t, []string{"x=y"}, got.list("node-label"))
	require.Equal(t, "secret", got.text("token"))
	require.True(t, got.yes("docker"))
	require.Equal(t, 6443, got.number("https-listen-port"))

	require.NoError(t, os.WriteFile(main, []byte("docker: maybe\n"), 0o600))
	_, err = settingsOf(t, "v1.36.1+k3s1", "server", "--config", main)
	require.ErrorContains(t, err, `invalid value "maybe" for flag -docker`)
}

func TestTokens(t *testing.T) {
	long := token{hash: strings.Repeat("a", 64), user: "server", password: "secret"}
	got, err := parseToken(long.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, long, got)
	got, err = parseToken("secret")
	require.NoError(t, err)
	require.Equal(t, token{password: "secret"}, got)
	got, err = parseToken("K10" + strings.Repeat("b", 64) + "::abcdef.0123456789abcdef")
	require.NoError(t, err)
	require.True(t, got.bootstrapToken())
	_, err = parseToken("K10short::server:secret")
	require.ErrorContains(t, err, "invalid token format")
}

func TestTheBootstrapDataNeedTheToken(t *testing.T) {
	one, two := folders{t.TempDir()}, folders{t.TempDir()}
	for _, name := range bootstrapNames() {
		require.NoError(t, os.MkdirAll(filepath.Dir(one.tls(name)), 0o700))
		require.NoError(t, os.WriteFile(one.tls(name), []byte(name), 0o600))
	}
	sealed, err := one.sealBootstrap("secret")
	require.NoError(t, err)
	require.ErrorIs(t, two.openBootstrap(sealed, "other"), errOtherToken)
	require.NoError(t, two.openBootstrap(sealed, "secret"))
	text, err := os.ReadFile(two.tls("server-ca.key"))
	require.NoError(t, err)
	require.Equal(t, "server-ca.key", string(text))
}

// What sealer writes for k3s, in its own tests, is what k3s knows: of what it does not, it only logs the key.
func TestSealersConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../../../../runtime/k3s/testdata/*/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		command := "server"
		if filepath.Base(file) == "agent.yaml" {
			command = "agent"
		}
		_, err := settingsOf(t, "v1.36.1+k3s1", command, "--config", file)
		require.NoError(t, err, file)
		var e journal.Entry
		text, err := os.ReadFile(filepath.Join(os.Getenv("DOUBLE_LOG"), "k3s-double.jsonl"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &e), "%s", text)
		require.Equal(t, "config", e.Event)
		require.Empty(t, e.Unknown, file)
	}
}
