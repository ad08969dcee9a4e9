// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// contentError is a fault of the archive, not of the store.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// mismatchError says that bytes are not what their name says. resumed is how
// many of them were in the store before.
type mismatchError struct {
	want, got digest.Digest
	resumed   int64
}

func (e *mismatchError) Error() string {
	return fmt.Sprintf("its content has the digest %s", e.got)
}

// ingest brings a blob into the store, unless it is there. open gives its
// content from an offset on.
func (l *loader) ingest(ctx context.Context, d digest.Digest, size int64, open func(from int64) io.Reader) (err error) {
	desc := ocispec.Descriptor{Digest: d, Size: size}
	have, err := present(ctx, l.st, desc)
	if err != nil {
		return &contentError{err}
	}
	if have {
		l.skip(size)
		return nil
	}
	w, err := l.st.Ingest(ctx, desc)
	if errdefs.IsAlreadyExists(err) {
		l.skip(size)
		return nil
	}
	if err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	from, err := beginning(w, size)
	if err != nil {
		return errors.Join(fmt.Errorf("storing %s: %w", d, err), w.Close())
	}
	l.skip(from)
	n, err := l.copy(ctx, w, open(from), size-from)
	if err == nil && w.Digest() != d {
		err = &contentError{&mismatchError{want: d, got: w.Digest(), resumed: from}}
		l.t.Advance(-from - n)
		l.skipped.Add(-from)
		l.read.Add(-n)
		// Nothing of these bytes is worth continuing from.
		return errors.Join(err, w.Truncate(0), w.Close(), l.st.AbortIngest(ctx, d))
	}
	if err != nil {
		// What came is kept for the next try.
		return errors.Join(err, w.Close())
	}
	if err := w.Commit(ctx, size, d); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	return nil
}

// beginning is how much of a blob the ingest has.
func beginning(w content.Writer, size int64) (int64, error) {
	status, err := w.Status()
	if err != nil {
		return 0, err
	}
	if status.Offset > size {
		return 0, w.Truncate(0)
	}
	return status.Offset, nil
}

func (l *loader) skip(n int64) {
	l.skipped.Add(n)
	l.t.Advance(n)
}

// copy moves exactly size bytes.
func (l *loader) copy(ctx context.Context, w io.Writer, r io.Reader, size int64) (n int64, err error) {
	buf := make([]byte, min(size, copyBuffer))
	for n < size {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		got, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-n)])
		if got > 0 {
			if _, werr := w.Write(buf[:got]); werr != nil {
				return n, fmt.Errorf("writing to the store: %w", werr)
			}
			n += int64(got)
			l.read.Add(int64(got))
			l.t.Advance(int64(got))
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, &contentError{err}
		}
	}
	return n, nil
}
