// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/store"
)

// Beginnings of compressed files.
const (
	magicGzip = "\x1f\x8b"
	magicZstd = "\x28\xb5\x2f\xfd"
)

// decompress unpacks what is gzip or zstd; nil where it is neither.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(len(magicZstd))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(magicGzip)):
		return gzip.NewReader(br)
	case bytes.HasPrefix(head, []byte(magicZstd)):
		zr, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	}
	return nil, nil
}

// LoadStream is Load from a pipe, read to its end in one pass. name stands for
// it in messages. Blobs that the store has are read over. What is no OCI layout
// is kept beside the store until it is loaded.
func LoadStream(ctx context.Context, st *store.Store, r io.Reader, name string, o LoadOptions) (_ Result, err error) {
	release, err := st.Hold(ctx)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	br := bufio.NewReaderSize(r, copyBuffer)
	if head, _ := br.Peek(len(magicZstd)); bytes.HasPrefix(head, []byte(magicGzip)) || bytes.HasPrefix(head, []byte(magicZstd)) {
		plain, err := decompress(br)
		if err != nil {
			return Result{}, &ArchiveError{Archive: name, Err: err}
		}
		defer plain.Close()
		br = bufio.NewReaderSize(plain, copyBuffer)
	}
	return loadTar(ctx, st, br, name, o)
}

// loadTar loads a plain tar as it comes, or else from a file that it is put into.
func loadTar(ctx context.Context, st *store.Store, br *bufio.Reader, name string, o LoadOptions) (_ Result, err error) {
	if streamable(br) {
		return loadStream(ctx, st, br, name, o)
	}
	s, err := spool(ctx, st, br, name)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return loadFile(ctx, st, s, name, o)
}

// loadStream loads a plain tar of an OCI layout.
func loadStream(ctx context.Context, st *store.Store, r io.Reader, name string, o LoadOptions) (_ Result, err error) {
	l := &loader{st: st, name: name, o: o}
	s := &stream{l: l, r: &counting{r: r}}
	l.t = o.Track.start("reading", 0)
	defer func() { l.t.Done(err) }()
	s.small.SetLimit(smallJobs)
	blobs, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = s.run(blobs, stop)
	if werr := s.small.Wait(); werr != nil {
		err = errors.Join(firstCause(err, werr))
	}
	if err != nil {
		return Result{}, err
	}
	if s.index == nil {
		return Result{}, l.foreign(s.first)
	}
	images, err := parseIndexFile(s.index, s.contents)
	if err != nil {
		return Result{}, &ArchiveError{Archive: name, Entry: indexFile, Offset: s.indexAt, Err: err}
	}
	return l.tag(ctx, images)
}

// counting knows how far it was read.
type counting struct {
	r  io.Reader
	at int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	return n, err
}

// stream is an archive read once, from its beginning.
type stream struct {
	l        *loader
	r        *counting
	small    errgroup.Group
	first    []item
	contents *Contents
	index    []byte
	indexAt  int64
}

func (s *stream) run(ctx context.Context, stop context.CancelCauseFunc) error {
	tr := tar.NewReader(s.r)
	last, lastAt, at := "", int64(0), int64(0)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return s.rest()
		}
		if err != nil {
			if n == 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				return &ForeignError{Archive: s.l.name, Why: "it is no tar"}
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				at = lastAt // that entry is not whole
			}
			return s.wrong(last, at, cut(err))
		}
		if n == maxEntries {
			return &ForeignError{Archive: s.l.name, Why: fmt.Sprintf("it has more than %d entries", maxEntries)}
		}
		it, err := itemOf(hdr)
		if err != nil {
			return s.wrong(hdr.Name, at, err)
		}
		it.at, it.data, last, lastAt = at, s.r.at, it.name, at
		if n == 0 {
			s.first = []item{it}
		}
		if err := s.entry(ctx, tr, it, stop); err != nil {
			return err
		}
		at = it.data + padded(it.size)
	}
}

// rest reads what is behind the tar's end, so that who writes the pipe is not
// killed by its closing.
func (s *stream) rest() error {
	if _, err := io.Copy(io.Discard, s.r); err != nil {
		return s.wrong("", s.r.at, err)
	}
	return nil
}

func (s *stream) wrong(entry string, at int64, err error) error {
	return &ArchiveError{Archive: s.l.name, Entry: entry, Offset: at, Err: err}
}

func (s *stream) entry(ctx context.Context, tr io.Reader, it item, stop context.CancelCauseFunc) error {
	if d, ok := it.blob(); ok {
		return s.blob(ctx, tr, it, d, stop)
	}
	if it.kind != tar.TypeReg {
		return nil
	}
	var err error
	switch it.name {
	case ContentsFile:
		var data []byte
		if data, err = s.document(tr, it, maxContents); err != nil {
			return err
		}
		if s.contents, err = parseContents(data); err != nil {
			return s.wrong(it.name, it.at, err)
		}
		return s.l.checkBase(ctx, s.contents)
	case indexFile:
		s.indexAt = it.at
		s.index, err = s.document(tr, it, maxIndex)
		return err
	}
	return nil
}

func (s *stream) document(tr io.Reader, it item, limit int64) ([]byte, error) {
	if it.size > limit {
		return nil, s.wrong(it.name, it.at, fmt.Errorf("it has %d bytes, more than %d", it.size, limit))
	}
	data := make([]byte, it.size)
	if _, err := io.ReadFull(tr, data); err != nil {
		return nil, s.wrong(it.name, it.at, cut(err))
	}
	return data, nil
}

// blob reads a blob. Small ones are written beside what is read next.
func (s *stream) blob(ctx context.Context, tr io.Reader, it item, d digest.Digest, stop context.CancelCauseFunc) error {
	if it.size > smallBlob {
		return s.store(ctx, it, d, tr)
	}
	data, err := s.document(tr, it, smallBlob)
	if err != nil {
		return err
	}
	s.small.Go(func() error {
		err := s.store(ctx, it, d, bytes.NewReader(data))
		if err != nil {
			stop(errOtherBlob)
		}
		return err
	})
	return nil
}

func (s *stream) store(ctx context.Context, it item, d digest.Digest, r io.Reader) error {
	var skipErr error
	err := s.l.ingest(ctx, d, it.size, func(from int64) io.Reader {
		_, skipErr = io.CopyN(io.Discard, r, from)
		return r
	})
	if skipErr != nil {
		return s.wrong(it.name, it.at, cut(skipErr))
	}
	if ce, ok := errors.AsType[*contentError](err); ok {
		return s.wrong(it.name, it.at, cut(ce.err))
	}
	return err
}
