// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
)

func TestParseLayers(t *testing.T) {
	for _, c := range []struct {
		label string
		want  []int
		fails bool
	}{
		{label: ""},
		{label: "-2,-1", want: []int{3, 4}},
		{label: "1,-1", want: []int{1, 4}},
		{label: "4,-1", fails: true},
		{label: "5", fails: true},
		{label: "-6", fails: true},
		{label: "1,", fails: true},
		{label: "x", fails: true},
	} {
		got, err := layout.ParseLayers(c.label, 5)
		require.Equal(t, c.fails, err != nil, "%q: %v", c.label, err)
		require.Equal(t, c.want, got, c.label)
	}
	require.Equal(t, "2,-1", layout.FormatLayers([]int{2, -1}))
}

// image is what a frontend makes, put together by hand.
type image struct {
	t     *testing.T
	cs    content.Store
	files []ocispec.Descriptor // of the packed images
}

func newStore(t *testing.T) content.Store {
	t.Helper()
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	return cs
}

func put(t *testing.T, cs content.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), cs, d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func putJSON(t *testing.T, cs content.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return put(t, cs, mediaType, data)
}

type entry struct {
	name string
	data []byte
}

func (i *image) layer(entries ...entry) ocispec.Descriptor {
	i.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		require.NoError(i.t, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(e.data)
		require.NoError(i.t, err)
	}
	require.NoError(i.t, w.Close())
	return put(i.t, i.cs, ocispec.MediaTypeImageLayer, buf.Bytes())
}

// make packs one container image into the last two of three layers.
func (i *image) make(change func(entries []entry) []entry) ocispec.Descriptor {
	i.t.Helper()
	other := newStore(i.t)
	packed := put(i.t, other, ocispec.MediaTypeImageLayerGzip, []byte("a layer of a container image"))
	config := putJSON(i.t, other, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	m := putJSON(i.t, other, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{packed},
	})
	heads, _, err := clusterimage.ComposeImages(i.t.Context(), other, []clusterimage.PackedImage{
		{Name: "docker.io/library/a:1", Platform: "linux/amd64", Manifest: m, Origins: []string{"imageList:1"}},
	})
	require.NoError(i.t, err)
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: heads})
	require.NoError(i.t, err)
	var documents, blobs []entry
	require.NoError(i.t, other.Walk(i.t.Context(), func(info content.Info) error {
		data, err := content.ReadBlob(i.t.Context(), other, ocispec.Descriptor{Digest: info.Digest})
		if info.Digest == packed.Digest {
			blobs = append(blobs, entry{layout.BlobPath(info.Digest), data})
		} else {
			documents = append(documents, entry{layout.BlobPath(info.Digest), data})
		}
		i.files = append(i.files, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
		return err
	}))
	documents = append(documents, entry{layout.Dir + "/index.json", index})
	layers := []ocispec.Descriptor{i.layer(entry{"bin/x", []byte("x")}), i.layer(documents...), i.layer(change(blobs)...)}
	return i.manifest(layers, "-2,-1")
}

func (i *image) manifest(layers []ocispec.Descriptor, label string) ocispec.Descriptor {
	i.t.Helper()
	config := map[string]any{
		"os": "linux", "architecture": "amd64", "moby.buildkit.unknown": "kept",
		"config": map[string]any{"Labels": map[string]string{layout.Label: label, "mine": "x"}, "ArgsEscaped": true},
	}
	ids := make([]digest.Digest, len(layers))
	var history []ocispec.History
	for n, l := range layers {
		ids[n] = l.Digest
		history = append(history, ocispec.History{CreatedBy: l.Digest.String()}, ocispec.History{CreatedBy: "LABEL", EmptyLayer: true})
	}
	config["rootfs"], config["history"] = ocispec.RootFS{Type: "layers", DiffIDs: ids}, history
	return putJSON(i.t, i.cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: layers,
		Config: putJSON(i.t, i.cs, ocispec.MediaTypeImageConfig, config),
	})
}

func same(entries []entry) []entry { return entries }

func TestAdopt(t *testing.T) {
	i := &image{t: t, cs: newStore(t)}
	top := i.make(same)
	desc, adopted, err := layout.Adopt(t.Context(), i.cs, top)
	require.NoError(t, err)
	require.True(t, adopted)

	img, err := clusterimage.Read(t.Context(), i.cs, desc)
	require.NoError(t, err)
	require.Equal(t, top.Digest.String(), layout.Source(img.Index))
	require.Len(t, img.Images, 1)
	require.Equal(t, "docker.io/library/a:1", img.Images[0].Name)
	require.Equal(t, []string{"imageList:1"}, img.Images[0].Origins)
	require.Len(t, img.Rootfs, 1)
	require.Len(t, img.Rootfs[0].Manifest.Layers, 1)
	config := img.Rootfs[0].Config
	require.Equal(t, []digest.Digest{img.Rootfs[0].Manifest.Layers[0].Digest}, config.RootFS.DiffIDs)
	require.Equal(t, map[string]string{"mine": "x", layout.LabelSource: top.Digest.String()}, config.Config.Labels)
	require.Len(t, config.History, 4, "one layer's, and three of no layer")
	raw, err := clusterimage.ReadBlob(t.Context(), i.cs, img.Rootfs[0].Manifest.Config)
	require.NoError(t, err)
	require.Contains(t, string(raw), `"moby.buildkit.unknown":"kept"`)
	require.Contains(t, string(raw), `"ArgsEscaped":true`)

	// Everything that goes to a host or a registry is a blob of the store.
	blobs, err := img.Descriptors(t.Context(), i.cs, nil)
	require.NoError(t, err)
	require.Greater(t, len(blobs), len(i.files))
	for _, b := range blobs {
		info, err := i.cs.Info(t.Context(), b.Digest)
		require.NoError(t, err)
		require.Equal(t, b.Size, info.Size)
	}

	again, adopted, err := layout.Adopt(t.Context(), i.cs, desc)
	require.NoError(t, err)
	require.False(t, adopted, "it is one already")
	require.Equal(t, desc, again)
	other := &image{t: t, cs: newStore(t)}
	elsewhere, _, err := layout.Adopt(t.Context(), other.cs, other.make(same))
	require.NoError(t, err)
	require.Equal(t, desc.Digest, elsewhere.Digest)
}

func TestAdopt_OnePlatformOfTwo(t *testing.T) {
	i := &image{t: t, cs: newStore(t)}
	here := i.make(same)
	here.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	absent := ocispec.Descriptor{MediaType: here.MediaType, Digest: digest.FromString("x"), Size: 1, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}
	attested := ocispec.Descriptor{MediaType: here.MediaType, Digest: digest.FromString("y"), Size: 1, Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"}}
	top := putJSON(t, i.cs, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{absent, here, attested},
	})
	desc, adopted, err := layout.Adopt(t.Context(), i.cs, top)
	require.NoError(t, err)
	require.True(t, adopted)
	img, err := clusterimage.Read(t.Context(), i.cs, desc)
	require.NoError(t, err)
	require.Len(t, img.Rootfs, 1)
	require.Equal(t, "amd64", img.Rootfs[0].Platform.Architecture)
	require.Empty(t, img.Foreign)
}

func TestAdopt_OtherImages(t *testing.T) {
	cs := newStore(t)
	config := putJSON(t, cs, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	plain := putJSON(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config})
	desc, adopted, err := layout.Adopt(t.Context(), cs, plain)
	require.NoError(t, err)
	require.False(t, adopted)
	require.Equal(t, plain, desc)
}

func TestAdopt_Broken(t *testing.T) {
	for name, change := range map[string]func([]entry) []entry{
		"a blob of other bytes": func(e []entry) []entry { return []entry{{e[0].name, []byte("b layer of a container image")}} },
		"a file beside":         func(e []entry) []entry { return append(e, entry{"etc/passwd", []byte("root")}) },
		"a way out":             func(e []entry) []entry { return append(e, entry{layout.Dir + "/../x", []byte("x")}) },
	} {
		t.Run(name, func(t *testing.T) {
			i := &image{t: t, cs: newStore(t)}
			_, adopted, err := layout.Adopt(t.Context(), i.cs, i.make(change))
			require.False(t, adopted)
			var broken *layout.Error
			require.ErrorAs(t, err, &broken)
			require.NotEmpty(t, broken.Hint())
			_, err = i.cs.Info(context.WithoutCancel(t.Context()), digest.FromString("b layer of a container image"))
			require.Error(t, err)
		})
	}
	t.Run("fewer layers than the label says", func(t *testing.T) {
		i := &image{t: t, cs: newStore(t)}
		_, _, err := layout.Adopt(t.Context(), i.cs, i.manifest([]ocispec.Descriptor{i.layer()}, "-2,-1"))
		require.ErrorContains(t, err, "does not fit an image of 1 layers")
	})
}
