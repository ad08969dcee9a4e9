// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The golden configurations against the validator of a real kubeadm, 1.36 or near it.
func TestConfig_KubeadmValidates(t *testing.T) {
	kubeadm := os.Getenv("KUBEADM")
	if kubeadm == "" {
		t.Skip("KUBEADM names no kubeadm")
	}
	for _, file := range []string{"v1.36.3/init.yaml", "merged.yaml", "v1.36.3/join-worker.yaml", "v1.36.3/join-control-plane.yaml", "ipv6/init.yaml", "ipv6/join-worker.yaml", "dual/init.yaml", "dual/join-control-plane.yaml", "dual6/init.yaml"} {
		t.Run(file, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join("testdata", file))
			require.NoError(t, err)
			text := strings.NewReplacer("HASH", strings.Repeat("1", 64), "certificateKey: KEY", "certificateKey: "+strings.Repeat("e", 64)).Replace(string(src))
			config := filepath.Join(t.TempDir(), "kubeadm.yaml")
			require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
			out, err := exec.CommandContext(t.Context(), kubeadm, "config", "validate", "--config", config).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
