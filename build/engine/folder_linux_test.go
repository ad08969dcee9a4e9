// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/build/engine"
)

// unread is what a session offers where nothing is to be sent.
type unread struct{}

func (unread) Walk(context.Context, string, fs.WalkDirFunc) error {
	return errors.New("the session was asked for files")
}

func (unread) Open(string) (io.ReadCloser, error) {
	return nil, errors.New("the session was asked for a file")
}

// copied is a tar of what COPY makes of a context.
func copied(t *testing.T, e *engine.Engine, key string, files fsutil.FS, opts ...llb.LocalOption) []byte {
	t.Helper()
	opts = append([]llb.LocalOption{llb.SharedKeyHint("context")}, opts...)
	whole := llb.Copy(llb.Local("context", opts...), "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true})
	def, err := llb.Scratch().File(whole, llb.IgnoreCache).Marshal(t.Context()) // times alone would not make a new copy
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = e.Client().Solve(t.Context(), def, client.SolveOpt{
		LocalMounts: map[string]fsutil.FS{"context": files}, SharedKey: key,
		Exports: []client.ExportEntry{{Type: client.ExporterTar, Output: func(map[string]string) (io.WriteCloser, error) {
			return nopCloser{&out}, nil
		}}},
	}, nil)
	require.NoError(t, err)
	return out.Bytes()
}

// entries are the files in a tar.
func entries(t *testing.T, data []byte) (lines []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		require.NoError(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, r)
		require.NoError(t, err)
		lines = append(lines, fmt.Sprintf("%q %c %o %d:%d %d %q %s %v %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname, h.ModTime, h.PAXRecords, sum.Sum(nil)))
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// tree is a folder with a file of every kind, and the changes that are made to it in turn.
type tree struct {
	t   *testing.T
	dir string
	at  int64
}

func (r *tree) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file, later than anything before.
func (r *tree) write(name, content string, mode fs.FileMode) {
	r.t.Helper()
	require.NoError(r.t, os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(content), 0o600))
	require.NoError(r.t, os.Chmod(r.path(name), mode))
	r.at++
	when := time.Unix(1_600_000_000+r.at, r.at)
	require.NoError(r.t, os.Chtimes(r.path(name), when, when))
}

func (r *tree) do(errs ...error) {
	r.t.Helper()
	for _, err := range errs {
		require.NoError(r.t, err)
	}
}

func newTree(t *testing.T) *tree {
	t.Helper()
	r := &tree{t: t, dir: t.TempDir()}
	r.write("a/one", "first", 0o644)
	r.write("a/two", "second", 0o755)
	r.write("a-b", "sorts between a and a/", 0o644)
	r.write("a.d/x", "so does this", 0o600)
	r.write("deep/er/and/deeper", "down", 0o400)
	r.write("große Datei", strings.Repeat("0123456789abcdef", 1<<16), 0o644)
	r.write("setuid", "s", 0o755|fs.ModeSetuid)
	r.write("ignored/secret", "no", 0o644)
	r.write("ignored/kept", "yes", 0o644)
	r.write("gone/with/all", "of it", 0o644)
	r.write("empty", "", 0o644)
	r.write("attributes", "x", 0o644)
	r.write("folder becomes file/inside", "x", 0o644)
	r.write("file becomes folder", "x", 0o644)
	r.do(
		os.Mkdir(r.path("nothing"), 0o700),
		os.Symlink("a/one", r.path("link")), os.Symlink("/absolute", r.path("absolute")), os.Symlink("nowhere", r.path("dangling")),
		os.Link(r.path("a/two"), r.path("z hard")), os.Link(r.path("ignored/secret"), r.path("z hard of ignored")),
		unix.Mkfifo(r.path("fifo"), 0o640), unix.Setxattr(r.path("attributes"), "user.sealer", []byte("1"), 0),
	)
	socket, err := net.Listen("unix", r.path("socket"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	return r
}

// What is read in place gives the very bytes that BuildKit's own way gives, the first time and after every kind of change;
// the session is asked for nothing.
func TestFolderIsReadInPlace(t *testing.T) {
	needRoot(t)
	r := newTree(t)
	files, err := fsutil.NewFS(r.dir)
	require.NoError(t, err)
	root, late := t.TempDir(), time.Now().Add(time.Hour) // every time shows
	theirs := open(t, engine.Options{Epoch: late})
	exclude := llb.ExcludePatterns([]string{"ignored", "!ignored/kept", "**/*.tmp"})
	var last []byte
	check := func(what string, opts ...llb.LocalOption) {
		t.Helper()
		ours, err := engine.Open(t.Context(), engine.Options{Root: root, Epoch: late, Folders: map[string]fsutil.FS{"context": files}})
		require.NoError(t, err)
		got := copied(t, ours, "test", unread{}, opts...)
		require.Equal(t, got, copied(t, ours, "test", unread{}, opts...), "%s: the second time", what)
		require.NoError(t, ours.Close())
		want := copied(t, theirs, what, files, opts...) // what it copied before has another key
		require.Equal(t, entries(t, want), entries(t, got), what)
		require.True(t, bytes.Equal(want, got), "%s: the copies differ", what)
		last = got
	}
	check("cold")
	check("patterns", exclude)
	require.NotContains(t, string(last), "ignored/secret")
	check("what a link leads to", llb.FollowPaths([]string{"link"}), llb.IncludePatterns([]string{"deep"}))
	check("all again")

	same, err := os.Stat(r.path("a/one"))
	require.NoError(t, err)
	for _, change := range []struct {
		name string
		make func()
	}{
		{"content", func() { r.write("a/one", "changed", 0o644) }},
		{"content of the same size", func() { r.write("a/one", "changer", 0o644) }},
		{"mode", func() { r.do(os.Chmod(r.path("a/one"), 0o700)) }},
		{"mode of a folder", func() { r.do(os.Chmod(r.path("a"), 0o711)) }},
		{"time", func() { r.do(os.Chtimes(r.path("a-b"), same.ModTime(), same.ModTime())) }},
		{"time of a folder", func() { r.do(os.Chtimes(r.path("deep/er"), same.ModTime(), same.ModTime())) }},
		{"attribute", func() { r.do(unix.Setxattr(r.path("attributes"), "user.sealer", []byte("2"), 0)) }},
		{"removed", func() { r.do(os.RemoveAll(r.path("gone")), os.Remove(r.path("a.d/x")), os.Remove(r.path("dangling"))) }},
		{"added", func() {
			r.write("a/three", "3", 0o644)
			r.write("new/folder/file", "4", 0o644)
			r.write("0", "first", 0o644)
		}},
		{"link", func() { r.do(os.Remove(r.path("link")), os.Symlink("a/two", r.path("link"))) }},
		{"hard link", func() { r.write("a/two", "through both names", 0o755) }},
		{"hard link undone", func() { r.do(os.Remove(r.path("z hard"))); r.write("z hard", "alone", 0o644) }},
		{"hard link made", func() { r.do(os.Remove(r.path("empty")), os.Link(r.path("a/one"), r.path("empty"))) }},
		{"folder becomes file", func() {
			r.do(os.RemoveAll(r.path("folder becomes file")))
			r.write("folder becomes file", "file", 0o644)
		}},
		{"file becomes folder", func() {
			r.do(os.Remove(r.path("file becomes folder")))
			r.write("file becomes folder/inside", "x", 0o644)
		}},
		{"file becomes link", func() { r.do(os.Remove(r.path("a-b")), os.Symlink("a", r.path("a-b"))) }},
		{"link becomes folder", func() { r.do(os.Remove(r.path("absolute"))); r.write("absolute/a", "x", 0o644) }},
		{"fifo becomes file", func() { r.do(os.Remove(r.path("fifo"))); r.write("fifo", "x", 0o644) }},
		{"long name", func() { r.write(strings.Repeat("n", 255), "1", 0o644) }},
		{"long name changed", func() { r.write(strings.Repeat("n", 255), "22", 0o644) }},
		{"nothing is left", func() {
			entries, err := os.ReadDir(r.dir)
			require.NoError(t, err)
			for _, e := range entries {
				r.do(os.RemoveAll(r.path(e.Name())))
			}
		}},
		{"and one file again", func() { r.write("a/one", "first", 0o644) }},
	} {
		before := last
		change.make()
		check(change.name)
		require.NotEqual(t, before, last, "%s: nothing changed", change.name)
	}
	check("patterns again", exclude)
}

// What a machine that stopped, or a build that was killed, left behind is not taken for what it was to be.
func TestFolderAfterACrash(t *testing.T) {
	needRoot(t)
	for name, listing := range map[string]func(old []byte) []byte{
		"machine": func(old []byte) []byte { return append([]byte("another-start"), old[bytes.IndexByte(old, '\n'):]...) },
		"build":   func([]byte) []byte { return nil },
		"torn":    func(old []byte) []byte { return old[:len(old)-3] },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTree(t)
			files, err := fsutil.NewFS(r.dir)
			require.NoError(t, err)
			o := engine.Options{Root: t.TempDir(), Snapshotter: "overlayfs", Folders: map[string]fsutil.FS{"context": files}}
			e, err := engine.Open(t.Context(), o)
			require.NoError(t, err)
			want := copied(t, e, "test", unread{})
			require.NoError(t, e.Close())

			// The copy loses the end of a file, as after a power cut.
			snapshots := filepath.Join(o.Root, "worker-overlayfs", "snapshots", "snapshots")
			found, err := filepath.Glob(filepath.Join(snapshots, "*", "fs", "a", "one"))
			require.NoError(t, err)
			require.NotEmpty(t, found) // the first is the copy of the context, what was made of that follows
			r.do(os.Truncate(found[0], 1))
			changeListing(t, filepath.Join(o.Root, "worker-overlayfs", "metadata_v2.db"), listing)

			e, err = engine.Open(t.Context(), o)
			require.NoError(t, err)
			// Another way to copy, which is not in the cache.
			def, err := llb.Scratch().File(llb.Copy(llb.Local("context", llb.SharedKeyHint("context")), "/a/one", "/copied")).Marshal(t.Context())
			require.NoError(t, err)
			out := t.TempDir()
			_, err = e.Client().Solve(t.Context(), def, client.SolveOpt{
				LocalMounts: map[string]fsutil.FS{"context": unread{}}, SharedKey: "test",
				Exports: []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
			}, nil)
			require.NoError(t, err)
			content, err := os.ReadFile(filepath.Join(out, "copied"))
			require.NoError(t, err)
			require.Equal(t, "first", string(content))
			require.Equal(t, want, copied(t, e, "test", unread{}))
			require.NoError(t, e.Close())
		})
	}
}

// changeListing rewrites the listing of the one copy that there is.
func changeListing(t *testing.T, file string, change func([]byte) []byte) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	changed := 0
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		all := tx.Bucket([]byte("_external"))
		return all.ForEachBucket(func(id []byte) error {
			b := all.Bucket(id)
			old := b.Get([]byte("sealer.listing.1"))
			if old == nil {
				return nil
			}
			changed++
			return b.Put([]byte("sealer.listing.1"), change(bytes.Clone(old)))
		})
	}))
	require.NoError(t, db.Close())
	require.Equal(t, 1, changed)
}
