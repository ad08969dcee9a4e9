//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/olderimage"
)

// Images of sealer 0.11 and sealos are pulled, looked into, and built upon.
func TestOlderImages(t *testing.T) {
	for _, tool := range []string{olderimage.Sealer, olderimage.Sealos} {
		t.Run(tool, func(t *testing.T) {
			root := "older-" + tool
			image := shared.Registry + "/older/" + tool + ":v1"
			digest, err := olderimage.Push(t.Context(), image, olderimage.Options{
				Tool: tool, Packed: map[string]v1.Image{"docker.io/library/nginx:1.27": nil, "registry.k8s.io/pause:3.6": nil},
				Cmd: []string{"kubectl apply -f old.yaml"}, Files: map[string]string{"bin/kubeadm": "x", "old.yaml": "y"},
			})
			require.NoError(t, err)
			require.Contains(t, sealer(t, root, "inspect", "--remote", image), tool)
			require.Equal(t, digest, sealer(t, root, "pull", image))
			text := sealer(t, root, "inspect", image)
			for _, want := range []string{"nginx:1.27", "pause:3.6", "kubectl apply -f old.yaml", "registry/ of " + tool} {
				require.Contains(t, text, want)
			}
			sealer(t, root, "verify")

			child := shared.Registry + "/older/child-" + tool + ":v1"
			sealer(t, root, "build", "-t", child, writeContext(t, map[string]string{
				"Kubefile":  "FROM " + image + "\nCOPY imageList imageList\nCMD kubectl apply -f new.yaml\n",
				"imageList": "docker.io/sealer-test/hello:v1\n",
			}))
			var d struct {
				Images []struct {
					Name string
					Tree bool `json:"registryTree"`
				}
			}
			require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "inspect", child, "-o", "json")), &d))
			require.Len(t, d.Images, 3)
			require.Equal(t, "docker.io/sealer-test/hello:v1", d.Images[0].Name)
			require.False(t, d.Images[0].Tree)
			require.True(t, d.Images[1].Tree)
			sealer(t, root, "push", child)
			require.NotEmpty(t, sealer(t, root+"-site", "pull", child))
		})
	}
}
