// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// contentStore adds to containerd's store what it lacks: a lock on each ingest
// that also other processes see. Two of them that wrote to one file could make
// a blob of bytes that neither of them has hashed.
type contentStore struct {
	content.Store
	locks string
}

// Writer opens or resumes an ingest. The lock is let go by Commit or Close.
func (s *contentStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	o, err := writerOpts(opts)
	if err != nil {
		return nil, err
	}
	l, err := tryLock(filepath.Join(s.locks, digest.FromString(o.Ref).Encoded()), true)
	if err != nil {
		return nil, fmt.Errorf("locking ingest %s: %w", o.Ref, err)
	}
	if l == nil {
		return nil, fmt.Errorf("ingest %s is being written: %w", o.Ref, errdefs.ErrUnavailable)
	}
	w, err := s.Store.Writer(quiet(ctx), opts...)
	if err != nil {
		l.remove()
		return nil, err
	}
	return &lockedWriter{Writer: w, lock: l}, nil
}

func writerOpts(opts []content.WriterOpt) (o content.WriterOpts, err error) {
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return o, err
		}
	}
	if o.Ref == "" {
		return o, fmt.Errorf("writing content: the ingest has no ref: %w", errdefs.ErrInvalidArgument)
	}
	return o, nil
}

// sizedStore writes blobs by way of memory where they are said to be small: an ingest on disk is a folder and five files.
type sizedStore struct {
	*contentStore
	store *Store
}

// Writer is errdefs.ErrAlreadyExists where a small blob is there.
func (s *sizedStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	o, err := writerOpts(opts)
	if err != nil {
		return nil, err
	}
	if isSmall(o.Desc) {
		return s.store.newSmallWriter(o.Ref, o.Desc)
	}
	return s.contentStore.Writer(ctx, opts...)
}

type lockedWriter struct {
	content.Writer
	once sync.Once
	lock *fileLock
}

func (w *lockedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	defer w.once.Do(w.lock.remove)
	return w.Writer.Commit(quiet(ctx), size, expected, opts...)
}

func (w *lockedWriter) Close() error {
	defer w.once.Do(w.lock.remove)
	return w.Writer.Close()
}

// quiet keeps containerd's notes about ingests it starts over off the screen.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// fileLock is an flock on a file that exists only while it is held.
type fileLock struct {
	f    *os.File
	path string
}

// remove lets the lock go together with its file.
func (l *fileLock) remove() {
	// Removed while still locked: who opened the file in the meantime sees, once
	// it has the lock, that the name is gone, and tries again.
	_ = os.Remove(l.path)
	_ = l.f.Close()
}
