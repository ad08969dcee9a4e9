// SPDX-License-Identifier: Apache-2.0

package kustomization

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// maxRead is how much one kustomization may read, in bytes.
const maxRead = 64 << 20

var errReadOnly = errors.New("the files are only read")

// files is an fs.FS as kustomize sees it, with its root at /. It notes what is
// read, and gives kustomizations without what lies in a network.
type files struct {
	fsys    fs.FS
	read    map[string]bool
	left    int64
	problem func(file string, line int, message string)
}

var _ filesys.FileSystem = (*files)(nil)

func inside(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(name)), "/")
	if name == "" {
		return "."
	}
	return name
}

func (*files) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (*files) Mkdir(string) error                  { return errReadOnly }
func (*files) MkdirAll(string) error               { return errReadOnly }
func (*files) RemoveAll(string) error              { return errReadOnly }
func (*files) WriteFile(string, []byte) error      { return errReadOnly }

// Open is not used for reading: kustomize reads files whole.
func (*files) Open(string) (filesys.File, error) { return nil, errReadOnly }

func (f *files) stat(name string) (fs.FileInfo, bool) {
	info, err := fs.Stat(f.fsys, inside(name))
	return info, err == nil
}

func (f *files) IsDir(name string) bool {
	info, ok := f.stat(name)
	return ok && info.IsDir()
}

func (f *files) Exists(name string) bool {
	_, ok := f.stat(name)
	return ok
}

func (f *files) ReadDir(name string) ([]string, error) {
	entries, err := fs.ReadDir(f.fsys, inside(name))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

func (f *files) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	at := inside(name)
	info, ok := f.stat(name)
	switch {
	case !ok:
		return "", "", &fs.PathError{Op: "open", Path: at, Err: fs.ErrNotExist}
	case info.IsDir():
		return filesys.ConfirmedDir(path.Join("/", at)), "", nil
	}
	return filesys.ConfirmedDir(path.Join("/", path.Dir(at))), path.Base(at), nil
}

func (f *files) Glob(pattern string) ([]string, error) {
	found, err := fs.Glob(f.fsys, inside(pattern))
	for i := range found {
		found[i] = "/" + found[i]
	}
	return found, err
}

func (f *files) ReadFile(name string) ([]byte, error) {
	at := inside(name)
	info, err := fs.Stat(f.fsys, at)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: at, Err: errors.New("it is no regular file")}
	}
	file, err := f.fsys.Open(at)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, f.left+1))
	if err != nil {
		return nil, err
	}
	if f.left -= int64(len(data)); f.left < 0 {
		return nil, &fs.PathError{Op: "read", Path: at, Err: errors.New("the kustomization reads too much")}
	}
	f.read[at] = true
	if IsFile(path.Base(at)) {
		return f.local(at, data)
	}
	return data, nil
}

func (f *files) Walk(name string, walk filepath.WalkFunc) error {
	return fs.WalkDir(f.fsys, inside(name), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return walk("/"+name, nil, err)
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return walk("/"+name, info, err)
	})
}
