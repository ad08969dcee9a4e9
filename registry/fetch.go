// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

const (
	copyBuffer  = 256 << 10
	smallBuffer = 64 << 10 // for blobs of which many are in transfer
	// forgiven is how much a connection must move for the count of retries to
	// start again, in bytes.
	forgiven = 256 << 10
	// maxBlob bounds the size that a descriptor may claim, in bytes: 1 TiB.
	maxBlob = 1 << 40
)

// fetchBlob brings a blob into the store, unless it is there. However many ask
// for the same digest at once, it is fetched once.
func (s *session) fetchBlob(ctx context.Context, st *store.Store, desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("fetching %q: %w", desc.Digest, err)
	}
	if desc.Size < 0 || desc.Size > maxBlob {
		return fmt.Errorf("fetching %s: its size is given as %d bytes", desc.Digest, desc.Size)
	}
	for {
		ok, err := present(ctx, st, desc)
		if ok || err != nil {
			return err
		}
		if desc.Digest == ocispec.DescriptorEmptyJSON.Digest {
			return s.store(ctx, st, desc, ocispec.DescriptorEmptyJSON.Data)
		}
		if s.offline {
			return errOffline
		}
		lead, done, err := s.c.flights.lead(ctx, st.Dir()+"\x00"+desc.Digest.String(), s.src.host)
		if err != nil {
			return err
		}
		if !lead {
			continue
		}
		err = s.fetchLead(ctx, st, desc)
		done(err)
		return err
	}
}

// present tells whether a blob is in the store, with the size it should have.
func present(ctx context.Context, st *store.Store, desc ocispec.Descriptor) (bool, error) {
	info, err := st.Content().Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for %s in the store: %w", desc.Digest, err)
	}
	if info.Size != desc.Size {
		return false, fmt.Errorf("%s has %d bytes in the store and %d by its descriptor", desc.Digest, info.Size, desc.Size)
	}
	return true, nil
}

// store writes a document that came with its image; its digest is checked by the store.
func (s *session) store(ctx context.Context, st *store.Store, desc ocispec.Descriptor, data []byte) error {
	if err := storeDocument(ctx, st, desc, data); err != nil {
		return s.src.fail(err)
	}
	return nil
}

func storeDocument(ctx context.Context, st *store.Store, desc ocispec.Descriptor, data []byte) error {
	if _, err := st.Content().Info(ctx, desc.Digest); err == nil {
		return nil
	}
	w, err := st.Ingest(ctx, desc)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	defer w.Close() // after Commit there is nothing to close
	if err := w.Truncate(0); err != nil {
		return fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	if err := w.Commit(ctx, int64(len(data)), desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	return nil
}

func (s *session) fetchLead(ctx context.Context, st *store.Store, desc ocispec.Descriptor) (err error) {
	release, err := s.c.acquire(ctx, desc.Size)
	if err != nil {
		return err
	}
	defer release()
	w, err := st.Ingest(ctx, desc)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	track := s.c.o.Track(s.src.name()+" "+shortDigest(desc.Digest), desc.Size)
	defer func() { track.Done(err) }()
	d := download{s: s, desc: desc, w: w, track: track}
	err = d.run(ctx)
	if err == nil {
		err = w.Commit(ctx, desc.Size, desc.Digest)
		if errdefs.IsAlreadyExists(err) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("storing %s: %w", desc.Digest, err)
		}
		return nil
	}
	if _, ok := errors.AsType[*DigestError](err); ok {
		// Nothing of these bytes is worth continuing from.
		err = errors.Join(err, w.Truncate(0), st.AbortIngest(ctx, desc.Digest))
	}
	return errors.Join(err, w.Close())
}

// download is a blob on its way into an ingest.
type download struct {
	s     *session
	desc  ocispec.Descriptor
	w     content.Writer
	track Tracker
	// at is how many bytes the ingest has.
	at int64
	// pieces counts the sources of those bytes: an earlier process, and each response.
	pieces int
	again  bool
}

func (d *download) run(ctx context.Context) error {
	status, err := d.w.Status()
	if err != nil {
		return fmt.Errorf("writing %s: %w", d.desc.Digest, err)
	}
	d.at = status.Offset
	if d.at > d.desc.Size {
		if err := d.restart(); err != nil {
			return err
		}
	}
	if d.at > 0 {
		d.pieces++
		d.track.Advance(d.at)
	}
	tries := attempts{c: d.s.c}
	for {
		before := d.at
		err := d.request(ctx)
		if err == nil {
			again, err := d.check()
			if err != nil || !again {
				return err
			}
			continue
		}
		if d.at-before >= forgiven {
			tries.progressed()
		}
		if err := tries.next(ctx, d.s.src.label()+": "+d.desc.Digest.String(), err); err != nil {
			return err
		}
	}
}

// check verifies the digest of the complete bytes. Where they were put
// together from pieces, the first mismatch means: once more from the start.
func (d *download) check() (again bool, err error) {
	got := d.w.Digest()
	if got == d.desc.Digest {
		return false, nil
	}
	if d.pieces > 1 && !d.again {
		d.again = true
		return true, d.restart()
	}
	return false, &DigestError{Image: d.s.src.label(), Want: d.desc.Digest, Got: got}
}

func (d *download) restart() error {
	if err := d.w.Truncate(0); err != nil {
		return fmt.Errorf("writing %s: %w", d.desc.Digest, &permanentError{err})
	}
	d.track.Advance(-d.at)
	d.at, d.pieces = 0, 0
	return nil
}

// request asks for what is missing and writes it. nil means that the bytes are complete.
func (d *download) request(ctx context.Context) error {
	if d.at == d.desc.Size {
		return nil
	}
	ctx, dog := watch(ctx, d.s.c.o.StallTimeout)
	defer dog.end()
	header := http.Header{}
	if d.at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", d.at, d.desc.Size-1))
	}
	resp, err := d.s.do(ctx, http.MethodGet, d.s.url("blobs", d.desc.Digest.String()), header)
	if err != nil {
		return dog.cause(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && d.at > 0 {
		return errors.Join(errors.New("the registry has no such range"), d.restart())
	}
	if err := checkStatus(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return dog.cause(ctx, err)
	}
	skip, err := d.skip(resp)
	if err != nil {
		return err
	}
	d.pieces++
	return dog.cause(ctx, d.copy(resp.Body, skip, dog))
}

// skip says how many bytes of the response the ingest has already: a registry
// may answer a Range with the whole.
func (d *download) skip(resp *http.Response) (int64, error) {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength != d.desc.Size {
			return 0, d.wrongSize(resp.ContentLength)
		}
		return d.at, nil
	}
	start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
	if !ok || start > d.at {
		return 0, fmt.Errorf("the registry answered a request for bytes %d- with %q", d.at, resp.Header.Get("Content-Range"))
	}
	if total >= 0 && total != d.desc.Size {
		return 0, d.wrongSize(total)
	}
	return d.at - start, nil
}

func (d *download) wrongSize(got int64) error {
	return &DigestError{Image: d.s.src.label(), Want: d.desc.Digest, Size: got, WantSize: d.desc.Size}
}

// parseContentRange reads "bytes 5-9/10"; total is -1 where it is "*".
func parseContentRange(v string) (start, total int64, ok bool) {
	span, size, found := strings.Cut(strings.TrimPrefix(v, "bytes "), "/")
	first, _, found2 := strings.Cut(span, "-")
	if !found || !found2 {
		return 0, 0, false
	}
	start, err := strconv.ParseInt(first, 10, 64)
	if err != nil || start < 0 {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return start, total, err == nil
}

// copy moves the body into the ingest, without its first skip bytes.
func (d *download) copy(body io.Reader, skip int64, dog *watchdog) error {
	pool, size := &d.s.c.buffers, copyBuffer
	if d.desc.Size <= smallTransfer {
		pool, size = &d.s.c.smallBuffers, smallBuffer
	}
	buf, ok := pool.Get().(*[]byte)
	if !ok {
		b := make([]byte, size)
		buf = &b
	}
	defer pool.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			dog.feed()
			p := (*buf)[:n]
			drop := min(skip, int64(n))
			skip -= drop
			if werr := d.write(p[drop:]); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF) && d.at == d.desc.Size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

func (d *download) write(p []byte) error {
	if d.at+int64(len(p)) > d.desc.Size {
		return d.wrongSize(d.at + int64(len(p)))
	}
	n, err := d.w.Write(p)
	d.at += int64(n)
	d.track.Advance(int64(n))
	if err != nil {
		return fmt.Errorf("writing %s: %w", d.desc.Digest, &permanentError{err})
	}
	return nil
}

// readDocument reads a document from the store.
func readDocument(ctx context.Context, st *store.Store, desc ocispec.Descriptor) ([]byte, error) {
	return clusterimage.ReadBlob(ctx, st.Content(), desc)
}
