// SPDX-License-Identifier: Apache-2.0

// Package blobstream carries blobs over one byte stream, such as the standard
// input of a command on another host. A blob may start in its middle, where
// an earlier stream was cut.
//
//	sealer-blobs 1\n                                  the stream
//	{"digest":"sha256:…","size":10,"offset":4}\n      a blob: size - offset bytes follow
//	{"end":true,"blobs":1}\n                          the end
//
// A stream without its end was cut. Nothing here verifies content: whoever
// stores it does, by its digest.
package blobstream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	magic     = "sealer-blobs 1"
	maxHeader = 4 << 10
)

// Header is what precedes the bytes of a blob. Offset is where they start.
type Header struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Offset int64         `json:"offset,omitempty"`
}

func (h Header) validate() error {
	if err := h.Digest.Validate(); err != nil {
		return fmt.Errorf("%q: %w", h.Digest, err)
	}
	if h.Size < 0 || h.Offset < 0 || h.Offset > h.Size {
		return fmt.Errorf("%s: offset %d of size %d", h.Digest, h.Offset, h.Size)
	}
	return nil
}

// frame is one line: a header or the end.
type frame struct {
	*Header
	End   bool `json:"end,omitempty"`
	Blobs int  `json:"blobs,omitempty"`
}

// Writer writes a stream. After an error it is of no use: the other end must see that the stream was cut.
type Writer struct {
	w     *bufio.Writer
	begun bool
	blobs int
	err   error
}

// NewWriter writes to w, buffered; Close makes sure that all is written, and does not close w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// Blob writes one blob; r yields exactly its bytes from h.Offset on.
func (w *Writer) Blob(h Header, r io.Reader) error {
	err := h.validate()
	if err == nil {
		err = w.frame(frame{Header: &h})
	}
	if err == nil {
		err = w.body(h, r)
	}
	if err != nil {
		w.err = fmt.Errorf("sending %s: %w", h.Digest, err)
		return w.err
	}
	w.blobs++
	return nil
}

func (w *Writer) body(h Header, r io.Reader) error {
	want := h.Size - h.Offset
	n, err := io.Copy(w.w, io.LimitReader(r, want))
	if err == nil && n < want {
		err = fmt.Errorf("its source ended %d bytes early: %w", want-n, io.ErrUnexpectedEOF)
	}
	return err
}

// Close ends the stream.
func (w *Writer) Close() error {
	if w.err == nil {
		w.err = w.frame(frame{End: true, Blobs: w.blobs})
	}
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("ending the blob stream: %w", w.err)
	}
	w.err = errors.New("it has ended")
	return nil
}

func (w *Writer) frame(f frame) error {
	if w.err != nil {
		return w.err
	}
	if !w.begun {
		w.begun = true
		if _, err := w.w.WriteString(magic + "\n"); err != nil {
			return err
		}
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	_, err = w.w.Write(append(line, '\n'))
	return err
}

// TruncatedError is a stream that was cut: after so many whole blobs, maybe within one.
type TruncatedError struct {
	Blobs  int
	Within digest.Digest // empty between blobs
}

func (e *TruncatedError) Error() string {
	if e.Within != "" {
		return fmt.Sprintf("the blob stream was cut within %s, after %d whole blobs", e.Within, e.Blobs)
	}
	return fmt.Sprintf("the blob stream was cut after %d blobs, before its end", e.Blobs)
}

// Unwrap makes it an unexpected end of file.
func (e *TruncatedError) Unwrap() error { return io.ErrUnexpectedEOF }

// Reader reads a stream.
type Reader struct {
	r     *bufio.Reader
	begun bool
	now   Header
	left  int64
	blobs int
	err   error // for good
}

// NewReader reads from r, and may read ahead of what it has given out.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next goes to the next blob, past what was not read of this one. io.EOF is the stream's whole and proper end; a
// cut stream is a *TruncatedError.
func (r *Reader) Next() (Header, error) {
	if r.err == nil {
		_, r.err = io.Copy(io.Discard, readerFunc(r.Read))
	}
	if r.err == nil {
		r.err = r.next()
	}
	return r.now, r.err
}

func (r *Reader) next() error {
	if !r.begun {
		line, err := r.line()
		if err != nil {
			return err
		}
		if string(line) != magic {
			return fmt.Errorf("reading the blob stream: it begins with %.40q, not with %q", line, magic)
		}
		r.begun = true
	}
	line, err := r.line()
	if err != nil {
		return err
	}
	f := frame{Header: new(Header)}
	if err := json.Unmarshal(line, &f); err != nil {
		return fmt.Errorf("reading the blob stream: a header is %.60q: %w", line, err)
	}
	if f.End {
		if f.Blobs != r.blobs {
			return fmt.Errorf("reading the blob stream: it ends after %d blobs, and says %d", r.blobs, f.Blobs)
		}
		return io.EOF
	}
	if err := f.validate(); err != nil {
		return fmt.Errorf("reading the blob stream: a header is wrong: %w", err)
	}
	r.now, r.left = *f.Header, f.Size-f.Offset
	r.blobs++
	return nil
}

func (r *Reader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := r.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxHeader:
			return nil, fmt.Errorf("reading the blob stream: a header is longer than %d bytes", maxHeader)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF):
			return nil, &TruncatedError{Blobs: r.blobs}
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("reading the blob stream: %w", err)
		}
	}
}

// Read reads the current blob; io.EOF is its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.err != nil {
		return 0, r.err
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.left > 0:
		r.err = &TruncatedError{Blobs: r.blobs - 1, Within: r.now.Digest}
	case err != nil && r.left > 0:
		r.err = fmt.Errorf("reading the blob stream: %w", err)
	}
	return n, r.err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
