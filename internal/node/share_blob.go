// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/swarm"
	"github.com/sealerio/sealer/store"
)

// sharedBlob is a blob that comes part after part. Its methods but next and open are called by one goroutine at a time.
type sharedBlob struct {
	peers.Blob
	st   *store.Store
	last <-chan struct{} // closed when the last order for it that is known of has ended
	w    content.Writer  // nil until the first part comes

	mu    sync.Mutex // guards what follows
	at    int64      // bytes that are there
	right int64      // of them, those that were checked
	whole bool
}

// look finds what there is of the blob. One that came whole in an earlier run, and got no name, gets it.
func (b *sharedBlob) look(ctx context.Context) error {
	if b.whole = whole(b.st, b.Digest, b.Size); b.whole {
		b.at, b.right = b.Size, b.Size
		return nil
	}
	if _, err := os.Stat(b.st.BlobPath(b.Digest)); err == nil { // of another size: the disk has lost something
		if err := b.st.Content().Delete(ctx, b.Digest); err != nil {
			return fmt.Errorf("replacing %s: %w", b.Digest, err)
		}
	}
	came, err := b.st.Ingested(ctx, b.Digest)
	if err != nil {
		return fmt.Errorf("looking for %s: %w", b.Digest, err)
	}
	switch {
	case came > b.Size:
		return b.st.AbortIngest(ctx, b.Digest)
	case came == b.Size && came > 0:
		b.at = came
		if fail := b.commit(ctx, swarm.Leftover); fail != nil && fail.reason == "" {
			return fail
		}
		return nil
	}
	b.at = came
	return nil
}

// next is the first byte that is not there.
func (b *sharedBlob) next() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *sharedBlob) set(at, right int64, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.right, b.whole = at, right, whole
}

// open is the file that holds the blob up to end, all of it checked; nil where there is none.
func (b *sharedBlob) open(end int64) *os.File {
	b.mu.Lock()
	right := b.right
	b.mu.Unlock()
	if right < end {
		return nil
	}
	// It gets its name in the moment between the two.
	for _, path := range []string{b.st.BlobPath(b.Digest), b.st.IngestPath(b.Digest), b.st.BlobPath(b.Digest)} {
		if f, err := os.Open(path); err == nil {
			return f
		}
	}
	return nil
}

func (b *sharedBlob) own(err error) *partError {
	return &partError{"", fmt.Errorf("storing %s: %w", b.Digest, err)}
}

// take stores a part. r is at the first byte that is not there, or, with all, at that of the part.
func (b *sharedBlob) take(ctx context.Context, p peers.Part, r io.Reader, all bool) *partError {
	b.mu.Lock()
	at, right, there := b.at, b.right, b.whole
	b.mu.Unlock()
	if skip := min(at-p.Offset, p.Length); all && skip > 0 {
		if _, err := io.CopyN(io.Discard, r, skip); err != nil {
			return b.own(err)
		}
	}
	if there {
		return nil
	}
	blame := swarm.Wrong
	if right < at { // of an earlier run, or of a source that was cut: nobody has checked it
		blame = swarm.Leftover
	}
	end := p.Offset + p.Length
	if p.Offset == 0 && end == b.Size && at == 0 {
		return b.takeWhole(ctx, r)
	}
	if b.w == nil {
		w, err := b.st.Ingest(ctx, ocispec.Descriptor{Digest: b.Digest, Size: b.Size}, store.Resumable())
		if errdefs.IsAlreadyExists(err) {
			b.set(b.Size, b.Size, true)
			return nil
		}
		if err != nil {
			return b.own(err)
		}
		b.w = w
	}
	for buf := make([]byte, 256<<10); at < end; {
		n, rerr := io.ReadFull(r, buf[:min(int64(len(buf)), end-at)])
		if _, err := b.w.Write(buf[:n]); err != nil {
			return b.own(err)
		}
		at += int64(n)
		b.set(at, right, false)
		if rerr != nil {
			return broken(rerr)
		}
	}
	if end == b.Size {
		return b.commit(ctx, blame)
	}
	if b.w.Digest() != p.Sum {
		return b.wrong(ctx, blame, fmt.Errorf("up to byte %d it is %s instead of %s", end, b.w.Digest(), p.Sum))
	}
	b.set(at, at, false)
	return nil
}

// broken is a source that ended too early.
func broken(err error) *partError {
	if known, ok := errors.AsType[*partError](err); ok {
		return known
	}
	return &partError{swarm.Cut, err}
}

// takeWhole stores a blob that comes at once.
func (b *sharedBlob) takeWhole(ctx context.Context, r io.Reader) *partError {
	in := &errorReader{r: io.LimitReader(r, b.Size)}
	_, err := receiveBlob(ctx, b.st, blobstream.Header{Digest: b.Digest, Size: b.Size}, in)
	var mismatch *DigestError
	switch {
	case err == nil:
		b.set(b.Size, b.Size, true)
		return nil
	case in.err != nil:
		_ = b.st.AbortIngest(ctx, b.Digest) // a few bytes, which come again
		return broken(in.err)
	case errors.As(err, &mismatch):
		return &partError{swarm.Wrong, err}
	default:
		return b.own(err)
	}
}

// errorReader keeps the error of its source.
type errorReader struct {
	r   io.Reader
	err error
}

func (e *errorReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		e.err = err
	}
	return n, err
}

// commit gives a blob that came whole its name. blame is what is said where it is wrong.
func (b *sharedBlob) commit(ctx context.Context, blame swarm.Reason) *partError {
	if b.w == nil {
		w, err := b.st.Ingest(ctx, ocispec.Descriptor{Digest: b.Digest, Size: b.Size}, store.Resumable())
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return b.own(err)
		}
		b.w = w
	}
	if b.w != nil {
		err := b.w.Commit(ctx, b.Size, b.Digest)
		switch {
		case errdefs.IsFailedPrecondition(err):
			return b.wrong(ctx, blame, err)
		case err != nil && !errdefs.IsAlreadyExists(err):
			return b.own(err)
		}
	}
	b.close()
	b.set(b.Size, b.Size, true)
	return nil
}

// wrong throws away what came.
func (b *sharedBlob) wrong(ctx context.Context, blame swarm.Reason, why error) *partError {
	b.close()
	b.set(0, 0, false)
	if err := b.st.AbortIngest(ctx, b.Digest); err != nil {
		return b.own(err)
	}
	return &partError{blame, &DigestError{b.Digest, why}}
}

func (b *sharedBlob) close() {
	if b.w != nil {
		_ = b.w.Close() // what was written and not committed is looked at by the next one
		b.w = nil
	}
}
