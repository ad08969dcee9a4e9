// SPDX-License-Identifier: Apache-2.0

package clusterimage_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"runtime"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/test/olderimage"
)

// putOlder puts an image of an older tool into a store.
func putOlder(t *testing.T, cs content.Store, o olderimage.Options) ocispec.Descriptor {
	t.Helper()
	img, err := olderimage.Image(context.Background(), o)
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		r, err := l.Compressed()
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		put(t, cs, "", data)
	}
	config, err := img.RawConfigFile()
	require.NoError(t, err)
	put(t, cs, "", config)
	manifest, err := img.RawManifest()
	require.NoError(t, err)
	return put(t, cs, ocispec.MediaTypeImageManifest, manifest)
}

func twoImages() map[string]v1.Image {
	return map[string]v1.Image{"docker.io/library/nginx:1.27": nil, "registry.k8s.io/pause:3.6": nil}
}

func TestRead_OlderSealer(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	desc := putOlder(t, cs, olderimage.Options{
		Tool: olderimage.Sealer, Packed: twoImages(), Cmd: []string{"kubectl apply -f a.yaml"}, Files: map[string]string{"bin/kubeadm": "x"},
	})
	// A node knows the digest only, and takes it for an index.
	for _, mediaType := range []string{desc.MediaType, ocispec.MediaTypeImageIndex} {
		desc.MediaType = mediaType
		img, err := clusterimage.Read(ctx, cs, desc)
		require.NoError(t, err)
		require.Equal(t, clusterimage.ToolSealer, img.Older)
		require.Empty(t, img.Images)
		require.Len(t, img.Rootfs, 1)
		r, err := img.Platform(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
		require.NoError(t, err)
		require.Equal(t, clusterimage.KubeInstaller, r.Extension.Type)
		require.Equal(t, []string{"kubectl apply -f a.yaml"}, r.Extension.Launch.Cmds)
		require.Equal(t, map[string]string{"GREETING": "hello"}, r.Extension.Env)
		require.Equal(t, "kubernetes", r.Config.Config.Labels[clusterimage.LabelClusterRuntime])
		require.Equal(t, []clusterimage.TreeImage{
			{Name: "docker.io/library/nginx:1.27", Path: "library/nginx:1.27", Platform: "linux/" + runtime.GOARCH},
			{Name: "registry.k8s.io/pause:3.6", Path: "pause:3.6", Platform: "linux/" + runtime.GOARCH},
		}, r.Extension.RegistryTree.Images)
		for _, want := range [][]ocispec.Platform{nil, {r.Platform}} {
			blobs, err := img.Descriptors(ctx, cs, want)
			require.NoError(t, err)
			require.Len(t, blobs, 4, "a manifest, a config, two layers")
		}
	}
}

func TestRead_OlderSealos(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	for _, test := range []struct {
		cmd, want []string
	}{
		{[]string{"/bin/sh", "-c", "kubectl apply -f a.yaml"}, []string{"kubectl apply -f a.yaml"}},
		{[]string{"bash one.sh", "bash two.sh"}, []string{"bash one.sh", "bash two.sh"}},
	} {
		desc := putOlder(t, cs, olderimage.Options{Tool: olderimage.Sealos, Packed: twoImages(), Cmd: test.cmd})
		img, err := clusterimage.Read(ctx, cs, desc)
		require.NoError(t, err)
		require.Equal(t, clusterimage.ToolSealos, img.Older)
		r := img.Rootfs[0]
		require.Equal(t, clusterimage.KubeInstaller, r.Extension.Type)
		require.Equal(t, test.want, r.Extension.Launch.Cmds)
		require.Equal(t, "v1.28.0", r.Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion])
		require.NotContains(t, r.Extension.Env, "PATH")
		require.Empty(t, r.Extension.RegistryTree.Images)

		found, err := clusterimage.ReadTree(ctx, cs, r.Manifest.Layers)
		require.NoError(t, err)
		require.Len(t, found, 2)
		require.Equal(t, "library/nginx:1.27", found[0].Path)
		require.Equal(t, "pause:3.6", found[1].Path)
		require.Equal(t, "linux/"+runtime.GOARCH, found[0].Platform)
		require.Greater(t, found[0].Size, int64(1024), "two layers of 512 random bytes each, a config and a manifest")
	}
}

// An index of them, of which the store has one platform.
func TestRead_OlderIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	one := putOlder(t, cs, olderimage.Options{Tool: olderimage.Sealer})
	one.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	other := put(t, newStore(t), ocispec.MediaTypeImageManifest, ocispec.Manifest{})
	other.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{one, other}}
	img, err := clusterimage.Read(ctx, cs, put(t, cs, ocispec.MediaTypeImageIndex, index))
	require.NoError(t, err)
	require.Equal(t, clusterimage.ToolSealer, img.Older)
	require.False(t, img.Rootfs[0].Absent)
	require.True(t, img.Rootfs[1].Absent)

	// Another image is still another image.
	_, err = clusterimage.Read(ctx, cs, image(t, cs, amd64, "plain", nil))
	require.ErrorIs(t, err, clusterimage.ErrNotClusterImage)
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	img, err := clusterimage.Read(ctx, cs, putOlder(t, cs, olderimage.Options{Tool: olderimage.Sealos, Cmd: []string{"bash a.sh"}}))
	require.NoError(t, err)
	desc, err := clusterimage.Adopt(ctx, cs, img.Rootfs[0])
	require.NoError(t, err)
	var m ocispec.Manifest
	require.NoError(t, clusterimage.ReadJSON(ctx, cs, desc, &m))
	require.Equal(t, img.Rootfs[0].Manifest.Layers, m.Layers)
	var config ocispec.Image
	require.NoError(t, clusterimage.ReadJSON(ctx, cs, m.Config, &config))
	require.Equal(t, img.Rootfs[0].Config.RootFS, config.RootFS)
	ext, err := clusterimage.ParseExtension([]byte(config.Config.Labels[clusterimage.LabelExtension]))
	require.NoError(t, err)
	require.Equal(t, img.Rootfs[0].Extension, ext)
}

// Whiteouts of later layers count, and a layer that is not what it says is an error.
func TestReadTree_Layers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	img, err := clusterimage.Read(ctx, cs, putOlder(t, cs, olderimage.Options{Tool: olderimage.Sealos, Packed: twoImages()}))
	require.NoError(t, err)
	layers := img.Rootfs[0].Manifest.Layers
	for name, want := range map[string]int{
		"registry/docker/registry/v2/repositories/.wh.pause": 1,
		"registry/.wh..wh..opq":                              0,
		".wh.registry":                                       0,
		".wh.reg":                                            2,
	} {
		over := put(t, cs, ocispec.MediaTypeImageLayer, tarOf(t, name))
		found, err := clusterimage.ReadTree(ctx, cs, append(layers[:2:2], over))
		require.NoError(t, err, name)
		require.Len(t, found, want, name)
	}
	wrong := layers[1]
	wrong.Size--
	_, err = clusterimage.ReadTree(ctx, cs, []ocispec.Descriptor{wrong})
	require.ErrorContains(t, err, "bytes")
	data, err := json.Marshal(1)
	require.NoError(t, err)
	_, err = clusterimage.ReadTree(ctx, cs, []ocispec.Descriptor{put(t, cs, ocispec.MediaTypeImageLayer, data)})
	require.Error(t, err)
}

func tarOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range names {
		require.NoError(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}))
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}
