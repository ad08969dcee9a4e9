// SPDX-License-Identifier: Apache-2.0

package flatten_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/flatten"
)

// layer is a tar of words: "dir/", "file=content", "link->target", "hard=>target".
func layer(t *testing.T, cs content.Store, compressed bool, words ...string) ocispec.Descriptor {
	t.Helper()
	var buf bytes.Buffer
	var out io.WriteCloser = nopCloser{&buf}
	if compressed {
		var err error
		out, err = zstd.NewWriter(&buf)
		require.NoError(t, err)
	}
	w := tar.NewWriter(out)
	for _, word := range words {
		h := &tar.Header{Name: word, Mode: 0o644, Typeflag: tar.TypeReg}
		text := ""
		if name, target, ok := strings.Cut(word, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeSymlink
		} else if name, target, ok := strings.Cut(word, "=>"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeLink
		} else if strings.HasSuffix(word, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		} else {
			h.Name, text, _ = strings.Cut(word, "=")
			h.Size = int64(len(text))
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, out.Close())
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(buf.Bytes()), Size: int64(buf.Len())}
	require.NoError(t, content.WriteBlob(t.Context(), cs, desc.Digest.String(), &buf, desc))
	return desc
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestWalk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		layers [][]string
		want   []string
	}{
		{"one", [][]string{{"a/", "a/b=1", "l->a/b", "h=>a/b"}}, []string{"a/", "a/b=1", "l->a/b", "h=>a/b"}},
		{"none", [][]string{{}}, nil},
		{"replaced", [][]string{{"a=1", "b=1"}, {"a=2"}}, []string{"b=1", "a=2"}},
		{"folder again", [][]string{{"d/", "d/a=1"}, {"d/", "d/b=2"}}, []string{"d/a=1", "d/", "d/b=2"}},
		{"whiteout", [][]string{{"d/", "d/a=1", "d/b=1", "e=1"}, {"d/.wh.a", ".wh.e"}}, []string{"d/", "d/b=1"}},
		{"whiteout of a folder", [][]string{{"d/", "d/a=1", "dd=1"}, {".wh.d"}}, []string{"dd=1"}},
		{"whiteout and new in one layer", [][]string{{"d/", "d/a=1"}, {".wh.d", "d/", "d/b=2"}}, []string{"d/", "d/b=2"}},
		{"opaque", [][]string{{"d/", "d/a=1"}, {"d/", "d/.wh..wh..opq", "d/b=2"}}, []string{"d/", "d/b=2"}},
		{"opaque root", [][]string{{"a=1"}, {".wh..wh..opq", "b=2"}}, []string{"b=2"}},
		{"file over folder", [][]string{{"d/", "d/a=1"}, {"d=2"}}, []string{"d=2"}},
		{"link over folder", [][]string{{"d/", "d/a=1"}, {"d->e"}}, []string{"d->e"}},
		{"folder over file", [][]string{{"d=1"}, {"d/", "d/a=2"}}, []string{"d/", "d/a=2"}},
		{"back again", [][]string{{"a=1"}, {".wh.a"}, {"a=3"}}, []string{"a=3"}},
		{"twice in one layer", [][]string{{"a=1", "a=2"}}, []string{"a=2"}},
		{"outside", [][]string{{"../../a=1", "/b=1", "./c/../d=1"}}, []string{"a=1", "b=1", "d=1"}},
		{"hard link to what is replaced", [][]string{{"a=1", "b=>a", "c=>a"}, {"a=2"}}, []string{"b=1", "c=>b", "a=2"}},
		{"hard link to what is removed", [][]string{{"a=1", "b=>a"}, {".wh.a"}}, []string{"b=1"}},
	} {
		for _, compressed := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				cs, err := local.NewStore(t.TempDir())
				require.NoError(t, err)
				var layers []ocispec.Descriptor
				for _, words := range c.layers {
					layers = append(layers, layer(t, cs, compressed, words...))
				}
				var got []string
				require.NoError(t, flatten.Walk(t.Context(), cs, layers, func(h *tar.Header, r io.Reader) error {
					data, err := io.ReadAll(r)
					require.NoError(t, err)
					switch h.Typeflag {
					case tar.TypeDir:
						got = append(got, h.Name)
					case tar.TypeSymlink:
						got = append(got, h.Name+"->"+h.Linkname)
					case tar.TypeLink:
						got = append(got, h.Name+"=>"+h.Linkname)
					default:
						got = append(got, h.Name+"="+string(data))
					}
					return nil
				}))
				require.Equal(t, c.want, got)
			})
		}
	}
}

func TestWalk_Errors(t *testing.T) {
	t.Parallel()
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	none := ocispec.Descriptor{Digest: digest.FromString("none"), Size: 4}
	nothing := func(*tar.Header, io.Reader) error { return nil }
	require.ErrorContains(t, flatten.Walk(t.Context(), cs, []ocispec.Descriptor{none}, nothing), "reading layer sha256:")
	one := layer(t, cs, true, "a=1")
	require.ErrorIs(t, flatten.Walk(t.Context(), cs, []ocispec.Descriptor{one}, func(*tar.Header, io.Reader) error { return io.ErrNoProgress }), io.ErrNoProgress)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, flatten.Walk(ctx, cs, []ocispec.Descriptor{one}, nothing), context.Canceled)
}
