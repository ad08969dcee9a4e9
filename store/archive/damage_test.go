// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/store/archive"
)

// tryAll opens an archive and imports what it lists.
func tryAll(t *testing.T, st *store.Store, data []byte) ([]clusterimage.PackedImage, error) {
	t.Helper()
	a, err := archive.OpenFile(t.Context(), "x.tar", "", openBytes(data))
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(t, a.Close()) }()
	return a.Import(t.Context(), st, a.Images, archive.ImportOptions{})
}

// requireWhole checks that every blob of a store is what its name says, and that nothing half-written is left.
func requireWhole(t *testing.T, st *store.Store) {
	t.Helper()
	dir := filepath.Join(st.Dir(), "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		require.Equal(t, e.Name(), sum(data))
	}
	ingests, err := os.ReadDir(filepath.Join(st.Dir(), "ingest"))
	require.NoError(t, err)
	require.Empty(t, ingests)
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{"plain": saved(t), "gzip": gzipped(t, saved(t))} {
		want, err := tryAll(t, newStore(t), data)
		require.NoError(t, err)
		for _, part := range []int{0, 1, 3, 400, 512, 1000, 5000, len(data) / 3, len(data) / 2, len(data) - 3000} {
			st := newStore(t)
			_, err := tryAll(t, st, data[:part])
			var wrong *archive.Error
			require.ErrorAs(t, err, &wrong, "%s cut at %d", name, part)
			require.NotEmpty(t, wrong.Hint(), "%s cut at %d: %v", name, part, err)
			requireWhole(t, st)
			got, err := tryAll(t, st, data)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
}

// Wherever one byte is wrong, the result is either an error or the very same images.
func TestFlipped(t *testing.T) {
	t.Parallel()
	data := saved(t)
	st := newStore(t)
	want, err := tryAll(t, newStore(t), data)
	require.NoError(t, err)
	failed := 0
	for at := 100; at < len(data); at += len(data) / 60 {
		bad := bytes.Clone(data)
		bad[at] ^= 0x20
		got, err := tryAll(t, st, bad)
		if err == nil {
			require.Equal(t, want, got, "byte %d", at)
		} else {
			failed++
		}
	}
	require.Greater(t, failed, 30, "most of the archive is content")
	requireWhole(t, st)
}

// changed is a small archive with something wrong in it.
func changed(t *testing.T, change func(m map[string]*file) []file) []byte {
	t.Helper()
	l := layerTar(t, "f", 3, 4<<10)
	cfg := config(t, "amd64", l)
	m := map[string]*file{
		"config": {name: sum(cfg) + ".json", data: cfg}, "layer": {name: "a/layer.tar", data: l},
		"list": {name: "manifest.json", data: []byte(`[{"Config":"` + sum(cfg) + `.json","RepoTags":["a:1"],"Layers":["a/layer.tar"]}]`)},
	}
	more := change(m)
	return tarOf(t, append([]file{*m["config"], *m["layer"], *m["list"]}, more...)...)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	list := func(m map[string]*file, from, to string) {
		m["list"].data = []byte(strings.ReplaceAll(string(m["list"].data), from, to))
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"traversal": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "../../../etc/passwd")
			return []file{{name: "../../../etc/passwd", data: []byte("x")}}
		}), `"../../../etc/passwd" leads out of the archive`},
		"absolute": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "/etc/passwd")
			return nil
		}), `"/etc/passwd" leads out of the archive`},
		"link out": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "evil")
			return []file{{name: "evil", kind: tar.TypeSymlink, link: "../../etc/passwd"}}
		}), `"evil" is not in it`},
		"absolute link": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "evil")
			return []file{{name: "evil", kind: tar.TypeSymlink, link: "/etc/passwd"}}
		}), `"evil" is not in it`},
		"link loop": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "one")
			return []file{{name: "one", kind: tar.TypeSymlink, link: "two"}, {name: "two", kind: tar.TypeLink, link: "one"}}
		}), `"one" is a link that leads to no file`},
		"device": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "dev")
			return []file{{name: "dev", kind: tar.TypeChar}}
		}), `"dev" is not in it`},
		"missing layer": {changed(t, func(m map[string]*file) []file {
			list(m, "a/layer.tar", "b/layer.tar")
			return nil
		}), `"b/layer.tar" is not in it`},
		"other layer": {changed(t, func(m map[string]*file) []file {
			m["layer"].data = layerTar(t, "f", 4, 4<<10)
			return nil
		}), "has the digest"},
		"other config": {changed(t, func(m map[string]*file) []file {
			m["config"].data = append(m["config"].data, ' ')
			return nil
		}), "has the digest"},
		"fewer layers": {changed(t, func(m map[string]*file) []file {
			list(m, `"a/layer.tar"`, "")
			return nil
		}), "the config has 1 layers and the list 0"},
		"no JSON": {changed(t, func(m map[string]*file) []file {
			m["list"].data = []byte("[{")
			return nil
		}), "manifest.json: unexpected end of JSON input"},
		"no list":    {tarOf(t, file{name: "f", data: []byte("x")}), "it is no archive of images: it has neither index.json nor manifest.json"},
		"empty":      {tarOf(t), "it is no archive of images: it is empty"},
		"no tar":     {bytes.Repeat([]byte("text "), 1000), "it is no archive of images: it is no tar"},
		"xz":         {[]byte("\xfd7zXZ\x00..............."), "it is compressed with xz, which sealer does not read"},
		"huge list":  {changed(t, func(m map[string]*file) []file { m["list"].data = bytes.Repeat([]byte(" "), 5<<20); return nil }), "manifest.json has 5242880 bytes, more than 4194304"},
		"cut header": {append(tarOf(t, file{name: "f", data: []byte("x")})[:1024], hugeHeader(t)...), "unexpected EOF"},
	} {
		st := newStore(t)
		_, err := tryAll(t, st, test.data)
		require.ErrorContains(t, err, test.want, name)
		requireWhole(t, st)
	}
}

// hugeHeader claims a file of 4 EiB that is not there.
func hugeHeader(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: 1 << 62, Format: tar.FormatGNU}))
	return buf.Bytes()
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	_, err := archive.OpenFile(t.Context(), "no.tar", "", func() (io.ReadCloser, error) { return os.Open("/no/such/file") })
	require.EqualError(t, err, "reading no.tar: no such file or directory")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = archive.OpenFolder(t.Context(), "oci:nothing", "", os.DirFS("/no/such"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	broken := errors.New("the disk is gone")
	_, err = archive.OpenFile(t.Context(), "x.tar", "", func() (io.ReadCloser, error) { return io.NopCloser(failing{broken}), nil })
	require.ErrorIs(t, err, broken)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
