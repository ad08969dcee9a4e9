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

// What systemd and OpenRC get: the services of servers and agents, where an image packs no installer of k3s', and the route of a host
// that has none. The scripts run in a folder that stands for the root of a host; systemd reads its units.
func TestService(t *testing.T) {
	for _, c := range []struct{ script, arg, booted, file, golden string }{
		{"service.sh", "server", "systemd/system", "etc/systemd/system/k3s.service", "k3s.service"},
		{"service.sh", "agent", "systemd/system", "etc/systemd/system/k3s-agent.service", "k3s-agent.service"},
		{"service.sh", "server", "openrc", "etc/init.d/k3s", "k3s.openrc"},
		{"service.sh", "agent", "openrc", "etc/init.d/k3s-agent", "k3s-agent.openrc"},
		{"route.sh", "10.0.0.1", "systemd/system", "etc/systemd/system/sealer-default-route.service", "route.service"},
		{"route.sh", "fd00::1", "openrc", "etc/init.d/sealer-default-route", "route.openrc"},
	} {
		t.Run(c.golden, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"bin", "run/" + c.booted, "etc/systemd/system", "etc/init.d", "usr/local/bin"} {
				require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
			}
			for _, program := range []string{"bin/systemctl", "bin/rc-update", "bin/rc-service", "bin/ip", "usr/local/bin/k3s"} {
				text := "#!/bin/sh\n"
				if program == "bin/ip" {
					text += "printf '1: lo    inet 127.0.0.1/8 scope host lo\\n2: eth0    inet 10.0.0.1/24 scope global eth0\\n2: eth0    inet6 fd00::1/64 scope global\\n'\n"
				}
				require.NoError(t, os.WriteFile(filepath.Join(root, program), []byte(text), 0o755))
			}
			script, err := os.ReadFile("scripts/" + c.script)
			require.NoError(t, err)
			there := string(script)
			for _, dir := range []string{"/etc/", "/run/openrc", "/run/systemd", "/usr/local/bin/$tool"} {
				there = strings.ReplaceAll(there, dir, root+dir)
			}
			// What stands in the files is of the host itself.
			there = strings.ReplaceAll(there, "EnvironmentFile=-"+root, "EnvironmentFile=-")
			cmd := exec.CommandContext(t.Context(), "sh", "-s", "--", c.arg)
			cmd.Stdin = strings.NewReader(there)
			cmd.Env = append(os.Environ(), "PATH="+root+"/bin:"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			file := filepath.Join(root, c.file)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			goldenfile.Equal(t, "testdata/service/"+c.golden, string(text))
			if c.booted == "openrc" {
				out, err := exec.CommandContext(t.Context(), "sh", "-n", file).CombinedOutput()
				require.NoError(t, err, string(out))
				return
			}
			analyze, err := exec.LookPath("systemd-analyze")
			if err != nil {
				t.Skip("systemd-analyze is not installed")
			}
			out, err = exec.CommandContext(t.Context(), analyze, "verify", "--root", root, "--man=no", "--recursive-errors=no", filepath.Base(file)).CombinedOutput()
			require.NotContains(t, string(out), file, "systemd passes over what it does not know, with a word")
			if c.script == "service.sh" { // the other one's program is found in the host's PATH
				require.NoError(t, err, string(out))
			}
		})
	}
}
