// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobSource is where the bytes of an upload come from, from an offset on.
type blobSource interface {
	io.Closer
	// reader gives the bytes, also once more; nothing reads from an earlier one then.
	reader() (io.Reader, error)
	// failed is why reading ended too early; nil where it did not.
	failed() error
}

func (p *pusher) blobSource(ctx context.Context, b *blobPush, from int64) blobSource {
	if !b.stored {
		return &remoteBlob{s: p.source, desc: b.desc, ctx: ctx, start: from}
	}
	return &storedBlob{open: func() (content.ReaderAt, error) { return p.st.Content().ReaderAt(ctx, b.desc) }, start: from}
}

// storedBlob is read from the store.
type storedBlob struct {
	open   func() (content.ReaderAt, error)
	start  int64
	opened []io.Closer
}

func (s *storedBlob) reader() (io.Reader, error) {
	ra, err := s.open()
	if err != nil {
		return nil, &permanentError{err}
	}
	s.opened = append(s.opened, ra)
	if file, err := fileOf(ra, s.start); file != nil || err != nil {
		return file, err
	}
	return io.NewSectionReader(ra, s.start, ra.Size()-s.start), nil
}

func (s *storedBlob) failed() error { return nil }

func (s *storedBlob) Close() error {
	var errs []error
	for _, one := range s.opened {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// remoteBlob is read from another registry while it is sent on. What is read
// from the start on is verified before its last byte is handed over; where the
// sending goes on in the middle, the target's own check stands alone. A
// connection that is cut is made again.
type remoteBlob struct {
	s     *session
	desc  ocispec.Descriptor
	ctx   context.Context //nolint:containedctx // of the upload, as long as which the source is read
	start int64

	mu     sync.Mutex // the transport may read on while the upload is given up
	at     int64
	body   io.ReadCloser
	hash   digest.Digester
	tries  attempts
	before int64
	err    error
	closed bool
}

func (r *remoteBlob) reader() (io.Reader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil {
		_ = r.body.Close() // what it had is not wanted
	}
	r.at, r.body, r.err = r.start, nil, nil
	r.hash, r.tries = r.desc.Digest.Algorithm().Digester(), attempts{c: r.s.c}
	return r, nil
}

func (r *remoteBlob) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *remoteBlob) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

func (r *remoteBlob) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, io.ErrClosedPipe
	}
	n, err := r.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *remoteBlob) read(p []byte) (int, error) {
	if r.at == r.desc.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.desc.Size-r.at)]
	for {
		n, err := r.piece(p)
		if n > 0 {
			r.at += int64(n)
			_, _ = r.hash.Hash().Write(p[:n]) // a hash takes all
			if r.at == r.desc.Size && r.start == 0 && r.hash.Digest() != r.desc.Digest {
				return 0, &DigestError{Image: r.s.src.label(), Want: r.desc.Digest, Got: r.hash.Digest()}
			}
			return n, nil
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			continue
		}
		if r.body != nil {
			_ = r.body.Close() // the failure to read is what counts
			r.body = nil
		}
		if r.at-r.before >= forgiven {
			r.tries.progressed()
		}
		r.before = r.at
		if err := r.tries.next(r.ctx, r.s.src.label()+": "+r.desc.Digest.String(), err); err != nil {
			return 0, &permanentError{fmt.Errorf("fetching %s: %w", r.desc.Digest, r.s.src.fail(err))}
		}
	}
}

// piece reads from the connection, and makes it where there is none.
func (r *remoteBlob) piece(p []byte) (int, error) {
	if r.body == nil {
		if err := r.connect(); err != nil {
			return 0, err
		}
	}
	return r.body.Read(p)
}

func (r *remoteBlob) connect() error {
	ctx, dog := watch(r.ctx, r.s.c.o.StallTimeout)
	header := http.Header{}
	if r.at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.at, r.desc.Size-1))
	}
	resp, err := r.s.do(ctx, http.MethodGet, r.s.url("blobs", r.desc.Digest.String()), header) //nolint:bodyclose // watchedBody closes it, with r
	if err != nil {
		err = dog.cause(ctx, err)
		dog.end()
		return err
	}
	body := &watchedBody{body: resp.Body, ctx: ctx, dog: dog}
	if err := checkStatus(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return errors.Join(err, body.Close())
	}
	d := download{s: r.s, desc: r.desc, at: r.at}
	skip, err := d.skip(resp)
	if err == nil {
		_, err = io.CopyN(io.Discard, body, skip)
	}
	if err != nil {
		return errors.Join(err, body.Close())
	}
	r.body = body
	return nil
}
