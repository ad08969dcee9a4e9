// SPDX-License-Identifier: Apache-2.0

package clusterimage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/goldenfile"
)

func newStore(t *testing.T) content.Store {
	t.Helper()
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	return cs
}

func put(t *testing.T, cs content.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(v)
		require.NoError(t, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(context.Background(), cs, d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func image(t *testing.T, cs content.Store, platform ocispec.Platform, layer string, labels map[string]string) ocispec.Descriptor {
	t.Helper()
	l := put(t, cs, ocispec.MediaTypeImageLayer, []byte(layer))
	c := put(t, cs, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platform, Config: ocispec.ImageConfig{Labels: labels},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}},
	})
	d := put(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: c, Layers: []ocispec.Descriptor{l},
	})
	d.Platform = &platform
	return d
}

func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

// example is a composition of two platforms with what is in the field.
func example(t *testing.T, cs content.Store) clusterimage.Composition {
	t.Helper()
	label := map[string]string{clusterimage.LabelExtension: string(clusterimage.Extension{
		Type: clusterimage.KubeInstaller, Launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f manifests && echo <done>"}},
	}.Marshal())}
	nginx, nginxARM := image(t, cs, amd64, "nginx", nil), image(t, cs, arm64, "nginx arm", nil)
	source := put(t, cs, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{nginx, nginxARM},
	})
	single := image(t, cs, amd64, "single", nil)
	attestation := image(t, cs, ocispec.Platform{OS: "unknown", Architecture: "unknown"}, "attestation", nil)
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	pack := func(name, platform string, m ocispec.Descriptor, idx *ocispec.Descriptor, origins ...string) clusterimage.PackedImage {
		return clusterimage.PackedImage{Name: name, Platform: platform, Manifest: bare(m), Index: idx, Size: 100, Origins: origins}
	}
	return clusterimage.Composition{
		Rootfs: []ocispec.Descriptor{image(t, cs, arm64, "rootfs arm", label), image(t, cs, amd64, "rootfs", label)},
		Images: []clusterimage.PackedImage{
			pack("docker.io/library/nginx:1", "linux/arm64", nginxARM, &source, "imageList:1"),
			pack("docker.io/library/nginx:1", "linux/amd64", nginx, &source, "imageList:1"),
			pack("docker.io/library/nginx:1", "linux/amd64", nginx, &source, "manifests/a.yaml:7", "imageList:1"),
			pack("docker.io/library/nginx:latest", "linux/amd64", nginx, &source),
			pack("quay.io/a/single:1", "linux/amd64", single, nil),
		},
		Annotations: map[string]string{"org.opencontainers.image.title": "example"},
		Keep:        []ocispec.Descriptor{attestation},
	}
}

func TestCompose_Golden(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	desc, err := clusterimage.Compose(ctx, cs, example(t, cs))
	require.NoError(t, err)
	data, err := content.ReadBlob(ctx, cs, desc)
	require.NoError(t, err)
	var index ocispec.Index
	require.NoError(t, json.Unmarshal(data, &index))
	golden(t, "index.json", data)
	for _, d := range index.Manifests {
		if d.Annotations[clusterimage.AnnotationPlatform] == "linux/amd64" && d.Annotations[clusterimage.AnnotationRole] == clusterimage.RoleImageList {
			m, err := content.ReadBlob(ctx, cs, d)
			require.NoError(t, err)
			golden(t, "imagelist-manifest.json", m)
			var man ocispec.Manifest
			require.NoError(t, json.Unmarshal(m, &man))
			list, err := content.ReadBlob(ctx, cs, man.Layers[0])
			require.NoError(t, err)
			golden(t, "imagelist.json", list)
		}
	}
}

func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, json.Indent(&buf, data, "", "  "))
	buf.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if goldenfile.Updating() {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), buf.String())
}

func TestCompose_OrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	in := example(t, cs)
	one, err := clusterimage.Compose(ctx, cs, in)
	require.NoError(t, err)
	slices.Reverse(in.Images)
	slices.Reverse(in.Rootfs)
	two, err := clusterimage.Compose(ctx, newCopy(t, cs), in)
	require.NoError(t, err)
	require.Equal(t, one, two)
}

// newCopy is a store with the same blobs.
func newCopy(t *testing.T, from content.Store) content.Store {
	t.Helper()
	to := newStore(t)
	require.NoError(t, from.Walk(context.Background(), func(i content.Info) error {
		data, err := content.ReadBlob(context.Background(), from, ocispec.Descriptor{Digest: i.Digest, Size: i.Size})
		require.NoError(t, err)
		put(t, to, "", data)
		return nil
	}))
	return to
}

func TestCompose_And_Read(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	in := example(t, cs)
	desc, err := clusterimage.Compose(ctx, cs, in)
	require.NoError(t, err)
	img, err := clusterimage.Read(ctx, cs, desc)
	require.NoError(t, err)
	require.Len(t, img.Rootfs, 2)
	require.Equal(t, clusterimage.KubeInstaller, img.Rootfs[0].Extension.Type)
	require.Equal(t, in.Keep, img.Foreign)
	var names []string
	for _, p := range img.Images {
		names = append(names, p.Name+" "+p.Platform)
	}
	require.Equal(t, []string{
		"docker.io/library/nginx:1 linux/amd64", "docker.io/library/nginx:1 linux/arm64",
		"docker.io/library/nginx:latest linux/amd64", "quay.io/a/single:1 linux/amd64",
	}, names)
	require.Equal(t, []string{"imageList:1", "manifests/a.yaml:7"}, img.Images[0].Origins)

	seen := map[digest.Digest]bool{}
	for _, d := range img.Index.Manifests {
		require.False(t, seen[d.Digest], "%s stands twice in the index", d.Digest)
		seen[d.Digest] = true
	}
	all, err := img.Descriptors(ctx, cs, nil)
	require.NoError(t, err)
	unique := map[digest.Digest]bool{}
	for _, d := range all {
		require.False(t, unique[d.Digest])
		unique[d.Digest] = true
	}
	require.NoError(t, cs.Walk(ctx, func(i content.Info) error {
		require.True(t, unique[i.Digest], "%s is not listed", i.Digest)
		return nil
	}))
	one, err := img.Descriptors(ctx, cs, []ocispec.Platform{{OS: "linux", Architecture: "arm64", Variant: "v8"}})
	require.NoError(t, err)
	require.Less(t, len(one), len(all))
	_, err = img.Descriptors(ctx, cs, []ocispec.Platform{{OS: "linux", Architecture: "s390x"}})
	var pe *clusterimage.PlatformError
	require.ErrorAs(t, err, &pe)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, pe.Have)

	// Each document is verified; a changed layer is not believed.
	for _, d := range img.Index.Manifests {
		if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
			continue
		}
		var docs int
		for doc, err := range clusterimage.ReadDocuments(ctx, cs, d) {
			require.NoError(t, err)
			require.Equal(t, doc.Digest, digest.FromBytes(doc.Data))
			docs++
		}
		require.Positive(t, docs)
	}
}

func TestCompose_Errors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	for want, change := range map[string]func(*clusterimage.Composition){
		"no rootfs":                  func(in *clusterimage.Composition) { in.Rootfs = nil },
		"two rootfs for linux/arm64": func(in *clusterimage.Composition) { in.Rootfs = append(in.Rootfs, in.Rootfs[0]) },
		"has no platform":            func(in *clusterimage.Composition) { in.Rootfs[0].Platform = nil },
		"is both":                    func(in *clusterimage.Composition) { in.Images[4].Name = "docker.io/library/nginx:1" },
		"not found":                  func(in *clusterimage.Composition) { in.Images[4].Manifest.Digest = digest.FromString("none") },
		"lacks a name":               func(in *clusterimage.Composition) { in.Images[4].Name = "" },
	} {
		in := example(t, cs)
		change(&in)
		_, err := clusterimage.Compose(ctx, cs, in)
		require.ErrorContains(t, err, want)
	}
}

func TestRead_OtherKinds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	for _, d := range []ocispec.Descriptor{
		image(t, cs, amd64, "x", nil),
		put(t, cs, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{image(t, cs, amd64, "x", nil)}}),
	} {
		_, err := clusterimage.Read(ctx, cs, d)
		require.ErrorIs(t, err, clusterimage.ErrNotClusterImage)
		require.ErrorContains(t, err, d.Digest.String())
	}
	_, err := clusterimage.Compose(ctx, cs, clusterimage.Composition{Rootfs: []ocispec.Descriptor{image(t, cs, amd64, "x", nil)}})
	require.NoError(t, err, "a ClusterImage without images")
}

func TestReadDocuments_Damaged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cs := newStore(t)
	for name, layer := range map[string][]byte{"not zstd": []byte("no"), "empty": {}} {
		l := put(t, cs, clusterimage.DocumentsMediaType, layer)
		list := put(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{l}})
		var docs, errs int
		for _, err := range clusterimage.ReadDocuments(ctx, cs, list) {
			if err != nil {
				errs++
			} else {
				docs++
			}
		}
		require.Zero(t, docs, name)
		if name != "empty" {
			require.Equal(t, 1, errs, name)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	m := clusterimage.Metadata{
		Version: "v1", Arch: "amd64", ClusterRuntime: "k3s", KubeVersion: "v1.36.3",
		ClusterRuntimeVersion: "v1.36.3+k3s1", ContainerRuntime: "embedded",
	}
	require.JSONEq(t, `{"version":"v1","arch":"amd64","variant":"","clusterRuntime":"k3s","kubeVersion":"v1.36.3","clusterRuntimeVersion":"v1.36.3+k3s1","containerRuntime":"embedded"}`, string(m.Marshal()))
	got, err := clusterimage.ParseMetadata(m.Marshal())
	require.NoError(t, err)
	require.Equal(t, m, got)
	for _, bad := range []string{"", "{", `{"clusterRuntim":"k3s"}`, `{} {}`, `[]`, strings.Repeat(" ", 70<<10) + "{}"} {
		_, err := clusterimage.ParseMetadata([]byte(bad))
		require.ErrorContains(t, err, "reading Metadata", "%.20q", bad)
	}
}

func TestParseExtension(t *testing.T) {
	t.Parallel()
	e := clusterimage.Extension{
		SchemaVersion: "v1", Type: clusterimage.AppInstaller,
		Applications: []clusterimage.Application{{Name: "a", Env: map[string]string{"b": "2", "a": "1"}}},
		Launch:       clusterimage.Launch{AppNames: []string{"a"}}, Base: &clusterimage.Base{Name: "x", Digest: "y"},
	}
	got, err := clusterimage.ParseExtension(e.Marshal())
	require.NoError(t, err)
	require.Equal(t, e, got)
	_, err = clusterimage.ParseExtension([]byte(`{"schemaVersion":"v2"}`))
	var sv *clusterimage.SchemaVersionError
	require.ErrorAs(t, err, &sv)
	require.Equal(t, "v2", sv.Version)
	_, err = clusterimage.ParseExtension([]byte(`{"schemaVersion":"v1","later":{"x":1}}`))
	require.NoError(t, err, "unknown keys are ignored")
}

func FuzzReadDocuments(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, layer []byte) {
		cs := newStore(t)
		l := put(t, cs, clusterimage.DocumentsMediaType, layer)
		list := put(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{Layers: []ocispec.Descriptor{l}})
		for doc, err := range clusterimage.ReadDocuments(context.Background(), cs, list) {
			if err == nil && digest.FromBytes(doc.Data) != doc.Digest {
				t.Fatal(fmt.Sprint("unverified ", doc.Digest))
			}
		}
	})
}
