// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// source is an archive that can be read at any place: a file, or the parts of one.
type source struct {
	name  string
	size  int64
	files []sourceFile
}

// sourceFile is a file of a source; it begins at offset at of the whole.
type sourceFile struct {
	*os.File
	part part // without a digest where no list of parts tells it
	at   int64
}

// openSource opens a file, or the parts that a name stands for: that of the
// first part, of the list of parts, or the one that save was given.
func openSource(path string) (*source, error) {
	base := strings.TrimSuffix(strings.TrimSuffix(path, partsSuffix), ".000")
	if list, err := readParts(base + partsSuffix); !errors.Is(err, fs.ErrNotExist) {
		_, single := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if base != path || single != nil {
			return openParts(base, list)
		}
	}
	if _, err := os.Stat(path); base != path && err == nil || errors.Is(err, fs.ErrNotExist) {
		// Without the list, parts follow each other to the last that is there.
		if _, err := os.Stat(partName(base, 0)); err == nil {
			return openSequence(base)
		}
	}
	s := &source{name: path}
	if err := s.add(path, part{Name: path, Size: -1}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func readParts(path string) (partsList, error) {
	var list partsList
	f, err := os.Open(path)
	if err != nil {
		return list, fmt.Errorf("reading the list of parts: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxContents))
	if err != nil {
		return list, fmt.Errorf("reading the list of parts %q: %w", path, err)
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return list, fmt.Errorf("reading the list of parts %q: %w", path, err)
	}
	if list.SchemaVersion != contentsVersion {
		return list, fmt.Errorf("reading the list of parts %q: it has schemaVersion %q, this version of sealer reads %q", path, list.SchemaVersion, contentsVersion)
	}
	if len(list.Parts) == 0 || len(list.Parts) > maxParts {
		return list, fmt.Errorf("reading the list of parts %q: it has %d parts", path, len(list.Parts))
	}
	for _, p := range list.Parts {
		if p.Name != filepath.Base(p.Name) || p.Name == ".." || p.Name == "." || p.Size < 0 {
			return list, fmt.Errorf("reading the list of parts %q: part %q of %d bytes", path, p.Name, p.Size)
		}
		if err := p.Digest.Validate(); err != nil {
			return list, fmt.Errorf("reading the list of parts %q: part %q: %w", path, p.Name, err)
		}
	}
	return list, nil
}

// openParts opens all parts of a list, and names all that are missing or cut.
func openParts(base string, list partsList) (*source, error) {
	s := &source{name: base}
	var errs []error
	for _, p := range list.Parts {
		errs = append(errs, s.add(filepath.Join(filepath.Dir(base), p.Name), p))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(&PartsError{Err: err}, s.Close())
	}
	return s, nil
}

func openSequence(base string) (*source, error) {
	s := &source{name: base}
	for n := range maxParts {
		err := s.add(partName(base, n), part{Name: filepath.Base(partName(base, n)), Size: -1})
		if errors.Is(err, fs.ErrNotExist) && n > 0 {
			return s, nil
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *source) add(path string, p part) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading %q: %w", s.name, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("reading %q: %w", s.name, err), f.Close())
	}
	if p.Size >= 0 && fi.Size() != p.Size {
		return errors.Join(fmt.Errorf("reading %q: part %q has %d bytes, not %d", s.name, path, fi.Size(), p.Size), f.Close())
	}
	p.Size = fi.Size()
	s.files = append(s.files, sourceFile{File: f, part: p, at: s.size})
	s.size += p.Size
	return nil
}

// ReadAt reads over the borders of parts.
func (s *source) ReadAt(buf []byte, at int64) (int, error) {
	read := 0
	for read < len(buf) {
		if at >= s.size {
			return read, io.EOF
		}
		f := s.files[s.index(at)]
		n, err := f.ReadAt(buf[read:min(int64(len(buf)), int64(read)+f.at+f.part.Size-at)], at-f.at)
		read += n
		at += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return read, err
		}
		if n == 0 {
			return read, io.ErrUnexpectedEOF // the file became shorter
		}
	}
	return read, nil
}

// index is the file that holds an offset; the last one for offsets beyond all.
func (s *source) index(at int64) int {
	i := sort.Search(len(s.files), func(i int) bool { return s.files[i].at > at })
	return max(i-1, 0)
}

// wrong makes the error for a place of the archive. In a split archive it looks
// which parts around the place are damaged.
func (s *source) wrong(entry string, at, size int64, err error) error {
	e := &ArchiveError{Archive: s.name, Entry: entry, Offset: at, Err: err}
	if len(s.files) < 2 && s.files[0].part.Digest == "" {
		return e
	}
	first := s.files[s.index(at)]
	e.Part, e.Offset = first.Name(), at-first.at
	for _, f := range s.files[s.index(at) : s.index(at+max(size, 1)-1)+1] {
		if f.part.Digest == "" {
			continue
		}
		d := f.part.Digest.Algorithm().Digester()
		if _, cerr := io.Copy(d.Hash(), io.NewSectionReader(f, 0, f.part.Size)); cerr != nil {
			e.Err = errors.Join(e.Err, cerr)
			continue
		}
		if d.Digest() != f.part.Digest {
			e.Err = fmt.Errorf("%w; part %q is damaged: it has the digest %s, not %s", e.Err, f.Name(), d.Digest(), f.part.Digest)
		}
	}
	return e
}

// Close closes the files.
func (s *source) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
