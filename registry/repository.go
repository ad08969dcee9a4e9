// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxInMemory bounds what ReaderAt reads of a blob, in bytes: an image list
// may have as much.
const maxInMemory = 64 << 20

// Repository is a repository of a registry, read in place: nothing of it goes
// into a store. It is a content.Provider of small blobs, and safe for
// concurrent use.
type Repository struct {
	s  *session
	mu sync.Mutex
	// read has what was read, at most maxInMemory in all: documents are asked for more than once.
	read  map[digest.Digest][]byte
	bytes int
}

// Repository opens the repository of a reference.
func (c *Client) Repository(ctx context.Context, ref string) (*Repository, error) {
	src, err := c.parse(ref)
	if err != nil {
		return nil, err
	}
	s, err := c.session(ctx, src, transport.PullScope)
	if err != nil {
		return nil, src.fail(err)
	}
	return &Repository{s: s, read: map[digest.Digest][]byte{}}, nil
}

// Resolve finds the manifest or index of a tag or digest; "" is the one of the
// reference that the repository was opened with. What is not there is an
// errdefs.ErrNotFound.
func (r *Repository) Resolve(ctx context.Context, id string) (ocispec.Descriptor, error) {
	if id == "" {
		id = r.s.src.identifier()
	}
	doc, err := r.document(ctx, id)
	return doc.desc, err
}

func (r *Repository) document(ctx context.Context, id string) (document, error) {
	var doc document
	err := r.s.c.retry(ctx, r.s.src.label(), func(ctx context.Context) error {
		var err error
		doc, err = r.s.getManifest(ctx, id)
		return err
	})
	if err != nil {
		return document{}, r.fail(err)
	}
	r.keep(doc.desc.Digest, doc.data)
	return doc, nil
}

// fail names the image, and makes an answer of 404 an errdefs.ErrNotFound.
func (r *Repository) fail(err error) error {
	var se *StatusError
	if errors.As(err, &se) && se.Status == http.StatusNotFound {
		err = &absentError{err}
	}
	return r.s.src.fail(err)
}

// absentError is an errdefs.ErrNotFound, in the words of what it wraps.
type absentError struct{ err error }

func (e *absentError) Error() string   { return e.err.Error() }
func (e *absentError) Unwrap() []error { return []error{e.err, errdefs.ErrNotFound} }

func (r *Repository) keep(d digest.Digest, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.read[d]; !ok && r.bytes+len(data) <= maxInMemory {
		r.read[d] = data
		r.bytes += len(data)
	}
}

// ReaderAt reads a manifest, or a blob of at most 64 MiB, and verifies it.
func (r *Repository) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r.mu.Lock()
	data, ok := r.read[desc.Digest]
	r.mu.Unlock()
	if ok {
		return memory{bytes.NewReader(data)}, nil
	}
	if clusterimage.IsIndex(desc.MediaType) || clusterimage.IsManifest(desc.MediaType) {
		doc, err := r.document(ctx, desc.Digest.String())
		if err != nil {
			return nil, err
		}
		return memory{bytes.NewReader(doc.data)}, nil
	}
	if desc.Size > maxInMemory {
		return nil, r.s.src.fail(fmt.Errorf("%s has %d bytes, more than %d", desc.Digest, desc.Size, maxInMemory))
	}
	err := r.s.c.retry(ctx, r.s.src.label(), func(ctx context.Context) (err error) {
		body, err := r.Open(ctx, desc)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, body.Close()) }()
		data, err = io.ReadAll(io.LimitReader(body, desc.Size+1))
		return err
	})
	if err != nil {
		return nil, r.fail(err)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, &DigestError{Image: r.s.src.label(), Want: desc.Digest, Got: got}
	}
	r.keep(desc.Digest, data)
	return memory{bytes.NewReader(data)}, nil
}

// Open reads a blob from its start, as the registry sends it: what is read is
// not verified, and a connection that is cut is not made again. The caller closes it.
func (r *Repository) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("reading %q: %w", desc.Digest, err)
	}
	ctx, dog := watch(ctx, r.s.c.o.StallTimeout)
	resp, err := r.s.do(ctx, http.MethodGet, r.s.url("blobs", desc.Digest.String()), http.Header{})
	if err == nil {
		if err = checkStatus(resp, http.StatusOK); err == nil {
			return &watchedBody{body: resp.Body, ctx: ctx, dog: dog}, nil
		}
		drain(resp)
	}
	err = dog.cause(ctx, err)
	dog.end()
	return nil, err
}

// watchedBody ends when no byte came for long.
type watchedBody struct {
	body io.ReadCloser
	ctx  context.Context //nolint:containedctx // of the request, which lasts as long as the body
	dog  *watchdog
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.dog.feed()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.dog.cause(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.dog.end()
	return b.body.Close()
}

// memory is a blob that was read.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }
