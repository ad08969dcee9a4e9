// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// smallBlob is the size in bytes up to which a blob on its way stays in memory:
// to keep the half of it for another try costs more than to fetch it again.
const smallBlob = 256 << 10

func isSmall(desc ocispec.Descriptor) bool {
	return desc.Size > 0 && desc.Size <= smallBlob && desc.Digest.Validate() == nil && desc.Digest.Algorithm() == digest.Canonical
}

// smallWriter is the content.Writer of a small blob. It has no ingest on disk.
type smallWriter struct {
	store   *Store
	ref     string
	desc    ocispec.Descriptor
	data    []byte
	started time.Time
	closed  bool
	hash    digest.Digest // of data; "" where it is not known
}

// newSmallWriter is errdefs.ErrAlreadyExists where the blob is there.
func (s *Store) newSmallWriter(ref string, desc ocispec.Descriptor) (content.Writer, error) {
	if _, err := os.Stat(s.BlobPath(desc.Digest)); err == nil {
		return nil, fmt.Errorf("content %s: %w", desc.Digest, errdefs.ErrAlreadyExists)
	}
	return &smallWriter{store: s, ref: ref, desc: desc, data: make([]byte, 0, desc.Size), started: time.Now()}, nil
}

func (w *smallWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, fmt.Errorf("writing %s: the writer is closed: %w", w.desc.Digest, errdefs.ErrFailedPrecondition)
	}
	if int64(len(w.data)+len(p)) > w.desc.Size {
		return 0, fmt.Errorf("writing %s: more than its %d bytes: %w", w.desc.Digest, w.desc.Size, errdefs.ErrFailedPrecondition)
	}
	w.data, w.hash = append(w.data, p...), ""
	return len(p), nil
}

// Digest is that of what has been written.
func (w *smallWriter) Digest() digest.Digest {
	if w.hash == "" {
		w.hash = w.algorithm().FromBytes(w.data)
	}
	return w.hash
}

func (w *smallWriter) algorithm() digest.Algorithm { return w.desc.Digest.Algorithm() }

func (w *smallWriter) Commit(_ context.Context, size int64, expected digest.Digest, _ ...content.Opt) error {
	if w.closed {
		return fmt.Errorf("storing %s: the writer is closed: %w", w.desc.Digest, errdefs.ErrFailedPrecondition)
	}
	w.closed = true
	if size > 0 && size != int64(len(w.data)) {
		return fmt.Errorf("storing %s: %d bytes instead of %d: %w", expected, len(w.data), size, errdefs.ErrFailedPrecondition)
	}
	got := w.Digest()
	if expected == "" {
		expected = w.desc.Digest
	}
	if got != expected {
		return fmt.Errorf("storing %s: the bytes have digest %s: %w", expected, got, errdefs.ErrFailedPrecondition)
	}
	path := w.store.BlobPath(got)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("content %s: %w", got, errdefs.ErrAlreadyExists)
	}
	f, err := atomicfile.Create(path, 0o444)
	if err != nil {
		return err
	}
	if _, err := f.Write(w.data); err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, err), f.Abort())
	}
	return f.CommitUnlisted() // Tag lists it
}

// Close drops what was not committed.
func (w *smallWriter) Close() error {
	w.closed, w.data = true, nil
	return nil
}

func (w *smallWriter) Status() (content.Status, error) {
	return content.Status{
		Ref: w.ref, Offset: int64(len(w.data)), Total: w.desc.Size, Expected: w.desc.Digest,
		StartedAt: w.started, UpdatedAt: w.started,
	}, nil
}

func (w *smallWriter) Truncate(size int64) error {
	if size < 0 || size > int64(len(w.data)) {
		return fmt.Errorf("cutting %s to %d bytes: it has %d: %w", w.desc.Digest, size, len(w.data), errdefs.ErrInvalidArgument)
	}
	w.data, w.hash = w.data[:size], ""
	return nil
}
