// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func (e *Engine) blobPath(d digest.Digest) string {
	return filepath.Join(e.worker.dir, "content", "blobs", d.Algorithm().String(), d.Encoded())
}

// LinkFunc puts a blob that lies in file into a store, without copying where that is possible, and says whether it did.
type LinkFunc func(ctx context.Context, desc ocispec.Descriptor, file string) (bool, error)

// Output is dst as the target of an export: blobs of the engine's own are linked into it instead of being sent through
// the session.
func (e *Engine) Output(dst content.Store, link LinkFunc) content.Store {
	return &linkStore{Store: dst, blobs: filepath.Join(e.worker.dir, "content", "blobs"), link: link}
}

type linkStore struct {
	content.Store
	blobs string // the engine's
	link  LinkFunc
}

// Writer answers that the blob is there already, after it saw to that.
func (s *linkStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var w content.WriterOpts
	for _, o := range opts {
		if err := o(&w); err != nil {
			return nil, err
		}
	}
	if w.Desc.Digest.Validate() != nil || w.Desc.Size <= 0 {
		return s.Store.Writer(ctx, opts...)
	}
	file := filepath.Join(s.blobs, w.Desc.Digest.Algorithm().String(), w.Desc.Digest.Encoded())
	if info, err := os.Stat(file); err != nil || info.Size() != w.Desc.Size {
		return s.Store.Writer(ctx, opts...)
	}
	if ok, err := s.link(ctx, w.Desc, file); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("storing blob %s", w.Desc.Digest), err)
	}
	return nil, fmt.Errorf("blob %s: %w", w.Desc.Digest, errdefs.ErrAlreadyExists)
}

// Import makes blobs that lie in files known to the engine, by hard links where the file system allows, so that FROM an
// image in the store reads and writes nothing. They stay until release is called, and after that as long as the cache
// wants them. Blobs without a file are skipped: BuildKit asks for them when it needs them.
func (e *Engine) Import(ctx context.Context, blobs []ocispec.Descriptor, file func(digest.Digest) string) (release func(context.Context) error, err error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	ctx, done, err := leaseutil.WithLease(ctx, e.worker.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return nil, fmt.Errorf("taking over blobs: %w", err)
	}
	for _, desc := range blobs {
		if err := e.importBlob(ctx, desc, file(desc.Digest)); err != nil {
			return nil, errors.Join(fmt.Errorf("taking over blob %s: %w", desc.Digest, err), done(context.WithoutCancel(ctx)))
		}
	}
	return func(ctx context.Context) error { return done(namespaces.WithNamespace(ctx, namespace)) }, nil
}

func (e *Engine) importBlob(ctx context.Context, desc ocispec.Descriptor, file string) error {
	target := e.blobPath(desc.Digest)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	switch err := os.Link(file, target); {
	case err == nil, errors.Is(err, fs.ErrExist), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK):
		// Without a link the blob is copied below.
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
	cs := e.worker.ContentStore()
	w, err := content.OpenWriter(ctx, cs, content.WithRef("import-"+desc.Digest.String()), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	status, err := w.Status()
	if err != nil {
		return err
	}
	if status.Offset < desc.Size {
		if err := copyFrom(w, file, status.Offset); err != nil {
			return err
		}
	}
	if err := w.Commit(ctx, desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func copyFrom(w io.Writer, file string, offset int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, f) // Commit compares the digest
	return err
}
