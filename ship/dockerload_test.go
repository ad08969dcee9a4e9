// SPDX-License-Identifier: Apache-2.0

package ship_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

// dockerArchive is one in Docker's own format, of shop.
func dockerArchive(t testing.TB, st *store.Store, img store.Tagged) []byte {
	t.Helper()
	p, err := ship.NewDockerPlan(t.Context(), st, []store.Tagged{img}, amd64)
	require.NoError(t, err)
	var buf bytes.Buffer
	require.NoError(t, p.WriteTo(t.Context(), &buf, nil))
	return buf.Bytes()
}

func compressed(t testing.TB, data []byte, kind string) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "zstd":
		w, err = zstd.NewWriter(&buf)
		require.NoError(t, err)
	default:
		return data
	}
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// loadBoth loads an archive from a file and from a pipe, and gives both stores.
func loadBoth(t *testing.T, data []byte, o ship.LoadOptions, look func(*store.Store, ship.Result)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	to := newStore(t)
	res, err := ship.Load(t.Context(), to, file, o)
	require.NoError(t, err)
	look(to, res)

	to = newStore(t)
	res, err = ship.LoadStream(t.Context(), to, io.MultiReader(bytes.NewReader(data)), "standard input", o)
	require.NoError(t, err)
	look(to, res)
	left, err := filepath.Glob(filepath.Join(to.Dir(), ".load-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// Whichever way an archive comes, the image is the same one, with zstd layers.
func TestLoad_Docker(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	data := dockerArchive(t, st, clusterImage(t, st, shop, 1))
	digests := map[string]bool{}
	for _, kind := range []string{"plain", "gzip", "zstd"} {
		loadBoth(t, compressed(t, data, kind), ship.LoadOptions{}, func(to *store.Store, res ship.Result) {
			require.Len(t, res.Images, 1)
			require.Equal(t, shop, res.Images[0].Name)
			digests[res.Images[0].Digest.String()] = true
			requireWhole(t, to, shop)
			img, err := to.Resolve(t.Context(), shop)
			require.NoError(t, err)
			var m ocispec.Manifest
			require.NoError(t, clusterimage.ReadJSON(t.Context(), to.Content(), img.Descriptor, &m))
			require.Equal(t, ocispec.MediaTypeImageLayerZstd, m.Layers[0].MediaType)
		})
	}
	require.Len(t, digests, 1)
}

// An OCI layout is loaded as it comes, compressed too: nothing is put beside the store.
func TestLoad_Compressed(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	data, err := os.ReadFile(saved(t, st, ship.Options{}, img))
	require.NoError(t, err)
	for _, kind := range []string{"gzip", "zstd"} {
		loadBoth(t, compressed(t, data, kind), ship.LoadOptions{}, func(to *store.Store, res ship.Result) {
			require.Equal(t, img.Descriptor.Digest, res.Images[0].Digest)
			requireWhole(t, to, shop)
		})
	}
}

// Sealer 0.9's archive of several platforms, which may hold archives in Docker's format.
func TestLoad_SeveralOfDocker(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	add := func(name string, data []byte) {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := tw.Write(data)
		require.NoError(t, err)
	}
	img := clusterImage(t, st, shop, 1)
	for _, arch := range []string{"amd64", "arm64"} {
		p, err := ship.NewDockerPlan(context.Background(), st, []store.Tagged{img}, ocispec.Platform{OS: "linux", Architecture: arch})
		require.NoError(t, err)
		var one bytes.Buffer
		require.NoError(t, p.WriteTo(t.Context(), &one, nil))
		add(arch+".tar", one.Bytes())
	}
	add("Metadata", []byte("registry.example.com/old/cluster:v1"))
	require.NoError(t, tw.Close())
	for _, kind := range []string{"plain", "zstd"} {
		loadBoth(t, compressed(t, buf.Bytes(), kind), ship.LoadOptions{}, func(to *store.Store, res ship.Result) {
			require.Equal(t, "registry.example.com/old/cluster:v1", res.Images[0].Name)
			require.ElementsMatch(t, []string{"linux/amd64", "linux/arm64"}, res.Images[0].Platforms)
			requireWhole(t, to, "registry.example.com/old/cluster:v1")
		})
	}
}

// Archives of Docker's format that are cut leave no image, whichever way they come.
func TestLoad_DockerCut(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	data := dockerArchive(t, st, clusterImage(t, st, shop, 1))
	for _, n := range []int{600, 2000, len(data) - 1500} {
		to := newStore(t)
		_, err := ship.LoadStream(t.Context(), to, bytes.NewReader(data[:n]), "the pipe", ship.LoadOptions{})
		require.ErrorContains(t, err, "the pipe")
		requireNoImages(t, to)
	}
}
