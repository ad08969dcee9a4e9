// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"time"
)

// viewFS is the view as a file system: that of the cluster's files.
type viewFS struct {
	context fs.FS
	files   map[string]string   // as in view
	entries map[string][]string // names by folder
}

func (v *view) fs(context fs.FS) fs.FS {
	tree := &viewFS{context: context, files: v.files, entries: map[string][]string{".": nil}}
	for target := range v.files {
		for name := target; name != "."; name = path.Dir(name) {
			folder := path.Dir(name)
			if _, isFile := v.files[folder]; isFile || slices.Contains(tree.entries[folder], path.Base(name)) {
				break
			}
			tree.entries[folder] = append(tree.entries[folder], path.Base(name))
		}
	}
	for _, names := range tree.entries {
		slices.Sort(names)
	}
	return tree
}

// Open implements fs.FS.
func (v *viewFS) Open(name string) (fs.File, error) {
	if source, ok := v.files[name]; ok {
		return v.context.Open(source)
	}
	if _, ok := v.entries[name]; ok {
		return &viewFolder{tree: v, name: name}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Stat implements fs.StatFS.
func (v *viewFS) Stat(name string) (fs.FileInfo, error) {
	if source, ok := v.files[name]; ok {
		info, err := fs.Stat(v.context, source)
		if err != nil {
			return nil, err
		}
		return renamed{info, path.Base(name)}, nil
	}
	if _, ok := v.entries[name]; ok {
		return folderInfo(path.Base(name)), nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS. Links that lead nowhere are left out.
func (v *viewFS) ReadDir(name string) ([]fs.DirEntry, error) {
	names, ok := v.entries[name]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var entries []fs.DirEntry
	for _, base := range names {
		if info, err := v.Stat(path.Join(name, base)); err == nil {
			entries = append(entries, fs.FileInfoToDirEntry(info))
		}
	}
	return entries, nil
}

// viewFolder is an open folder.
type viewFolder struct {
	tree *viewFS
	name string
	read bool
}

func (f *viewFolder) Stat() (fs.FileInfo, error) { return f.tree.Stat(f.name) }

func (f *viewFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrInvalid}
}

func (f *viewFolder) Close() error { return nil }

func (f *viewFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if f.read && n > 0 {
		return nil, io.EOF
	}
	f.read = true
	return f.tree.ReadDir(f.name)
}

// renamed is a file under the name that it gets.
type renamed struct {
	fs.FileInfo
	name string
}

func (r renamed) Name() string { return r.name }

// folderInfo is the name of a folder.
type folderInfo string

func (f folderInfo) Name() string     { return string(f) }
func (folderInfo) Size() int64        { return 0 }
func (folderInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o755 }
func (folderInfo) ModTime() time.Time { return time.Time{} }
func (folderInfo) IsDir() bool        { return true }
func (folderInfo) Sys() any           { return nil }
