//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// testOperate looks at a running cluster of two hosts, and works on its hosts.
func testOperate(t *testing.T, root string) {
	login := []string{"--pk", shared.Hosts.KeyFile, "--name", "e2e"}
	on := func(args ...string) string { return sealer(t, root, append(args, login...)...) }
	first, second := shared.Hosts.Hosts[0].Address.String(), shared.Hosts.Hosts[1].Address.String()

	var status struct {
		Contact, Runtime, Version string
		Hosts                     []struct {
			Host, Version, Registry string
			Ready, Complete         bool
		}
		Unwell, Drift []string
	}
	require.NoError(t, json.Unmarshal([]byte(on("status", "-o", "json")), &status))
	require.Empty(t, status.Unwell)
	require.Empty(t, status.Drift)
	require.Equal(t, first, status.Contact)
	require.Len(t, status.Hosts, 2)
	for _, h := range status.Hosts {
		require.True(t, h.Ready && h.Complete, h.Host)
		require.Equal(t, lab.KubernetesVersion, h.Version)
	}
	require.Equal(t, "running", status.Hosts[0].Registry)

	names := strings.Split(strings.TrimSpace(on("exec", "cat /proc/sys/kernel/hostname")), "\n")
	require.Len(t, names, 2)
	require.Contains(t, strings.Join(names, "\n"), second+": ")
	_, stderr, code := runAny(t, root, append([]string{"exec", "--hosts", second, "exit 7"}, login...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, second)

	dir := t.TempDir()
	file := filepath.Join(dir, "motd")
	require.NoError(t, os.WriteFile(file, []byte("kept well\n"), 0o644))
	on("cp", file, ":/run/sealer-test/")
	require.Equal(t, "kept well", strings.TrimSpace(on("exec", "--hosts", first, "cat /run/sealer-test/motd")))
	on("cp", second+":/run/sealer-test/motd", filepath.Join(dir, "back"))
	got, err := os.ReadFile(filepath.Join(dir, "back"))
	require.NoError(t, err)
	require.Equal(t, "kept well\n", string(got))
	on("exec", "rm -r /run/sealer-test")

	// The kubeconfig works from this machine.
	config := filepath.Join(dir, "config")
	on("kubeconfig", "-o", config)
	cmd := exec.CommandContext(t.Context(), filepath.Join(shared.Components, "bin", "kubectl"), "--kubeconfig", config, "get", "nodes", "-o", "name")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Len(t, strings.Fields(string(out)), 2)

	require.Contains(t, sealer(t, root, "logs", "--name", "e2e", "--host", second), "joining the cluster")
	require.Contains(t, sealer(t, root, "gen", shared.AppsImage(), "--masters", first, "--name", "e2e"), "image: "+shared.AppsImage())
}
