//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// Who reads the rendered configurations of the unit tests on hosts reads them here: kubeadm those of all minor versions,
// containerd its own in both formats. k3s' and k0s' are read by their doubles, in whose tests.
func TestConfigurations(t *testing.T) {
	kubeadm, containerd := filepath.Join(shared.Components, "bin", "kubeadm"), filepath.Join(shared.Components, "bin", "containerd")
	files, err := filepath.Glob(filepath.Join(shared.Source, "runtime/kubernetes/testdata/*/*.yaml"))
	require.NoError(t, err)
	require.Greater(t, len(files), 18)
	for _, file := range append(files, filepath.Join(shared.Source, "runtime/kubernetes/testdata/merged.yaml")) {
		t.Run(strings.TrimPrefix(file, shared.Source+"/"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			// What is another each time is masked there. A kubeadm installs its own version and the one before it.
			whole := strings.NewReplacer("kubernetesVersion: "+filepath.Base(filepath.Dir(file)), "kubernetesVersion: "+lab.KubernetesVersion,
				"HASH", strings.Repeat("1", 64), "certificateKey: KEY", "certificateKey: "+strings.Repeat("e", 64)).Replace(string(text))
			config := filepath.Join(t.TempDir(), "kubeadm.yaml")
			require.NoError(t, os.WriteFile(config, []byte(whole), 0o600))
			command(t, kubeadm, "config", "validate", "--config", config)
			wrong := strings.Replace(whole, "\nnodeRegistration:", "\nnodeRegistrations:", 1)
			require.NotEqual(t, whole, wrong)
			require.NoError(t, os.WriteFile(config, []byte(wrong), 0o600))
			require.Error(t, exec.CommandContext(t.Context(), kubeadm, "config", "validate", "--config", config).Run(), "it is strict")
		})
	}
	for _, name := range []string{"containerd-config.toml", "containerd-config-1.7.toml"} {
		t.Run(name, func(t *testing.T) {
			out := command(t, containerd, "--config", filepath.Join(shared.Source, "rootfs-templates/testdata", name), "config", "dump")
			for _, text := range []string{"/etc/containerd/certs.d", "registry.k8s.io/pause:3.10.2", "SystemdCgroup = true", "'/opt/cni/bin'"} {
				require.Contains(t, out, text)
			}
		})
	}
}
