// SPDX-License-Identifier: Apache-2.0

package templates_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/node"
)

// containerd's configuration for both of its formats, as sealer-node renders it on a host. TestConfigurations in test/e2e has containerd
// read them.
func TestContainerdConfig(t *testing.T) {
	dir := written(t, "kubernetes")
	_, err := node.Render(dir, node.Rendering{Values: node.Values{"PauseImage": "registry.k8s.io/pause:3.10.2"}})
	require.NoError(t, err)
	for _, name := range []string{"config.toml", "config-1.7.toml"} {
		text, err := os.ReadFile(filepath.Join(dir, "etc/containerd", name))
		require.NoError(t, err)
		goldenfile.Equal(t, "testdata/containerd-"+name, string(text))
	}
}

// systemd itself reads the units: it passes over what it does not know, with a word.
func TestUnits_SystemdReadsThem(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir, root := written(t, "kubernetes"), t.TempDir()
	for from, to := range map[string]string{
		"etc/containerd/containerd.service": "etc/systemd/system/containerd.service",
		"etc/kubelet/kubelet.service":       "etc/systemd/system/kubelet.service",
		"etc/kubelet/10-kubeadm.conf":       "etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
		"scripts/lib.sh":                    "usr/local/bin/kubelet", // any program will do
		"scripts/host.sh":                   "usr/local/bin/containerd",
	} {
		text, err := os.ReadFile(filepath.Join(dir, from))
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(dir, from))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, to), text, info.Mode()))
	}
	for _, unit := range []string{"containerd.service", "kubelet.service"} {
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--root", root, "--man=no", "--recursive-errors=no", unit).CombinedOutput()
		require.NoError(t, err, string(out))
		require.NotContains(t, string(out), root+"/etc", "%s", out)
	}
}
