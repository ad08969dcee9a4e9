// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// sketch is a rootfs as far as it is known without building it: paths that lead to files of the build context. It is an
// fs.FS that reads those.
type sketch map[string]sketched

// sketched is a file or a folder of a sketch.
type sketched struct {
	from fs.FS // nil: a folder, or text
	name string
	dir  bool
	text []byte
}

var (
	_ fs.ReadDirFS = sketch{}
	_ fs.StatFS    = sketch{}
)

// newSketch has the root folder and nothing else.
func newSketch() sketch { return sketch{".": {dir: true}} }

// relative is a path of the rootfs as io/fs has it.
func relative(p string) string {
	if p = strings.TrimPrefix(path.Join("/", p), "/"); p == "" {
		return "."
	}
	return p
}

// put adds a file or a folder, with the folders above it.
func (s sketch) put(name string, one sketched) {
	name = relative(name)
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		s[dir] = sketched{dir: true}
	}
	if one.dir && s[name].dir {
		return
	}
	s[name] = one
}

func (s sketch) find(op, name string) (sketched, error) {
	if !fs.ValidPath(name) {
		return sketched{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	one, ok := s[name]
	if !ok {
		return sketched{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return one, nil
}

// Open opens a file or a folder.
func (s sketch) Open(name string) (fs.File, error) {
	one, err := s.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case one.from != nil:
		return one.from.Open(one.name)
	}
	return &sketchFile{Reader: bytes.NewReader(one.text), info: one.info(name)}, nil
}

// Stat follows symbolic links, as far as the context goes.
func (s sketch) Stat(name string) (fs.FileInfo, error) {
	one, err := s.find("stat", name)
	switch {
	case err != nil:
		return nil, err
	case one.from != nil:
		return fs.Stat(one.from, one.name)
	}
	return one.info(name), nil
}

// ReadDir lists a folder, sorted.
func (s sketch) ReadDir(name string) ([]fs.DirEntry, error) {
	one, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !one.dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	var entries []fs.DirEntry
	for p, child := range s {
		if p != "." && path.Dir(p) == name {
			entries = append(entries, sketchEntry{child.info(p), s, p})
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

func (o sketched) info(name string) sketchInfo {
	return sketchInfo{name: path.Base(name), dir: o.dir, size: int64(len(o.text))}
}

type sketchInfo struct {
	name string
	dir  bool
	size int64
}

func (i sketchInfo) Name() string       { return i.name }
func (i sketchInfo) Size() int64        { return i.size }
func (i sketchInfo) ModTime() time.Time { return time.Unix(0, 0) }
func (i sketchInfo) IsDir() bool        { return i.dir }
func (i sketchInfo) Sys() any           { return nil }
func (i sketchInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

type sketchEntry struct {
	sketchInfo
	sketch sketch
	path   string
}

func (e sketchEntry) Type() fs.FileMode          { return e.Mode().Type() }
func (e sketchEntry) Info() (fs.FileInfo, error) { return e.sketch.Stat(e.path) }

// sketchFile is a folder, or a text that the Kubefile holds.
type sketchFile struct {
	*bytes.Reader
	info sketchInfo
}

func (f *sketchFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *sketchFile) Close() error               { return nil }
func (f *sketchFile) Read(p []byte) (int, error) {
	if f.info.dir {
		return 0, &fs.PathError{Op: "read", Path: f.info.name, Err: fs.ErrInvalid}
	}
	return f.Reader.Read(p)
}

var _ io.Reader = (*sketchFile)(nil)
