// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// item is an entry of a tar that was found.
type item struct {
	name string
	kind byte
	link string // where a link leads
	// at is the offset of its header, data of its content; both of the whole source.
	at, data, size int64
}

// scan lists the entries of the tar in a section of a source, without their contents.
func scan(s *source, from, size int64) ([]item, error) {
	section := io.NewSectionReader(s, from, size)
	tr := tar.NewReader(section)
	var items []item
	at, last := from, ""
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			if len(items) == 0 && (!errors.Is(err, io.ErrUnexpectedEOF) || size < block) {
				return nil, &ForeignError{Archive: s.name, Why: "it is no tar"}
			}
			if len(items) > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
				at = items[len(items)-1].at // it is not whole
			}
			return items, s.wrong(last, at, 1, cut(err))
		}
		if len(items) == maxEntries {
			return nil, &ForeignError{Archive: s.name, Why: fmt.Sprintf("it has more than %d entries", maxEntries)}
		}
		it, err := itemOf(hdr)
		if err != nil {
			return nil, s.wrong(hdr.Name, at, 1, err)
		}
		pos, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", s.name, err)
		}
		it.at, it.data, last = at, from+pos, it.name
		items = append(items, it)
		at = it.data + padded(it.size)
	}
}

// cut says in words what an archive that ends too early is.
func cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive ends here, in the middle: %w", err)
	}
	return err
}

// itemOf checks an entry's name and size.
func itemOf(hdr *tar.Header) (item, error) {
	name := path.Clean(hdr.Name)
	if path.IsAbs(hdr.Name) || name == ".." || strings.HasPrefix(name, "../") {
		return item{}, errors.New("its name leads out of the archive")
	}
	if hdr.Size < 0 || hdr.Size > maxBlob {
		return item{}, fmt.Errorf("it has a size of %d bytes", hdr.Size)
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return item{}, errors.New("it is a sparse file, which archives of images do not have")
		}
	}
	return item{name: name, kind: hdr.Typeflag, link: hdr.Linkname, size: hdr.Size}, nil
}

// blob tells whether an entry is a blob, and which.
func (it item) blob() (digest.Digest, bool) {
	dir, hex := path.Split(it.name)
	d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(dir)), hex)
	if it.kind != tar.TypeReg || path.Dir(path.Clean(dir)) != blobsFolder || d.Validate() != nil {
		return "", false
	}
	return d, true
}

// file finds a file at the root of the tar; the last one of a name wins, as when a tar is unpacked.
func file(items []item, name string) (item, bool) {
	for _, it := range slices.Backward(items) {
		if it.name == name && it.kind == tar.TypeReg {
			return it, true
		}
	}
	return item{}, false
}

// document reads a bounded file of the tar.
func (s *source) document(it item, limit int64) ([]byte, error) {
	if it.size > limit {
		return nil, s.wrong(it.name, it.at, 1, fmt.Errorf("it has %d bytes, more than %d", it.size, limit))
	}
	data := make([]byte, it.size)
	if _, err := io.ReadFull(io.NewSectionReader(s, it.data, it.size), data); err != nil {
		return nil, s.wrong(it.name, it.at, it.size, cut(err))
	}
	return data, nil
}
