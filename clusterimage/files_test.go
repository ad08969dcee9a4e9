// SPDX-License-Identifier: Apache-2.0

package clusterimage_test

import (
	"archive/tar"
	"bytes"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
)

// layerOf is a plain tar of names and contents; a name that ends in a slash is a folder.
func layerOf(t *testing.T, entries ...[2]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e[1]))}
		if e[0][len(e[0])-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		require.NoError(t, tw.WriteHeader(h))
		_, err := tw.Write([]byte(e[1]))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}

// A file is as the last layer has it, and gone where a layer takes it away.
func TestReadFiles(t *testing.T) {
	cs := newStore(t)
	var layers []ocispec.Descriptor
	for _, l := range [][]byte{
		layerOf(t, [2]string{"etc/", ""}, [2]string{"./etc/a", "a1"}, [2]string{"etc/b", "b1"}, [2]string{"gone/c", "c"}, [2]string{"opaque/d", "d"}, [2]string{"file/e", "e"}),
		layerOf(t, [2]string{"etc/a", "a2"}, [2]string{"etc/.wh.b", ""}, [2]string{".wh.gone", ""}, [2]string{"opaque/.wh..wh..opq", ""}, [2]string{"opaque/f", "f"}, [2]string{"file", "now a file"}),
	} {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(l), Size: int64(len(l))}
		require.NoError(t, content.WriteBlob(t.Context(), cs, d.Digest.String(), bytes.NewReader(l), d))
		layers = append(layers, d)
	}
	got, err := clusterimage.ReadFiles(t.Context(), cs, layers, []string{"etc/a", "etc/b", "gone/c", "opaque/d", "opaque/f", "file/e", "file", "etc", "never"})
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"etc/a": []byte("a2"), "opaque/f": []byte("f"), "file": []byte("now a file")}, got)

	layers[0].Digest = digest.FromString("another")
	_, err = clusterimage.ReadFiles(t.Context(), cs, layers, []string{"etc/a"})
	require.Error(t, err)
}
