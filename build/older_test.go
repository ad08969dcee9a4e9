// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/test/olderimage"
)

// Images of sealer 0.11 and sealos are bases: what they pack comes along in
// their own layers, and is not asked of any registry again.
func TestFromOlderImages(t *testing.T) {
	t.Parallel()
	for tool, want := range map[string]*clusterimage.RegistryTree{
		olderimage.Sealer: {Tool: clusterimage.ToolSealer, Images: []clusterimage.TreeImage{
			{Name: "docker.io/library/nginx:1.27", Path: "library/nginx:1.27", Platform: "linux/" + runtime.GOARCH},
		}},
		olderimage.Sealos: {Tool: clusterimage.ToolSealos},
	} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			u.push("new:1")
			base, err := olderimage.Push(t.Context(), u.host+"/old:1", olderimage.Options{
				Tool: tool, Packed: map[string]v1.Image{"docker.io/library/nginx:1.27": nil}, Cmd: []string{"kubectl apply -f old.yaml"},
				Files: map[string]string{"bin/kubeadm": "x", "manifests/imageList": "nginx:1.27\n", "images/shim/list": "docker.io/library/nginx:1.27\n"},
			})
			require.NoError(t, err)
			b := newBench(t, map[string]string{
				"Kubefile":  "FROM " + u.host + "/old:1\nCOPY imageList imageList\nENV MORE=1\nCMD kubectl apply -f new.yaml\n",
				"imageList": u.host + "/new:1\n",
			})
			img := b.mustBuild()
			require.Len(t, img.Images, 1)
			require.Equal(t, u.host+"/new:1", img.Images[0].Name)
			ext := img.Rootfs[0].Extension
			require.Equal(t, want, ext.RegistryTree)
			require.Equal(t, &clusterimage.Base{Name: u.host + "/old:1", Digest: base}, ext.Base)
			require.Equal(t, []string{"kubectl apply -f old.yaml", "kubectl apply -f new.yaml"}, ext.Launch.Cmds)
			require.Equal(t, map[string]string{"GREETING": "hello", "MORE": "1"}, ext.Env)
			require.Equal(t, clusterimage.KubeInstaller, ext.Type)
			found, err := clusterimage.ReadTree(t.Context(), b.store.Content(), img.Rootfs[0].Manifest.Layers)
			require.NoError(t, err)
			require.Len(t, found, 1)

			// A child of the child, too.
			b.write(map[string]string{"Kubefile": "FROM test/cluster:v1\nCOPY more more\n", "more": "x"})
			child := b.mustBuild(func(o *build.Options) { o.Tag = "test/child:v1" })
			require.Equal(t, want, child.Rootfs[0].Extension.RegistryTree)
			require.Len(t, child.Images, 1)
		})
	}
}
