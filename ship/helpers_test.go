// SPDX-License-Identifier: Apache-2.0

package ship_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

func newStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return st
}

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = r.Read(b)
	return b
}

func write(t testing.TB, st *store.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(context.Background(), st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func writeJSON(t testing.TB, st *store.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return write(t, st, mediaType, data)
}

func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for name, text := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := tw.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}

// image writes an image of one platform with layers of random bytes.
func image(t testing.TB, st *store.Store, arch string, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	p := ocispec.Platform{OS: "linux", Architecture: arch}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		m.Layers = append(m.Layers, write(t, st, ocispec.MediaTypeImageLayer, l))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
	}
	m.Config = writeJSON(t, st, ocispec.MediaTypeImageConfig, config)
	d := writeJSON(t, st, ocispec.MediaTypeImageManifest, m)
	d.Platform = &p
	return d
}

// rootfs writes a rootfs with one zstd layer, as the builder makes it.
func rootfs(t testing.TB, st *store.Store, arch string, files map[string]string) ocispec.Descriptor {
	t.Helper()
	plain := tarOf(t, files)
	zw, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	p := ocispec.Platform{OS: "linux", Architecture: arch}
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}}
	config.Config.Labels = map[string]string{
		clusterimage.LabelExtension: string(clusterimage.Extension{Type: clusterimage.KubeInstaller}.Marshal()),
	}
	d := writeJSON(t, st, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: writeJSON(t, st, ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{write(t, st, ocispec.MediaTypeImageLayerZstd, zw.EncodeAll(plain, nil))},
	})
	d.Platform = &p
	return d
}

// clusterImage composes and tags a ClusterImage for amd64 and arm64, with one
// packed image for each seed.
func clusterImage(t testing.TB, st *store.Store, name string, seeds ...uint64) store.Tagged {
	t.Helper()
	in := clusterimage.Composition{}
	for _, arch := range []string{"amd64", "arm64"} {
		in.Rootfs = append(in.Rootfs, rootfs(t, st, arch, map[string]string{"Metadata": "of " + arch}))
		for _, seed := range seeds {
			name := "docker.io/library/a" + string(rune('a'+seed)) + ":1"
			in.Images = append(in.Images, clusterimage.PackedImage{
				Name: name, Platform: "linux/" + arch,
				Manifest: image(t, st, arch, randomBytes(1000, 300_000), append(randomBytes(seed, 2_000_000), arch...)),
			})
		}
	}
	desc, err := clusterimage.Compose(context.Background(), st.Content(), in)
	require.NoError(t, err)
	return tag(t, st, name, desc)
}

func tag(t testing.TB, st *store.Store, name string, desc ocispec.Descriptor) store.Tagged {
	t.Helper()
	require.NoError(t, st.Tag(context.Background(), name, desc))
	tagged, err := st.Resolve(context.Background(), name)
	require.NoError(t, err)
	return tagged
}

func plan(t testing.TB, st *store.Store, o ship.Options, images ...store.Tagged) *ship.Plan {
	t.Helper()
	p, err := ship.NewPlan(context.Background(), st, images, o)
	require.NoError(t, err)
	return p
}

// saved writes an archive to a file and returns its path.
func saved(t testing.TB, st *store.Store, o ship.Options, images ...store.Tagged) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "saved.tar")
	require.NoError(t, plan(t, st, o, images...).SaveFile(context.Background(), path, nil))
	return path
}

// requireWhole checks every blob of an image for the platforms.
func requireWhole(t testing.TB, st *store.Store, name string, want ...ocispec.Platform) {
	t.Helper()
	img, err := st.Resolve(context.Background(), name)
	require.NoError(t, err)
	blobs, err := ship.Blobs(context.Background(), st.Content(), img.Descriptor, want)
	require.NoError(t, err)
	for _, b := range blobs {
		data, err := os.ReadFile(st.BlobPath(b.Digest))
		require.NoError(t, err)
		require.Equal(t, b.Digest, digest.FromBytes(data))
	}
}

func requireNoImages(t testing.TB, st *store.Store) {
	t.Helper()
	all, err := st.List(context.Background())
	require.NoError(t, err)
	require.Empty(t, all)
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
