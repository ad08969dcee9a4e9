// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// mediaTypes are those of a rootfs' layers.
func mediaTypes(img *clusterimage.Image) []string {
	var out []string
	for _, l := range img.Rootfs[0].Manifest.Layers {
		out = append(out, l.MediaType)
	}
	return out
}

// Either compression has the same files, goes through a registry, and has one digest, whatever was built before it.
func TestCompression(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, sample(t))
	u := newUpstream(t)
	compress := func(c build.Compression) func(*build.Options) { return func(o *build.Options) { o.Compression = c } }
	want := map[build.Compression]string{build.Zstd: ocispec.MediaTypeImageLayerZstd, build.Gzip: ocispec.MediaTypeImageLayerGzip}
	built := map[build.Compression]*clusterimage.Image{}
	for _, c := range []build.Compression{build.Zstd, build.Gzip} {
		img := b.mustBuild(compress(c))
		built[c] = img
		for _, mediaType := range mediaTypes(img) {
			require.Equal(t, want[c], mediaType)
		}
		name := u.host + "/cluster:" + string(c)
		_, err := b.client.Push(t.Context(), b.store, img.Descriptor, name)
		require.NoError(t, err)
		other, err := store.Open(t.TempDir())
		require.NoError(t, err)
		pulled, err := b.client.Pull(t.Context(), other, name, registry.PullOptions{})
		require.NoError(t, err)
		require.Equal(t, img.Descriptor.Digest, pulled.Digest)
	}
	zstd, gzip := built[build.Zstd], built[build.Gzip]
	require.NotEqual(t, zstd.Descriptor.Digest, gzip.Descriptor.Digest)
	require.Equal(t, b.files(zstd, 0), b.files(gzip, 0))
	require.Equal(t, zstd.Rootfs[0].Manifest.Config.Digest, gzip.Rootfs[0].Manifest.Config.Digest)

	other := newBench(t, sample(t)) // the other way round
	for _, c := range []build.Compression{build.Gzip, build.Zstd, ""} {
		same := built[c]
		if c == "" {
			same = zstd
		}
		require.Equal(t, same.Descriptor.Digest, other.mustBuild(compress(c)).Descriptor.Digest, "%q", c)
	}
}

func TestCompression_BaseStaysAsItIs(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	base := b.mustBuild(func(o *build.Options) { o.Tag = "test/base:v1" })
	b.write(map[string]string{"Kubefile": "FROM test/base:v1\nCOPY f g\n"})
	img := b.mustBuild(func(o *build.Options) { o.Compression = build.Gzip })
	n := len(base.Rootfs[0].Manifest.Layers)
	require.Equal(t, base.Rootfs[0].Manifest.Layers, img.Rootfs[0].Manifest.Layers[:n])
	for _, mediaType := range mediaTypes(img)[n:] {
		require.Equal(t, ocispec.MediaTypeImageLayerGzip, mediaType)
	}
}

func TestCompression_Unknown(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\n"})
	_, err := b.build(func(o *build.Options) { o.Compression = "xz" })
	var wrong *build.OptionsError
	require.ErrorAs(t, err, &wrong)
	require.ErrorContains(t, err, `unknown compression "xz": zstd and gzip are known`)
}
