// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// A manifest gets the annotation once, whatever annotations it has, and nothing else of it changes.
func TestChangeManifest(t *testing.T) {
	for name, manifest := range map[string]string{
		"as kubeadm writes it":   "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.1:2379\n  labels:\n    tier: control-plane\nspec:\n  containers:\n  - name: x\n",
		"without annotations":    "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    tier: control-plane\nspec:\n  containers: []\n",
		"one of its own in spec": "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  annotations:\n    a: b\nspec:\n  template:\n    metadata:\n      annotations:\n        c: d\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "manifests"), 0o755))
			file := filepath.Join(dir, "manifests", "etcd.yaml")
			require.NoError(t, os.WriteFile(file, []byte(manifest), 0o600))
			for _, stamp := range []string{"2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"} {
				out, err := exec.Command("sh", "-c", changeManifest, "sh", "etcd", restarted, stamp, dir).CombinedOutput()
				require.NoError(t, err, string(out))
				got, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Equal(t, 1, strings.Count(string(got), restarted))

				var changed, was map[string]any
				require.NoError(t, yaml.Unmarshal(got, &changed))
				require.NoError(t, yaml.Unmarshal([]byte(manifest), &was))
				meta := changed["metadata"].(map[string]any)
				annotations := meta["annotations"].(map[string]any)
				require.Equal(t, stamp, annotations[restarted])
				delete(annotations, restarted)
				if len(annotations) == 0 {
					delete(meta, "annotations")
				}
				require.Equal(t, was, changed)
			}
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, left, 1)
		})
	}
}

// The kubelet's own question is found, however kubeadm writes the port.
func TestHealthURL(t *testing.T) {
	for want, container := range map[string]string{
		"https://10.0.0.1:6443/readyz":  "livenessProbe: {httpGet: {host: 10.0.0.1, path: /livez, port: 6443, scheme: HTTPS}}, readinessProbe: {httpGet: {host: 10.0.0.1, path: /readyz, port: probe-port, scheme: HTTPS}}, ports: [{name: probe-port, containerPort: 6443}]",
		"https://[fd00::1]:6443/readyz": "readinessProbe: {httpGet: {host: 'fd00::1', path: /readyz, port: 6443, scheme: HTTPS}}",
		"http://127.0.0.1:2381/livez":   "livenessProbe: {httpGet: {path: /livez, port: 2381}}",
		"":                              "image: x",
	} {
		got, err := healthURL([]byte("kind: Pod\nspec: {containers: [{name: x, " + container + "}]}\n"))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}
