// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
)

// The services of servers and agents, as systemd and OpenRC get them where an image packs no installer of k3s'. The script runs in a
// folder that stands for the root of a host; systemd reads its units.
func TestService(t *testing.T) {
	script, err := os.ReadFile("scripts/service.sh")
	require.NoError(t, err)
	for _, c := range []struct{ name, command, booted, file string }{
		{"server.service", "server", "systemd/system", "etc/systemd/system/k3s.service"},
		{"agent.service", "agent", "systemd/system", "etc/systemd/system/k3s-agent.service"},
		{"server.openrc", "server", "openrc", "etc/init.d/k3s"},
		{"agent.openrc", "agent", "openrc", "etc/init.d/k3s-agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"bin", "run/" + c.booted, "etc/systemd/system", "etc/init.d", "usr/local/bin"} {
				require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
			}
			for _, program := range []string{"bin/systemctl", "bin/rc-update", "usr/local/bin/k3s"} {
				require.NoError(t, os.WriteFile(filepath.Join(root, program), []byte("#!/bin/sh\n"), 0o755))
			}
			there := string(script)
			for _, dir := range []string{"/etc/", "/run/openrc", "/run/systemd", "/usr/local/bin/$tool"} {
				there = strings.ReplaceAll(there, dir, root+dir)
			}
			// What stands in the files is of the host itself.
			there = strings.ReplaceAll(there, "EnvironmentFile=-"+root, "EnvironmentFile=-")
			cmd := exec.CommandContext(t.Context(), "sh", "-s", "--", c.command)
			cmd.Stdin = strings.NewReader(there)
			cmd.Env = append(os.Environ(), "PATH="+root+"/bin:"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			text, err := os.ReadFile(filepath.Join(root, c.file))
			require.NoError(t, err)
			goldenfile.Equal(t, "testdata/service/"+c.name, string(text))
			if c.booted == "openrc" {
				out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join(root, c.file)).CombinedOutput()
				require.NoError(t, err, string(out))
				return
			}
			analyze, err := exec.LookPath("systemd-analyze")
			if err != nil {
				t.Skip("systemd-analyze is not installed")
			}
			out, err = exec.CommandContext(t.Context(), analyze, "verify", "--root", root, "--man=no", "--recursive-errors=no", filepath.Base(c.file)).CombinedOutput()
			require.NoError(t, err, string(out))
			require.NotContains(t, string(out), c.file, "systemd passes over what it does not know, with a word")
		})
	}
}
