// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/store/archive"
)

// file is an entry of a tar that is made by hand.
type file struct {
	name string
	data []byte
	link string
	kind byte // 0: regular
}

func tarOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		hdr := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.data)), Linkname: f.link}
		if f.kind != 0 {
			hdr.Typeflag = f.kind
		}
		require.NoError(t, tw.WriteHeader(hdr))
		_, err := tw.Write(f.data)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}

// noise is what does not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	out := make([]byte, n)
	_, _ = r.Read(out) // it never fails
	return out
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// layerTar is a layer as docker save has it.
func layerTar(t *testing.T, name string, seed uint64, n int) []byte {
	t.Helper()
	return tarOf(t, file{name: name, data: noise(seed, n)})
}

func config(t *testing.T, arch string, layers ...[]byte) []byte {
	t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	data, err := json.Marshal(c)
	require.NoError(t, err)
	return data
}

// saved is an archive in the shape that docker save wrote for ten years: a folder for each layer, links for equal ones, the
// list at the end.
func saved(t *testing.T) []byte {
	t.Helper()
	base, own := layerTar(t, "base", 1, 300<<10), layerTar(t, "own", 2, 100<<10)
	one, two := config(t, "amd64", base, own), config(t, "amd64", base)
	list, err := json.Marshal([]map[string]any{
		{"Config": sum(one) + ".json", "RepoTags": []string{"shop:v1", "quay.io/team/shop:v1"}, "Layers": []string{"aaa/layer.tar", "bbb/layer.tar"}},
		{"Config": sum(two) + ".json", "RepoTags": []string{"base:v1"}, "Layers": []string{"ccc/layer.tar"}},
	})
	require.NoError(t, err)
	return tarOf(t,
		file{name: "aaa/", kind: tar.TypeDir},
		file{name: "aaa/VERSION", data: []byte("1.0")},
		file{name: "aaa/json", data: []byte(`{"id":"aaa"}`)},
		file{name: "aaa/layer.tar", data: base},
		file{name: "bbb/layer.tar", data: own},
		file{name: "ccc/layer.tar", kind: tar.TypeSymlink, link: "../aaa/layer.tar"},
		file{name: "ddd/layer.tar", kind: tar.TypeLink, link: "aaa/layer.tar"},
		file{name: sum(one) + ".json", data: one},
		file{name: sum(two) + ".json", data: two},
		file{name: "repositories", data: []byte(`{"shop":{"v1":"bbb"}}`)},
		file{name: "manifest.json", data: list},
	)
}

func openBytes(data []byte) archive.File {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return st
}

func open(t *testing.T, data []byte, ref string) *archive.Archive {
	t.Helper()
	a, err := archive.OpenFile(t.Context(), "x.tar", ref, openBytes(data))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func imported(t *testing.T, a *archive.Archive, st *store.Store, o archive.ImportOptions) []clusterimage.PackedImage {
	t.Helper()
	packed, err := a.Import(t.Context(), st, a.Images, o)
	require.NoError(t, err)
	return packed
}

// diffIDs unpacks the layers of an image in the store.
func diffIDs(t *testing.T, st *store.Store, p clusterimage.PackedImage) (out []digest.Digest, types []string) {
	t.Helper()
	var m ocispec.Manifest
	require.NoError(t, clusterimage.ReadJSON(t.Context(), st.Content(), p.Manifest, &m))
	size := p.Manifest.Size + m.Config.Size
	for _, l := range m.Layers {
		f, err := os.Open(st.BlobPath(l.Digest))
		require.NoError(t, err)
		var r io.Reader = f
		switch l.MediaType {
		case ocispec.MediaTypeImageLayerGzip:
			r, err = gzip.NewReader(f)
		case ocispec.MediaTypeImageLayerZstd:
			r, err = zstd.NewReader(f)
		}
		require.NoError(t, err)
		d, err := digest.FromReader(r)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		out, types, size = append(out, d), append(types, l.MediaType), size+l.Size
	}
	require.Equal(t, size, p.Size)
	return out, types
}

func TestSaved(t *testing.T) {
	t.Parallel()
	plain := saved(t)
	zw, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, err = w.Write(plain)
	require.NoError(t, err)
	require.NoError(t, w.Close())

	var first []clusterimage.PackedImage
	for kind, data := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zw.EncodeAll(plain, nil)} {
		st := newStore(t)
		a := open(t, data, "")
		require.Len(t, a.Images, 3)
		packed := imported(t, a, st, archive.ImportOptions{})
		if first == nil {
			first = packed
		}
		require.Equal(t, first, packed, "%s: the same archive, other store, the same digests", kind)
		var names []string
		for _, p := range packed {
			names = append(names, p.Name+" "+p.Platform)
		}
		require.Equal(t, []string{"docker.io/library/base:v1 linux/amd64", "docker.io/library/shop:v1 linux/amd64", "quay.io/team/shop:v1 linux/amd64"}, names)
		require.Equal(t, packed[1].Manifest, packed[2].Manifest)
		ids, types := diffIDs(t, st, packed[1])
		require.Equal(t, []digest.Digest{digest.FromBytes(layerTar(t, "base", 1, 300<<10)), digest.FromBytes(layerTar(t, "own", 2, 100<<10))}, ids)
		require.Equal(t, []string{ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayerZstd}, types)

		// Again: nothing is read but the documents.
		read := int64(0)
		again := imported(t, a, st, archive.ImportOptions{Advance: func(n int64) { read += n }})
		require.Equal(t, packed, again)
		require.Zero(t, read)

		// Gzip, for runtimes that know no zstd.
		_, types = diffIDs(t, st, imported(t, a, st, archive.ImportOptions{Compression: archive.Gzip})[0])
		require.Equal(t, []string{ocispec.MediaTypeImageLayerGzip}, types)
	}
}

// A layer that the store has lost, and the note of it.
func TestSaved_AfterPrune(t *testing.T) {
	t.Parallel()
	st, a := newStore(t), open(t, saved(t), "")
	want := imported(t, a, st, archive.ImportOptions{})
	_, err := st.Prune(t.Context(), store.PruneOptions{})
	require.NoError(t, err)
	notes, err := os.ReadDir(filepath.Join(st.Dir(), "derived"))
	require.NoError(t, err)
	require.Empty(t, notes)
	require.Equal(t, want, imported(t, a, st, archive.ImportOptions{}))
}

func TestSelect(t *testing.T) {
	t.Parallel()
	data := saved(t)
	a := open(t, data, "quay.io/team/shop:v1")
	require.Len(t, a.Images, 1)
	require.NoError(t, a.Rename("r.example.com/mine:v2"))
	require.Equal(t, "r.example.com/mine:v2", a.Images[0].Name)

	_, err := archive.OpenFile(t.Context(), "x.tar", "shop:v2", openBytes(data))
	require.EqualError(t, err, `reading x.tar: it has no image "shop:v2", it has docker.io/library/base:v1, docker.io/library/shop:v1, quay.io/team/shop:v1`)
	err = open(t, data, "").Rename("one:v1")
	require.ErrorContains(t, err, "reading x.tar: it holds 2 images (docker.io/library/base:v1, docker.io/library/shop:v1)")
}

// crane compresses the layers of docker's format: they stay as they are, and are checked.
func TestSaved_CompressedLayers(t *testing.T) {
	t.Parallel()
	plain := layerTar(t, "f", 3, 64<<10)
	zw, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for kind, blob := range map[string][]byte{ocispec.MediaTypeImageLayerGzip: gzipped(t, plain), ocispec.MediaTypeImageLayerZstd: zw.EncodeAll(plain, nil)} {
		cfg := config(t, "arm64", plain)
		files := []file{
			{name: "sha256:" + sum(cfg), data: cfg}, {name: sum(blob) + ".tar.gz", data: blob},
			{name: "manifest.json", data: []byte(`[{"Config":"sha256:` + sum(cfg) + `","RepoTags":["a:1"],"Layers":["` + sum(blob) + `.tar.gz"]}]`)},
		}
		st := newStore(t)
		packed := imported(t, open(t, tarOf(t, files...), ""), st, archive.ImportOptions{})
		require.Equal(t, "linux/arm64", packed[0].Platform)
		require.FileExists(t, st.BlobPath(digest.FromBytes(blob)))
		ids, types := diffIDs(t, st, packed[0])
		require.Equal(t, []digest.Digest{digest.FromBytes(plain)}, ids)
		require.Equal(t, []string{kind}, types)
	}
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func TestUnnamed(t *testing.T) {
	t.Parallel()
	l := layerTar(t, "f", 3, 1<<10)
	cfg := config(t, "amd64", l)
	a := open(t, tarOf(t, file{name: "c.json", data: cfg}, file{name: "l.tar", data: l},
		file{name: "manifest.json", data: []byte(`[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]`)}), "")
	require.Empty(t, a.Images)
	require.Len(t, a.Unnamed, 1)
	require.NoError(t, a.Rename("r.example.com/x:1"))
	require.Equal(t, "r.example.com/x:1", imported(t, a, newStore(t), archive.ImportOptions{})[0].Name)
}
