// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/node"
)

// The balancer's unit and configuration, as they stand on a worker.
func TestEndpoint_Install(t *testing.T) {
	m := newMachine(t)
	t.Setenv("SYSTEMD_UNIT", node.EndpointUnit)
	useFakeSystemd(t, m)
	t.Cleanup(func() { m.run(nil, "endpoint", "uninstall") })
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := node.EndpointConfig{Listen: listen, Servers: []string{"10.0.0.1:6443", "[fd00::2]:6443"}}
	m.run(toJSON(config), "endpoint", "install", "--timeout", "5m") // it listens then

	masked := func(file string) string {
		return strings.NewReplacer(m.root, "ROOT", must(os.Executable()), "PROGRAM", listen, "127.0.0.1:6443").Replace(string(must(os.ReadFile(file))))
	}
	goldenfile.Equal(t, "testdata/endpoint.json", masked(filepath.Join(m.root, "endpoint", "config.json")))
	goldenfile.Equal(t, "testdata/sealer-endpoint.service", masked(filepath.Join(m.unitDir, node.EndpointUnit)))
}

// systemd itself reads the units: it passes over what it does not know, with a word.
func TestUnits_SystemdReadsThem(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	for _, unit := range []string{node.RegistryUnit, node.EndpointUnit, "sealer-endpoint-ipvs.service"} {
		root := t.TempDir()
		text := strings.NewReplacer("PROGRAM", "/bin/node", "ROOT", "/var/lib/sealer/node").Replace(string(must(os.ReadFile("testdata/" + unit))))
		require.NoError(t, os.MkdirAll(filepath.Join(root, "etc/systemd/system"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/systemd/system", unit), []byte(text), 0o600))
		require.NoError(t, os.Mkdir(filepath.Join(root, "bin"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, "bin/node"), []byte("#!/bin/sh\n"), 0o755))
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--root", root, "--man=no", "--recursive-errors=no", unit).CombinedOutput()
		require.NoError(t, err, string(out))
		require.NotContains(t, string(out), root+"/etc", "%s", out)
	}
}
