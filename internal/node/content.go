// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/store"
)

// Wanted is a blob that the sender would send.
type Wanted struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Missing is a blob that the host lacks; it has the bytes before Offset.
type Missing struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset"`
}

// Received is what a stream brought. Blobs that were there already count for nothing.
type Received struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Leftovers are blobs of which the host had a wrong beginning. It is gone, and they are to be sent again.
	Leftovers []digest.Digest `json:"leftovers,omitempty"`
}

// Missing tells which blobs are to be sent, in the order asked, each once.
func (n *Node) Missing(ctx context.Context, wanted []Wanted) ([]Missing, error) {
	st, err := n.openStore()
	if err != nil {
		return nil, err
	}
	missing := []Missing{} // [] in JSON, not null
	seen := map[digest.Digest]bool{}
	for _, w := range wanted {
		if err := w.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("looking for %q: %w", w.Digest, err)
		}
		if seen[w.Digest] || whole(st, w.Digest, w.Size) {
			continue
		}
		seen[w.Digest] = true
		came, err := st.Ingested(ctx, w.Digest)
		if err != nil {
			return nil, fmt.Errorf("looking for %s: %w", w.Digest, err)
		}
		m := Missing{Digest: w.Digest}
		if came <= w.Size {
			m.Offset = came
		}
		missing = append(missing, m)
	}
	return missing, nil
}

// whole: a blob gets its name only after it was verified, so its size is enough to look at.
func whole(st *store.Store, d digest.Digest, size int64) bool {
	info, err := os.Stat(st.BlobPath(d))
	return err == nil && info.Size() == size
}

// Small blobs, which are most of them, wait for the disk rather than for the stream: so many of them at once.
const (
	smallBlob  = 1 << 20
	smallBlobs = 16
)

// Receive stores the blobs of a blob stream, each verified by its digest and on disk before it counts. What a cut
// stream has brought of a blob is kept, and Missing tells how much. Blobs whose content is wrong are dropped, the
// others stored; the error names all of them.
func (n *Node) Receive(ctx context.Context, r io.Reader) (got Received, err error) {
	st, err := n.openStore()
	if err != nil {
		return got, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, release()) }()
	in := receiver{st: st}
	in.group.SetLimit(smallBlobs)
	if err := in.all(ctx, blobstream.NewReader(r)); err != nil {
		return in.got, err
	}
	return in.got, syncDir(filepath.Dir(st.BlobPath(digest.FromString(""))))
}

// receiver is one run of Receive.
type receiver struct {
	st    *store.Store
	group errgroup.Group

	mu   sync.Mutex // guards what follows
	got  Received
	errs []error
	over bool // an error that no further blob can survive
}

func (in *receiver) all(ctx context.Context, stream *blobstream.Reader) error {
	for !in.failed() {
		h, err := stream.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			in.done(0, err)
			break
		}
		if h.Offset > 0 || h.Size > smallBlob {
			in.done(receiveBlob(ctx, in.st, h, stream))
			continue
		}
		data, err := io.ReadAll(stream)
		if err != nil {
			in.done(0, fmt.Errorf("receiving %s: %w", h.Digest, err))
			break
		}
		in.group.Go(func() error {
			in.done(receiveBlob(ctx, in.st, h, bytes.NewReader(data)))
			return nil
		})
	}
	_ = in.group.Wait() // done has the errors
	return errors.Join(in.errs...)
}

// done notes how one blob ended: bytes is -1 where it was there already.
func (in *receiver) done(bytes int64, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var mismatch *DigestError
	var leftover *leftoverError
	switch {
	case errors.As(err, &leftover):
		in.got.Leftovers = append(in.got.Leftovers, leftover.digest)
	case err != nil:
		in.errs = append(in.errs, err)
		in.over = in.over || !errors.As(err, &mismatch)
	case bytes >= 0:
		in.got.Blobs++
		in.got.Bytes += bytes
	}
}

func (in *receiver) failed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.over
}

// receiveBlob stores one blob and returns how many bytes the stream had for it; -1 where it was there.
func receiveBlob(ctx context.Context, st *store.Store, h blobstream.Header, r io.Reader) (int64, error) {
	if whole(st, h.Digest, h.Size) {
		return -1, nil
	}
	if _, err := os.Stat(st.BlobPath(h.Digest)); err == nil { // of another size: the disk has lost something
		if err := st.Content().Delete(ctx, h.Digest); err != nil {
			return 0, fmt.Errorf("replacing %s: %w", h.Digest, err)
		}
	}
	w, err := st.Ingest(ctx, ocispec.Descriptor{Digest: h.Digest, Size: h.Size}, store.Resumable())
	if errdefs.IsAlreadyExists(err) { // another stream has brought it meanwhile
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("receiving %s: %w", h.Digest, err)
	}
	done, err := copyBlob(w, h, r)
	if err != nil {
		return 0, errors.Join(err, w.Close())
	}
	err = w.Commit(ctx, h.Size, h.Digest)
	switch {
	case err == nil, errdefs.IsAlreadyExists(err):
		return done, w.Close()
	case errdefs.IsFailedPrecondition(err): // the digest or the size is another
		wrong := error(&DigestError{h.Digest, err})
		if err := errors.Join(w.Close(), st.AbortIngest(ctx, h.Digest)); err != nil {
			return 0, errors.Join(wrong, err)
		}
		if h.Offset > 0 {
			wrong = &leftoverError{h.Digest, wrong}
		}
		return 0, wrong
	default:
		return 0, errors.Join(fmt.Errorf("receiving %s: %w", h.Digest, err), w.Close())
	}
}

// copyBlob appends the bytes that the ingest lacks.
func copyBlob(w content.Writer, h blobstream.Header, r io.Reader) (int64, error) {
	status, err := w.Status()
	if err != nil {
		return 0, fmt.Errorf("receiving %s: %w", h.Digest, err)
	}
	have := status.Offset
	if have > h.Size || h.Offset == 0 && have > 0 { // the sender begins anew
		if err := w.Truncate(0); err != nil {
			return 0, fmt.Errorf("receiving %s: %w", h.Digest, err)
		}
		have = 0
	}
	if h.Offset > have {
		return 0, fmt.Errorf("receiving %s: it comes from byte %d on, and the host has %d", h.Digest, h.Offset, have)
	}
	if _, err := io.CopyN(io.Discard, r, have-h.Offset); err != nil {
		return 0, fmt.Errorf("receiving %s: %w", h.Digest, err)
	}
	if _, err := io.CopyBuffer(w, r, make([]byte, 1<<20)); err != nil {
		return 0, fmt.Errorf("receiving %s: %w", h.Digest, err)
	}
	return h.Size - h.Offset, nil
}

// DigestError is a blob whose bytes are not what its digest says.
type DigestError struct {
	Want digest.Digest
	Err  error
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("receiving %s: its content is something else: %v", e.Want, e.Err)
}
func (e *DigestError) Unwrap() error { return e.Err }

// leftoverError is a blob that has come to its end upon a beginning that was there, which nobody had checked.
type leftoverError struct {
	digest digest.Digest
	error
}

func (e *leftoverError) Unwrap() error { return e.error }

// Tag names an image in the host's store, which keeps its blobs from Prune.
func (n *Node) Tag(ctx context.Context, name string, desc ocispec.Descriptor) error {
	st, err := n.openStore()
	if err != nil {
		return err
	}
	if !whole(st, desc.Digest, desc.Size) {
		return fmt.Errorf("tagging %q: the host has no %s of %d bytes", name, desc.Digest, desc.Size)
	}
	return st.Tag(ctx, name, desc)
}

// Untag takes a name away. One that is not there is no error.
func (n *Node) Untag(ctx context.Context, name string) error {
	st, err := n.openStore()
	if err != nil {
		return err
	}
	var absent *store.NotFoundError
	if err := st.Untag(ctx, name); err != nil && !errors.As(err, &absent) {
		return err
	}
	return nil
}

// Prune deletes the blobs that no named image needs.
func (n *Node) Prune(ctx context.Context) (store.PruneResult, error) {
	st, err := n.openStore()
	if err != nil {
		return store.PruneResult{}, err
	}
	return st.Prune(ctx, store.PruneOptions{})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
