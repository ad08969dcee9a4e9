// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

func run(t *testing.T, version string, args ...string) (code int, out, messages string) {
	t.Helper()
	t.Setenv("DOUBLE_LOG", t.TempDir())
	var o, m bytes.Buffer
	code = Run(t.Context(), stamp.Stamp{Program: "k0s", Version: version}, append([]string{"k0s"}, args...), &o, &m)
	return code, o.String(), m.String()
}

func TestEveryFlagIsTakenSinceItsVersion(t *testing.T) {
	known, err := facts.LoadK0s()
	require.NoError(t, err)
	for _, version := range []string{"v1.31.14+k0s.0", "v1.34.10+k0s.0", "v1.36.3+k0s.2"} {
		s := stamp.Stamp{Program: "k0s", Version: version}
		for full, c := range known.Commands {
			words := strings.Fields(strings.NewReplacer(" [join-token]", "", " join-token...", "", " username", "", " filename", "", " [names...]", "").Replace(full))[1:]
			if len(c.Flags) == 0 || words[0] == "kubectl" {
				continue
			}
			for _, f := range c.Flags {
				p := &program{stamp: s, facts: known, journal: journal.New(s)}
				cmd, _, err := p.root().Find(words)
				require.NoError(t, err)
				if !s.AtLeast(c.Since) {
					require.NotEqual(t, words[len(words)-1], cmd.Name(), "%s %s", version, full)
					continue
				}
				value := map[string]string{"bool": "true", "int": "1", "uint": "1", "duration": "1s", "mapStringString": "a=b", "mapStringBool": "a=true", "stringToString": "a=b"}[f.Type]
				if value == "" {
					value = "x"
				}
				err = cmd.ParseFlags([]string{"--" + f.Name + "=" + value})
				if s.AtLeast(f.Since) {
					require.NoError(t, err, "%s %s", version, full)
				} else {
					require.ErrorContains(t, err, "unknown flag: --"+f.Name, "%s %s", version, full)
				}
			}
		}
	}
}

func TestWhatIsUnknownEndsIt(t *testing.T) {
	for want, args := range map[string][]string{
		"Error: unknown flag: --nope":              {"install", "controller", "--nope"},
		"Error: unknown flag: --datadir":           {"reset", "--datadir=/x"},
		`unknown command "frobnicate" for "k0s"`:   {"frobnicate"},
		"neither an IP address nor a DNS name":     {"etcd", "leave", "--peer-address", "https://10.0.0.1:2380"},
		"unsupported role":                         {"token", "list"},
		`required flag(s) "config" not set`:        {"config", "validate"},
		"Error: unknown shorthand flag: 'o' in -o": {"etcd", "member-list", "-o", "json"},
	} {
		code, _, messages := run(t, "v1.36.3+k0s.2", args...)
		require.Equal(t, 1, code, want)
		require.Contains(t, messages, want)
	}
}

func TestConfigValidate(t *testing.T) {
	for want, spec := range map[string]string{
		"":                                  "api: {sans: [a]}\n  network: {nodeLocalLoadBalancing: {enabled: true, type: EnvoyProxy}, kubeProxy: {mode: nftables}}",
		`json: unknown field "nosuchfield"`: "nosuchfield: 1",
		"cannot be used in conjunction with an external": "api: {externalAddress: a}\n  network: {nodeLocalLoadBalancing: {enabled: true}}",
		"AuthPass must be between":                       "network: {controlPlaneLoadBalancing: {enabled: true, keepalived: {vrrpInstances: [{virtualIPs: [10.0.0.1/24], authPass: longer than eight}]}}}",
		"prohibited to override":                         "workerProfiles: [{name: a, values: {clusterDNS: [a], failCgroupV1: false}}]",
		"unsupported storage type":                       "storage: {type: sqlite}",
	} {
		file := filepath.Join(t.TempDir(), "k0s.yaml")
		require.NoError(t, os.WriteFile(file, []byte("spec:\n  "+spec+"\n"), 0o600))
		code, _, messages := run(t, "v1.36.3+k0s.2", "config", "validate", "--config", file)
		if want == "" {
			require.Zero(t, code, messages)
			continue
		}
		require.Equal(t, 1, code, want)
		require.Contains(t, messages, want)
	}
}

func TestImagesFollowTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k0s.yaml")
	require.NoError(t, os.WriteFile(file, []byte("spec: {images: {repository: \"reg:5000\", pause: {version: \"9\"}}, network: {provider: custom, kubeProxy: {disabled: true}}}\n"), 0o600))
	code, out, messages := run(t, "v1.36.3+k0s.2", "airgap", "list-images", "-c", file)
	require.Zero(t, code, messages)
	require.Equal(t, "reg:5000/k0sproject/pause:9", strings.SplitN(out, "\n", 2)[0])
	require.NotContains(t, out, "kube-router")
	require.NotContains(t, out, "kube-proxy")
}

func TestInvitations(t *testing.T) {
	want := invitation{server: "https://10.0.0.1:9443", user: "controller-bootstrap", token: "abcdef.0123456789abcdef", ca: []byte("ca")}
	got, err := parseInvitation(want.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, &want, got)
	_, err = parseInvitation("not base64")
	require.ErrorContains(t, err, "failed to decode token")
}

func TestTheUnitHasTheFlagsThatWereSet(t *testing.T) {
	known, err := facts.LoadK0s()
	require.NoError(t, err)
	p := &program{stamp: stamp.Stamp{Program: "k0s", Version: "v1.36.3+k0s.2"}, facts: known}
	cmd, _, err := p.root().Find([]string{"install", "worker"})
	require.NoError(t, err)
	require.NoError(t, cmd.ParseFlags([]string{"--force", "-e", "A=b", "--token-file", "/etc/k0s/token", "--taints", "a=b:NoSchedule,c", "--kubelet-extra-args=--node-ip=1.2.3.4 --v=2"}))
	args, environment, err := written(cmd, "worker")
	require.NoError(t, err)
	require.Equal(t, []string{"worker", `"--kubelet-extra-args=--node-ip=1.2.3.4 --v=2"`, "--taints=a=b:NoSchedule,c", "--token-file=/etc/k0s/token"}, args)
	require.Equal(t, "Environment=\"A=b\"\n", environment)
}

// What sealer writes for k0s, in its own tests, is what k0s takes.
func TestSealersConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../../../../runtime/k0s/testdata/config/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		code, _, messages := run(t, "v1.36.3+k0s.2", "config", "validate", "--config", file)
		require.Zero(t, code, "%s: %s", file, messages)
	}
}
