// SPDX-License-Identifier: Apache-2.0

// Package layer makes image layers that come out the same on every machine: sorted entries, root as the owner,
// one fixed time.
package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Epoch is the time of every file and image: what is built twice from the same sources has the same digest.
func Epoch() time.Time { return time.Unix(0, 0).UTC() }

// Tree is the content of a layer before it is packed. Paths are slash-separated and relative to the root. Folders
// above an entry are made when the tree is packed.
type Tree struct {
	entries map[string]entry
}

type entry struct {
	kind byte // tar's type flag: TypeReg, TypeDir or TypeSymlink
	mode int64
	link string
	size int64
	open func() (io.ReadCloser, error)
}

// NewTree returns an empty tree.
func NewTree() *Tree {
	return &Tree{entries: make(map[string]entry)}
}

// Dir adds a folder, for those that have to exist while empty or need a mode of their own.
func (t *Tree) Dir(name string, mode fs.FileMode) {
	t.entries[clean(name)] = entry{kind: tar.TypeDir, mode: tarMode(mode)}
}

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.entries[clean(name)] = entry{kind: tar.TypeSymlink, mode: 0o777, link: target}
}

// Bytes adds a file with the given content.
func (t *Tree) Bytes(name string, mode fs.FileMode, content []byte) {
	t.entries[clean(name)] = entry{
		kind: tar.TypeReg,
		mode: tarMode(mode),
		size: int64(len(content)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// File adds a file whose content is read from disk when the tree is packed.
func (t *Tree) File(name string, mode fs.FileMode, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("adding /%s to a layer: %w", clean(name), err)
	}
	t.entries[clean(name)] = entry{
		kind: tar.TypeReg,
		mode: tarMode(mode),
		size: info.Size(),
		open: func() (io.ReadCloser, error) { return os.Open(source) },
	}
	return nil
}

// Tar adds what an archive holds under the names that rename gives; an entry whose new name is empty is left out.
// Content is kept in memory. Hard links become copies, so that an entry never depends on another one.
func (t *Tree) Tar(r io.Reader, rename func(string) string) error {
	contents := make(map[string][]byte) // by the archive's own names, for hard links
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading an archive: %w", err)
		}
		source := clean(header.Name)
		name := rename(source)
		mode := header.FileInfo().Mode()
		switch header.Typeflag {
		case tar.TypeReg:
			content, err := io.ReadAll(archive)
			if err != nil {
				return fmt.Errorf("reading %s from an archive: %w", header.Name, err)
			}
			contents[source] = content
			if name != "" {
				t.Bytes(name, mode, content)
			}
		case tar.TypeLink:
			content, ok := contents[clean(header.Linkname)]
			if !ok {
				return fmt.Errorf("reading %s from an archive: it is a link to %s, which does not come before it", header.Name, header.Linkname)
			}
			contents[source] = content
			if name != "" {
				t.Bytes(name, mode, content)
			}
		case tar.TypeSymlink:
			if name != "" {
				t.Link(name, header.Linkname)
			}
		case tar.TypeDir:
			if name != "" {
				t.Dir(name, mode)
			}
		default:
			return fmt.Errorf("reading %s from an archive: entries of type %q are not known here", header.Name, header.Typeflag)
		}
	}
}

// Pack writes the tree as a tar archive.
func (t *Tree) Pack(ctx context.Context, w io.Writer) error {
	all := maps.Clone(t.entries)
	for name := range t.entries {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if e, ok := all[dir]; !ok {
				all[dir] = entry{kind: tar.TypeDir, mode: 0o755}
			} else if e.kind != tar.TypeDir {
				return fmt.Errorf("packing /%s: /%s is not a folder", name, dir)
			}
		}
	}
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("packing a layer: %w", err)
		}
		if err := packEntry(archive, name, all[name]); err != nil {
			return fmt.Errorf("packing /%s: %w", name, err)
		}
	}
	return archive.Close()
}

func packEntry(archive *tar.Writer, name string, e entry) error {
	header := &tar.Header{
		Typeflag: e.kind,
		Name:     name,
		Linkname: e.link,
		Size:     e.size,
		Mode:     e.mode,
		ModTime:  Epoch(),
		Format:   tar.FormatPAX,
	}
	if e.kind == tar.TypeDir {
		header.Name += "/"
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if e.kind != tar.TypeReg {
		return nil
	}
	r, err := e.open()
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, r) // a file that has grown or shrunk since is an error from the archive
	return errors.Join(err, r.Close())
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// tarMode gives the mode as tar has it. Set-user-ID bits are dropped: no program here needs them.
func tarMode(mode fs.FileMode) int64 {
	m := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		m |= 0o1000
	}
	return m
}
