// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

// Values that a flag cannot have are wrong usage, told before anything is read: not even the folder of sealer is made.
func TestFlagValues(t *testing.T) {
	for _, line := range []string{
		"run x -m 10.0.0.1 --port 99999", "run x -m 10.0.0.1 --port 0", "run x -m 10.0.0.1 --port ssh",
		"run x -m 10.0.0.1 --jump gate:abc", "run x -m 10.0.0.1 --jump gate:0", "run x -m 10.0.0.1 --jump @gate", "run x -m 10.0.0.1 --jump me@",
		"run x --ready-timeout -5m", "run x --ready-timeout 0", "apply -f x --timeout -1s", "delete --all --timeout soon",
		"apply -f x --batch 0", "upgrade x --batch 0%", "upgrade x --batch 101%", "upgrade x --batch -1", "upgrade x --batch all",
		"upgrade x --pause-after -1", "upgrade x --drain-timeout -1m", "rollback x --batch 0", "app delete x --timeout 0s",
		"pull x --jobs 0", "search x --limit 0", "search x --limit 9999999999", "bundle-logs --since -1h", "cert check --within -1h", "builder serve --idle -1s",
	} {
		t.Run(line, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			var out, stderr bytes.Buffer
			code := Run(t.Context(), append(strings.Fields(line), "--root", root), Streams{In: strings.NewReader(""), Out: &out, Err: &stderr})
			require.Equal(t, exitUsage, code, stderr.String())
			require.Contains(t, stderr.String(), "it must be")
			require.NoDirExists(t, root)
		})
	}
}

// Whatever flag has a number or a time has bounds.
func TestFlagValues_All(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			switch f.Value.(type) {
			case number, span:
			default:
				require.NotContains(t, []string{"int", "int64", "uint", "float64", "duration"}, f.Value.Type(), "%s --%s takes any value: use numberVar or timeVar", cmd.CommandPath(), f.Name)
			}
		})
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot(Streams{}))
}

func TestParseJump(t *testing.T) {
	for text, want := range map[string]clusterfile.Jump{
		"gate":              {Host: "gate"},
		"me@gate:2222":      {Host: "gate", SSH: clusterfile.SSH{User: "me", Port: 2222}},
		"fd00::1":           {Host: "fd00::1"},
		"me@[fd00::1]":      {Host: "fd00::1", SSH: clusterfile.SSH{User: "me"}},
		"[fe80::1%eth0]:22": {Host: "fe80::1%eth0", SSH: clusterfile.SSH{Port: 22}},
		"a@b@10.0.0.1":      {Host: "10.0.0.1", SSH: clusterfile.SSH{User: "a@b"}},
	} {
		o := sshFlags{jump: text}
		require.NoError(t, jumpValue{&o.jump}.Set(text))
		require.Equal(t, want, *o.jumpHost(clusterfile.SSH{}), text)
	}
}
