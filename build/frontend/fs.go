// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/gateway/client"
	fstypes "github.com/tonistiigi/fsutil/types"
)

const (
	readChunk = 4 << 20 // a message of the gateway holds 16 MiB
	maxLinks  = 40
)

// refFS is a solved result as a file system. What is there is learned by listing folders: an error of the gateway does
// not tell a file that is missing from one that cannot be read.
type refFS struct {
	ctx context.Context
	ref client.Reference // nil: no files

	mu   sync.Mutex
	dirs map[string][]*fstypes.Stat
}

var (
	_ fs.ReadDirFS = (*refFS)(nil)
	_ fs.StatFS    = (*refFS)(nil)
)

// newRefFS takes ctx for all reading: io/fs has no place for one.
func newRefFS(ctx context.Context, ref client.Reference) *refFS {
	return &refFS{ctx: ctx, ref: ref, dirs: map[string][]*fstypes.Stat{}}
}

func (f *refFS) list(dir string) ([]*fstypes.Stat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.dirs[dir]; ok {
		return l, nil
	}
	if f.ref == nil {
		return nil, nil
	}
	l, err := f.ref.ReadDir(f.ctx, client.ReadDirRequest{Path: path.Join("/", dir)})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l, func(a, b *fstypes.Stat) int { return strings.Compare(path.Base(a.Path), path.Base(b.Path)) })
	f.dirs[dir] = l
	return l, nil
}

// find returns where name leads, following symbolic links inside the root, and what is there.
func (f *refFS) find(op, name string) (string, *fstypes.Stat, error) {
	if !fs.ValidPath(name) {
		return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at, here := ".", &fstypes.Stat{Path: ".", Mode: uint32(fs.ModeDir | 0o755)}
	rest, links := strings.Split(name, "/"), 0
	for len(rest) > 0 {
		word := rest[0]
		rest = rest[1:]
		switch word {
		case "", ".":
			continue
		case "..":
			at, here = path.Dir(at), &fstypes.Stat{Path: path.Dir(at), Mode: uint32(fs.ModeDir | 0o755)}
			continue
		}
		if !fs.FileMode(here.Mode).IsDir() {
			return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		entries, err := f.list(at)
		if err != nil {
			return "", nil, &fs.PathError{Op: op, Path: name, Err: err}
		}
		i := slices.IndexFunc(entries, func(s *fstypes.Stat) bool { return path.Base(s.Path) == word })
		if i < 0 {
			return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		entry := entries[i]
		if fs.FileMode(entry.Mode)&fs.ModeSymlink == 0 {
			at, here = path.Join(at, word), entry
			continue
		}
		if links++; links > maxLinks {
			return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
		}
		if path.IsAbs(entry.Linkname) {
			at, here = ".", &fstypes.Stat{Path: ".", Mode: uint32(fs.ModeDir | 0o755)}
		}
		rest = append(strings.Split(entry.Linkname, "/"), rest...)
	}
	return at, here, nil
}

// throughLink says whether a part of dir, an absolute path, is a symbolic link.
func (f *refFS) throughLink(dir string) (bool, error) {
	at := "."
	for word := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		entries, err := f.list(at)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(entries, func(s *fstypes.Stat) bool { return path.Base(s.Path) == word })
		if i < 0 || !fs.FileMode(entries[i].Mode).IsDir() {
			return i >= 0 && fs.FileMode(entries[i].Mode)&fs.ModeSymlink != 0, nil
		}
		at = path.Join(at, word)
	}
	return false, nil
}

func (f *refFS) Open(name string) (fs.File, error) {
	at, st, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	return &refFile{fs: f, path: at, info: info{st}}, nil
}

func (f *refFS) Stat(name string) (fs.FileInfo, error) {
	_, st, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return info{st}, nil
}

func (f *refFS) ReadDir(name string) ([]fs.DirEntry, error) {
	at, st, err := f.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !fs.FileMode(st.Mode).IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	list, err := f.list(at)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	entries := make([]fs.DirEntry, len(list))
	for i, s := range list {
		entries[i] = fs.FileInfoToDirEntry(info{s})
	}
	return entries, nil
}

type refFile struct {
	fs     *refFS
	path   string
	info   info
	offset int64
}

func (f *refFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *refFile) Close() error               { return nil }

func (f *refFile) Read(p []byte) (int, error) {
	if f.info.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: fs.ErrInvalid}
	}
	left := f.info.Size() - f.offset
	if left <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), left, readChunk))
	data, err := f.fs.ref.ReadFile(f.fs.ctx, client.ReadRequest{
		Filename: path.Join("/", f.path), Range: &client.FileRange{Offset: int(f.offset), Length: n},
	})
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	if len(data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	f.offset += int64(len(data))
	return copy(p, data), nil
}

// Seek lets readers of large files skip what they do not need.
func (f *refFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.info.Size()
	}
	if offset < 0 {
		return 0, &fs.PathError{Op: "seek", Path: f.path, Err: fs.ErrInvalid}
	}
	f.offset = offset
	return offset, nil
}

type info struct{ st *fstypes.Stat }

func (i info) Name() string       { return path.Base(i.st.Path) }
func (i info) Size() int64        { return i.st.Size }
func (i info) Mode() fs.FileMode  { return fs.FileMode(i.st.Mode) }
func (i info) ModTime() time.Time { return time.Unix(0, i.st.ModTime) }
func (i info) IsDir() bool        { return i.Mode().IsDir() }
func (i info) Sys() any           { return i.st }
