// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"

	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// entry is one file of a source.
type entry struct {
	name string // clean, without a leading slash
	at   int    // its place, which tells two of one name apart
	size int64
	link string // the name that it stands for; empty: a file of its own
	kind string // compression of a file, by its first bytes; empty: none
}

// contents goes through the files of a source, in an order that stays. read may be called once for each, before fn returns.
type contents interface {
	walk(ctx context.Context, fn func(e entry, r io.Reader) error) error
}

// errStop ends a walk early.
var errStop = errors.New("enough")

// read lists the entries and keeps those that look like documents.
func (a *Archive) read(ctx context.Context) error {
	total := 0
	err := a.content.walk(ctx, func(e entry, r io.Reader) error {
		if len(a.entries) >= maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		delete(a.docs, e.name) // the later of two wins
		if e.link != "" || e.size == 0 {
			a.entries[e.name] = e
			return nil
		}
		first := make([]byte, min(e.size, 4))
		if _, err := io.ReadFull(r, first); err != nil {
			return err
		}
		e.kind = compressionOf(first)
		a.entries[e.name] = e
		if e.size > maxDocument || first[0] != '{' && first[0] != '[' {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(r, maxDocument))
		if err != nil {
			return err
		}
		if total += len(data); total > maxDocuments {
			return fmt.Errorf("its documents have more than %d bytes", maxDocuments)
		}
		a.docs[e.name] = append(first, data...)
		return nil
	})
	if err != nil {
		return err
	}
	for name, limit := range map[string]int64{ocispec.ImageIndexFile: maxDocument, savedList: maxDocument} {
		if e, ok := a.entries[name]; ok && e.size > limit {
			return fmt.Errorf("%s has %d bytes, more than %d", name, e.size, limit)
		}
	}
	return nil
}

// resolve follows links to the file that a name stands for.
func (a *Archive) resolve(name string) (entry, error) {
	clean, ok := cleanName(name)
	if !ok {
		return entry{}, fmt.Errorf("%q leads out of the archive", name)
	}
	for range maxLinks {
		e, ok := a.entries[clean]
		if !ok {
			return entry{}, fmt.Errorf("%q is not in it", name)
		}
		if e.link == "" {
			return e, nil
		}
		clean = e.link
	}
	return entry{}, fmt.Errorf("%q is a link that leads to no file", name)
}

// document returns a kept document.
func (a *Archive) document(name string) ([]byte, error) {
	e, err := a.resolve(name)
	if err != nil {
		return nil, err
	}
	data, ok := a.docs[e.name]
	if !ok {
		return nil, fmt.Errorf("%q is no document of at most %d bytes", name, maxDocument)
	}
	return data, nil
}

// cleanName gives the name of an entry one form; false: it leads out of the archive.
func cleanName(name string) (string, bool) {
	if path.IsAbs(name) {
		return "", false
	}
	clean := path.Clean(name)
	return clean, clean == "." || fs.ValidPath(clean)
}

// tarball is a tar, plain or compressed.
type tarball struct{ open File }

func (t *tarball) walk(ctx context.Context, fn func(entry, io.Reader) error) (err error) {
	f, r, err := t.decompress()
	if err != nil {
		return pathless(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if c, ok := r.(io.Closer); ok && r != io.Reader(f) {
		defer func() { _ = c.Close() }()
	}
	tr := tar.NewReader(r)
	for at := 0; ; at++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if at > maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) && at == 0 {
			return &FormatError{"it is no tar"}
		}
		if err != nil {
			return err
		}
		e, ok := tarEntry(hdr, at)
		if !ok {
			continue // folders and devices hold nothing; names that lead out of the archive are never asked for
		}
		if err := fn(e, tr); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
}

func tarEntry(hdr *tar.Header, at int) (entry, bool) {
	name, ok := cleanName(hdr.Name)
	if !ok {
		return entry{}, false
	}
	e := entry{name: name, at: at, size: hdr.Size}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return e, true
	case tar.TypeSymlink: // relative to its folder: docker save before 25 links equal layers so
		e.link, ok = cleanName(path.Join(path.Dir(name), hdr.Linkname)) //nolint:gosec // a name to look up in the archive; nothing is written there
		return e, ok && !path.IsAbs(hdr.Linkname)
	case tar.TypeLink:
		e.link, ok = cleanName(hdr.Linkname)
		return e, ok
	}
	return entry{}, false
}

// decompress opens the file and says by its first bytes what it is. The plain reader can seek if the file can.
func (t *tarball) decompress() (io.ReadCloser, io.Reader, error) {
	f, err := t.open()
	if err != nil {
		return nil, nil, err
	}
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, errors.Join(err, f.Close())
	}
	kind := compressionOf(magic[:n])
	// Opened again rather than put together with what was read: tar skips by seeking.
	if err := f.Close(); err != nil {
		return nil, nil, err
	}
	if f, err = t.open(); err != nil {
		return nil, nil, err
	}
	r, err := decompress(kind, f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, r, nil
}

// compressionOf tells by the first bytes: Gzip, Zstd, "xz", "bzip2", or nothing.
func compressionOf(magic []byte) string {
	for prefix, kind := range map[string]string{"\x1f\x8b": Gzip, "\x28\xb5\x2f\xfd": Zstd, "\xfd7zX": "xz", "BZh": "bzip2"} {
		if bytes.HasPrefix(magic, []byte(prefix)) {
			return kind
		}
	}
	return ""
}

func decompress(kind string, r io.Reader) (io.Reader, error) {
	switch kind {
	case "":
		return r, nil
	case Gzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z, nil
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, &FormatError{"it is compressed with " + kind + ", which sealer does not read: unpack it, or compress it with zstd"}
}

// tree is a folder.
type tree struct{ folder fs.FS }

func (t *tree) walk(ctx context.Context, fn func(entry, io.Reader) error) error {
	at := 0
	err := fs.WalkDir(t.folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// What else stands in the folder is none of our business.
		if name != ocispec.ImageIndexFile && name != "." && name != ocispec.ImageBlobsDir && !strings.HasPrefix(name, ocispec.ImageBlobsDir+"/") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := fs.Stat(t.folder, name)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		at++
		f := &lazyFile{open: func() (io.ReadCloser, error) { return t.folder.Open(name) }}
		return errors.Join(fn(entry{name: name, at: at, size: info.Size()}, f), f.Close())
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// lazyFile is opened when it is read.
type lazyFile struct {
	open func() (io.ReadCloser, error)
	f    io.ReadCloser
}

func (l *lazyFile) Read(p []byte) (int, error) {
	if l.f == nil {
		f, err := l.open()
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	return l.f.Read(p)
}

func (l *lazyFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
