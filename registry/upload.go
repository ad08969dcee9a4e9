// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// commitTime is how long a registry may take to answer after the last byte of
// a blob: it may hash it, and copy it to where it belongs.
const commitTime = 5 * time.Minute

// exists asks for a manifest or blob with HEAD.
func (p *pusher) exists(ctx context.Context, kind, id string) (bool, error) {
	have := false
	err := p.s.c.retry(ctx, p.name+": "+id, func(ctx context.Context) error {
		ctx, dog := watch(ctx, p.s.c.o.StallTimeout)
		defer dog.end()
		var header http.Header
		if kind == "manifests" {
			header = acceptManifests()
		}
		resp, err := p.s.do(ctx, http.MethodHead, p.s.url(kind, id), header)
		if err != nil {
			return dog.cause(ctx, err)
		}
		defer drain(resp)
		have = resp.StatusCode == http.StatusOK
		return checkStatus(resp, http.StatusOK, http.StatusNotFound)
	})
	if err != nil {
		return false, fmt.Errorf("asking for %s: %w", id, err)
	}
	return have, nil
}

// upload sends a blob in one piece, from the start on each try.
func (p *pusher) upload(ctx context.Context, b *blobPush) (err error) {
	track := p.s.c.o.Track(p.name+" "+shortDigest(b.desc.Digest), b.desc.Size)
	defer func() { track.Done(err) }()
	from := b.from
	err = p.s.c.retry(ctx, p.name+": "+b.desc.Digest.String(), func(ctx context.Context) error {
		location, mounted, err := p.startUpload(ctx, b.desc.Digest, from)
		if err != nil && from != "" && !transient(err) {
			// Not allowed to read there, most likely.
			from = ""
			location, mounted, err = p.startUpload(ctx, b.desc.Digest, from)
		}
		if mounted {
			track.Advance(b.desc.Size)
		}
		if err != nil || mounted {
			return err
		}
		from = "" // not to be had by a mount
		return p.sendBlob(ctx, location, b.desc, track)
	})
	if err != nil {
		return fmt.Errorf("sending %s: %w", b.desc.Digest, err)
	}
	return nil
}

// startUpload opens an upload, or has the registry mount the blob from another
// of its repositories.
func (p *pusher) startUpload(ctx context.Context, d digest.Digest, from string) (location *url.URL, mounted bool, err error) {
	ctx, dog := watch(ctx, p.s.c.o.StallTimeout)
	defer dog.end()
	target := p.s.url("blobs", "uploads") + "/"
	if from != "" {
		target += "?" + url.Values{"mount": {d.String()}, "from": {from}}.Encode()
	}
	resp, err := p.s.do(ctx, http.MethodPost, target, http.Header{"Content-Length": {"0"}})
	if err != nil {
		return nil, false, dog.cause(ctx, err)
	}
	defer drain(resp)
	if err := checkStatus(resp, http.StatusCreated, http.StatusAccepted); err != nil {
		return nil, false, err
	}
	if resp.StatusCode == http.StatusCreated {
		return nil, true, nil
	}
	location, err = p.location(resp)
	return location, false, err
}

// location is where an upload goes. A registry behind a proxy that ends TLS
// often believes that it is asked in plain HTTP, and says so here.
func (p *pusher) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, &permanentError{fmt.Errorf("the registry gave no usable location for an upload")}
	}
	if resp.Request.URL.Scheme == "https" && u.Scheme == "http" && u.Hostname() == resp.Request.URL.Hostname() {
		u.Scheme, u.Host = "https", resp.Request.URL.Host
	}
	return u, nil
}

func (p *pusher) sendBlob(ctx context.Context, location *url.URL, desc ocispec.Descriptor, track Tracker) (err error) {
	ra, err := p.st.Content().ReaderAt(ctx, desc)
	if err != nil {
		return &permanentError{err}
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	ctx, dog := watch(ctx, p.s.c.o.StallTimeout)
	defer dog.end()
	q := location.Query()
	q.Set("digest", desc.Digest.String())
	u := *location
	u.RawQuery = q.Encode()

	body := &blobBody{r: content.NewReader(ra), dog: dog, track: track}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), body)
	if err != nil {
		return &permanentError{err}
	}
	if desc.Size == 0 {
		req.Body = http.NoBody
	}
	// For a registry that redirects the upload.
	req.GetBody = func() (io.ReadCloser, error) {
		body.rewind(content.NewReader(ra))
		return body, nil
	}
	req.ContentLength = desc.Size
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.s.client.Do(req)
	if err == nil {
		defer drain(resp)
		err = checkStatus(resp, http.StatusCreated, http.StatusNoContent)
	}
	body.end(err)
	return dog.cause(ctx, withoutQuery(err))
}

// blobBody feeds the watchdog and the display while a request is sent. The
// transport may go on reading for a moment after it has given up.
type blobBody struct {
	mu    sync.Mutex
	r     io.Reader
	dog   *watchdog
	track Tracker
	sent  int64
	ended bool
}

func (b *blobBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	b.sent += int64(n)
	if n > 0 {
		b.dog.feed()
		b.track.Advance(int64(n))
	}
	if err == io.EOF {
		b.dog.allow(commitTime)
	}
	return n, err
}

// rewind starts over with r.
func (b *blobBody) rewind(r io.Reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.track.Advance(-b.sent)
	b.r, b.sent = r, 0
}

// Close leaves the reader, which the sender closes, alone.
func (b *blobBody) Close() error { return nil }

// end stops reading, and takes back what was shown of a try that failed.
func (b *blobBody) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if err != nil {
		b.track.Advance(-b.sent)
	}
}

func (p *pusher) putManifest(ctx context.Context, doc document, id string) error {
	err := p.s.c.retry(ctx, p.name+": "+id, func(ctx context.Context) error {
		ctx, dog := watch(ctx, max(p.s.c.o.StallTimeout, commitTime))
		defer dog.end()
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.s.url("manifests", id), bytes.NewReader(doc.data))
		if err != nil {
			return &permanentError{err}
		}
		req.Header.Set("Content-Type", doc.desc.MediaType)
		resp, err := p.s.client.Do(req)
		if err != nil {
			return dog.cause(ctx, withoutQuery(err))
		}
		defer drain(resp)
		return checkStatus(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	})
	if err != nil {
		return fmt.Errorf("sending manifest %s: %w", doc.desc.Digest, err)
	}
	return nil
}
