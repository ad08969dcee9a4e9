// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/store/archive"
)

// picture makes an OCI image of two gzip layers.
func picture(t *testing.T, arch string, seed uint64) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for i := range uint64(2) {
		data := layerTar(t, fmt.Sprint("f", i), seed+i, 20<<10)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithMediaType(types.OCILayer))
		require.NoError(t, err)
		img, err = mutate.AppendLayers(img, l)
		require.NoError(t, err)
	}
	cfg, err := img.ConfigFile()
	require.NoError(t, err)
	cfg.OS, cfg.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, cfg)
	require.NoError(t, err)
	return img
}

func digestOf(t *testing.T, d interface{ Digest() (v1.Hash, error) }) digest.Digest {
	t.Helper()
	h, err := d.Digest()
	require.NoError(t, err)
	return digest.Digest(h.String())
}

// multi makes a layout of one image for two platforms and of another for one.
func multi(t *testing.T) (dir string, index v1.ImageIndex, single v1.Image) {
	t.Helper()
	dir = t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	index = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: picture(t, arch, uint64(10*i+10)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	require.NoError(t, p.AppendIndex(index, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "v1", "io.containerd.image.name": "quay.io/team/multi:v1"})))
	single = picture(t, "amd64", 50)
	require.NoError(t, p.AppendImage(single, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "docker.io/library/single:v1"})))
	return dir, index, single
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir, index, single := multi(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("{"), 0o600))
	a, err := archive.OpenFolder(t.Context(), "oci:x", "", os.DirFS(dir))
	require.NoError(t, err)
	st := newStore(t)
	packed := imported(t, a, st, archive.ImportOptions{})
	require.Len(t, packed, 3)
	require.Equal(t, "docker.io/library/single:v1", packed[0].Name)
	require.Equal(t, digestOf(t, single), packed[0].Manifest.Digest)
	require.Nil(t, packed[0].Index)
	for i, arch := range []string{"amd64", "arm64"} {
		p := packed[i+1]
		require.Equal(t, "quay.io/team/multi:v1 linux/"+arch, p.Name+" "+p.Platform)
		require.Equal(t, digestOf(t, index), p.Index.Digest)
		require.FileExists(t, st.BlobPath(p.Index.Digest))
		_, kinds := diffIDs(t, st, p)
		require.Equal(t, []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip}, kinds)
	}
	requireWhole(t, st)

	for _, ref := range []string{"v1", "quay.io/team/multi:v1", "@" + digestOf(t, index).String()} {
		a, err := archive.OpenFolder(t.Context(), "oci:x", ref, os.DirFS(dir))
		require.NoError(t, err, ref)
		require.Contains(t, []string{a.Images[len(a.Images)-1].Name, a.Images[0].Name}, "quay.io/team/multi:v1", ref)
	}
	a, err = archive.OpenFolder(t.Context(), "oci:x", digestOf(t, index).String(), os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, a.Rename("r.example.com/m:2"))
	require.Len(t, a.Images, 2, "one image, two platforms")

	// Only one platform was saved: the other is not there to be packed.
	gone := a.Images[1]
	require.NoError(t, os.Remove(filepath.Join(dir, "blobs", "sha256", gone.Manifest.Digest.Encoded())))
	a, err = archive.OpenFolder(t.Context(), "oci:x", "quay.io/team/multi:v1", os.DirFS(dir))
	require.NoError(t, err)
	require.Len(t, a.Images, 1)
}

// skopeo and podman write a tag alone where they are given no more.
func TestLayout_TagsAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	second := picture(t, "amd64", 50)
	require.NoError(t, p.AppendImage(picture(t, "amd64", 10), layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "v1"})))
	require.NoError(t, p.AppendImage(second, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "v2"})))
	a, err := archive.OpenFolder(t.Context(), "oci:x", "v2", os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, a.Rename("r.example.com/app:3"))
	require.Equal(t, digestOf(t, second), a.Images[0].Manifest.Digest)

	_, err = archive.OpenFolder(t.Context(), "oci:x", "v3", os.DirFS(dir))
	require.EqualError(t, err, `reading oci:x: it has no image "v3", it has v1, v2`)
	a, err = archive.OpenFolder(t.Context(), "oci:x", "", os.DirFS(dir))
	require.NoError(t, err)
	require.ErrorContains(t, a.Rename("r.example.com/app:3"), "it holds 2 images (v1, v2), which cannot all be r.example.com/app:3")
}

func TestLayout_Damaged(t *testing.T) {
	t.Parallel()
	dir, _, single := multi(t)
	layers, err := single.Layers()
	require.NoError(t, err)
	blob := filepath.Join(dir, "blobs", "sha256", digestOf(t, layers[1]).Encoded())
	data, err := os.ReadFile(blob)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	for want, content := range map[string][]byte{"has the digest": data, "by its manifest": data[1:]} {
		require.NoError(t, os.WriteFile(blob, content, 0o600))
		a, err := archive.OpenFolder(t.Context(), "oci:x", "", os.DirFS(dir))
		require.NoError(t, err)
		st := newStore(t)
		_, err = a.Import(t.Context(), st, a.Images, archive.ImportOptions{})
		require.ErrorContains(t, err, want)
		requireWhole(t, st)
	}
	require.NoError(t, os.Remove(blob))
	a, err := archive.OpenFolder(t.Context(), "oci:x", "", os.DirFS(dir))
	require.NoError(t, err)
	_, err = a.Import(t.Context(), newStore(t), a.Images, archive.ImportOptions{})
	require.ErrorContains(t, err, "is not in it")
}

// What skopeo and crane write is read, and what has digests keeps them.
func TestTools(t *testing.T) {
	t.Parallel()
	dir, _, single := multi(t)
	work := t.TempDir()
	skopeo := func(args ...string) {
		out, err := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy", "copy", "-q"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	source := "oci:" + dir + ":docker.io/library/single:v1"
	skopeo(source, "docker-archive:"+work+"/docker.tar:registry.k8s.io/single:v2")
	skopeo(source, "oci-archive:"+work+"/oci.tar:quay.io/x/single:v3")
	skopeo(source, "oci:"+work+"/oci:quay.io/x/single:v3")
	tag, err := name.NewTag("quay.io/x/single:v4")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(work+"/crane.tar", tag, single))

	want, err := single.ConfigName()
	require.NoError(t, err)
	for _, test := range []struct{ file, name string }{
		{"docker.tar", "registry.k8s.io/single:v2"}, {"oci.tar", "quay.io/x/single:v3"}, {"crane.tar", "quay.io/x/single:v4"}, {"oci", "quay.io/x/single:v3"},
	} {
		st := newStore(t)
		var a *archive.Archive
		if test.file == "oci" {
			a, err = archive.OpenFolder(t.Context(), test.file, "", os.DirFS(work+"/oci"))
		} else {
			a, err = archive.OpenFile(t.Context(), test.file, "", func() (io.ReadCloser, error) { return os.Open(filepath.Join(work, test.file)) })
		}
		require.NoError(t, err, test.file)
		packed := imported(t, a, st, archive.ImportOptions{})
		require.Len(t, packed, 1, test.file)
		require.Equal(t, test.name, packed[0].Name)
		require.Equal(t, want.String(), a.Images[0].Config.Digest.String(), "the image's ID stays")
		if strings.HasPrefix(test.file, "oci") {
			require.Equal(t, digestOf(t, single), packed[0].Manifest.Digest)
		}
		ids, _ := diffIDs(t, st, packed[0])
		cfg, err := single.ConfigFile()
		require.NoError(t, err)
		for i, id := range cfg.RootFS.DiffIDs {
			require.Equal(t, id.String(), ids[i].String())
		}
		requireWhole(t, st)
	}
}

// docker save since 25 writes an OCI layout with its own list beside: the manifests are taken, and the names of either.
func TestSaved_WithLayout(t *testing.T) {
	t.Parallel()
	l := layerTar(t, "f", 7, 10<<10)
	cfg := config(t, "amd64", l)
	m, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(cfg), Size: int64(len(cfg))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(l), Size: int64(len(l))}},
	})
	require.NoError(t, err)
	top := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(m), Size: int64(len(m))}
	for _, annotations := range []map[string]string{{"io.containerd.image.name": "docker.io/library/shop:v1", ocispec.AnnotationRefName: "v1"}, {ocispec.AnnotationRefName: "v1"}, nil} {
		top.Annotations = annotations
		index, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{top}})
		require.NoError(t, err)
		st := newStore(t)
		packed := imported(t, open(t, tarOf(t,
			file{name: "blobs/sha256/" + sum(cfg), data: cfg}, file{name: "blobs/sha256/" + sum(l), data: l}, file{name: "blobs/sha256/" + sum(m), data: m},
			file{name: "index.json", data: index}, file{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
			file{name: "manifest.json", data: []byte(`[{"Config":"blobs/sha256/` + sum(cfg) + `","RepoTags":["shop:v1"],"Layers":["blobs/sha256/` + sum(l) + `"]}]`)},
		), ""), st, archive.ImportOptions{})
		require.Len(t, packed, 1)
		require.Equal(t, "docker.io/library/shop:v1", packed[0].Name)
		require.Equal(t, top.Digest, packed[0].Manifest.Digest)
		require.FileExists(t, st.BlobPath(digest.FromBytes(l)))
	}
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	data := saved(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/images/get" || r.URL.Query().Get("names") != "shop:v1" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"reference does not exist"}`))
			return
		}
		_, _ = w.Write(data)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })

	dir := t.TempDir()
	a, err := archive.OpenDaemon(t.Context(), "unix://"+socket, "docker.io/library/shop:v1", dir)
	require.NoError(t, err)
	require.Len(t, a.Images, 3)
	imported(t, a, newStore(t), archive.ImportOptions{})
	require.NoError(t, a.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = archive.OpenDaemon(t.Context(), "unix://"+socket, "docker.io/library/other:v1", dir)
	require.EqualError(t, err, "reading docker-daemon:docker.io/library/other:v1: asking the docker daemon at unix://"+socket+": reference does not exist")
	for _, host := range []string{"ssh://x", "unix:///no/such.sock", "x"} {
		_, err = archive.OpenDaemon(t.Context(), host, "a:1", dir)
		var wrong *archive.DaemonError
		require.ErrorAs(t, err, &wrong)
		require.NotEmpty(t, wrong.Hint())
	}
}
