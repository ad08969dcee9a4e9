//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// testBundle collects what support needs, and looks for a Secret's value that the cluster tells of in another place. The
// bundle stays in sealer's folder, where testSecrets looks for all other secrets.
func testBundle(t *testing.T, root string) {
	const planted = "a-planted-value-0123"
	for _, args := range [][]string{
		{"create", "secret", "generic", "planted", "--from-literal", "value=" + planted},
		{"annotate", "node", "h1", "example.com/leaked=" + planted},
	} {
		_, err := shared.Kubectl(t.Context(), args...)
		require.NoError(t, err)
	}
	dir := filepath.Join(shared.Dir, root, "bundle")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	file := filepath.Join(dir, "site.tar.gz")
	require.Equal(t, file, sealer(t, root, "bundle-logs", "--pk", shared.Hosts.KeyFile, "--name", "e2e", "-o", file))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	out, err := exec.CommandContext(t.Context(), "tar", "-xzf", file, "-C", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, "site", name))
		require.NoError(t, err)
		return string(text)
	}
	require.Contains(t, read("kubernetes/nodes-described.txt"), "example.com/leaked: [redacted]")
	require.Contains(t, read("kubernetes/nodes.txt"), lab.KubernetesVersion)
	require.Contains(t, read("certificates.json"), "notAfter")
	for _, h := range shared.Hosts.Hosts {
		require.Contains(t, read("hosts/"+h.Address.String()+"/units/kubelet.txt"), "kubelet")
		require.Contains(t, read("hosts/"+h.Address.String()+"/facts.json"), h.Name)
	}
	requireNotBelow(t, dir, "a Secret's value", planted)
}
