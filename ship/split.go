// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// partsSuffix ends the name of the document that lists the parts.
const partsSuffix = ".parts"

// maxParts bounds the number of parts: their names have three digits.
const maxParts = 1000

// partsList is the document FILE.parts.
type partsList struct {
	SchemaVersion string `json:"schemaVersion"`
	// Size is that of all parts, in bytes.
	Size  int64  `json:"size"`
	Parts []part `json:"parts"`
}

type part struct {
	// Name is that of a file in the folder of the list.
	Name   string        `json:"name"`
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
}

// partName is FILE.000, FILE.001 and so on.
func partName(path string, n int) string { return fmt.Sprintf("%s.%03d", path, n) }

// SaveSplit writes the archive as files of at most limit bytes, FILE.000 and
// on, and FILE.parts with their digests. All of them appear once the last byte
// is written; FILE.parts comes last. It returns the names of the files.
func (p *Plan) SaveSplit(ctx context.Context, path string, limit int64, track TrackFunc) (names []string, err error) {
	if limit < 1<<20 {
		return nil, fmt.Errorf("splitting %q: parts of %d bytes are too small, the least is 1 MiB", path, limit)
	}
	if n := (p.size + limit - 1) / limit; n > maxParts {
		return nil, fmt.Errorf("splitting %q: that makes %d parts, more than %d", path, n, maxParts)
	}
	s := &splitter{path: path, limit: limit, total: p.size}
	defer func() { err = errors.Join(err, s.abort()) }()
	if err := p.WriteTo(ctx, s, track); err != nil {
		return nil, writing(path, p.size, err)
	}
	return s.commit()
}

// splitter is a writer to files of at most limit bytes.
type splitter struct {
	path         string
	limit, total int64
	files        []*atomicfile.File
	hashes       []*digestOf
}

func (s *splitter) Write(data []byte) (int, error) {
	written := 0
	for len(data) > 0 {
		if n := len(s.hashes); n == 0 || s.hashes[n-1].n == s.limit {
			if err := s.next(); err != nil {
				return written, err
			}
		}
		h := s.hashes[len(s.hashes)-1]
		n, err := h.Write(data[:min(int64(len(data)), s.limit-h.n)])
		written += n
		if err != nil {
			return written, err
		}
		data = data[n:]
	}
	return written, nil
}

func (s *splitter) next() error {
	n := len(s.files)
	left := s.total - int64(n)*s.limit
	f, err := reserve(partName(s.path, n), min(s.limit, left))
	if err != nil {
		return err
	}
	s.files = append(s.files, f)
	s.hashes = append(s.hashes, &digestOf{w: f, d: digest.Canonical.Digester()})
	return nil
}

func (s *splitter) commit() ([]string, error) {
	list := partsList{SchemaVersion: contentsVersion, Size: s.total}
	var names []string
	for i, f := range s.files {
		name := partName(s.path, i)
		if err := f.Commit(); err != nil {
			return nil, err
		}
		names = append(names, name)
		list.Parts = append(list.Parts, part{Name: filepath.Base(name), Size: s.hashes[i].n, Digest: s.hashes[i].d.Digest()})
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the list of parts: %w", err)
	}
	if err := atomicfile.Write(s.path+partsSuffix, append(data, '\n'), 0o644); err != nil {
		return nil, err
	}
	return append(names, s.path+partsSuffix), nil
}

func (s *splitter) abort() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Abort())
	}
	return errors.Join(errs...)
}

var _ io.Writer = (*splitter)(nil)
