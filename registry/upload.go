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
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
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

// upload sends a blob in one request. After a cut it goes on where the registry
// says that it is; a registry that does not say gets it from the start.
func (p *pusher) upload(ctx context.Context, b *blobPush) (err error) {
	track := p.s.c.o.Track(p.name+" "+shortDigest(b.desc.Digest), b.desc.Size)
	defer func() { track.Done(err) }()
	u := upload{p: p, b: b, track: track, from: b.from}
	tries := attempts{c: p.s.c}
	for {
		before := u.sent
		err := u.try(ctx)
		if err == nil {
			return nil
		}
		if u.sent-before >= forgiven {
			tries.progressed()
		}
		if err := tries.next(ctx, p.name+": "+b.desc.Digest.String(), err); err != nil {
			return fmt.Errorf("sending %s: %w", b.desc.Digest, err)
		}
	}
}

// upload is a blob on its way to a registry.
type upload struct {
	p     *pusher
	b     *blobPush
	track Tracker
	// from is the repository to mount the blob from; "" once that was tried.
	from string
	// location is that of an upload that was begun, sent what it has.
	location *url.URL
	sent     int64
	// refused counts how often the registry did not take the rest.
	refused int
}

// maxRefused is how often the rest of an upload is offered to a registry that does not take it.
const maxRefused = 3

func (u *upload) try(ctx context.Context) error {
	if u.location != nil {
		done, err := u.resume(ctx)
		if err != nil || done {
			return err
		}
	}
	if u.location == nil {
		location, mounted, err := u.p.startUpload(ctx, u.b.desc.Digest, u.from)
		if err != nil && u.from != "" && !transient(err) {
			// Not allowed to read there, most likely.
			u.from = ""
			location, mounted, err = u.p.startUpload(ctx, u.b.desc.Digest, "")
		}
		if mounted {
			u.track.Advance(u.b.desc.Size)
		}
		if err != nil || mounted {
			return err
		}
		u.from = "" // not to be had by a mount
		u.location = location
		u.at(0)
	}
	return u.send(ctx)
}

// at notes how much of the blob the registry has.
func (u *upload) at(n int64) {
	u.track.Advance(n - u.sent)
	u.sent = n
}

// resume asks the registry how much it has of an upload that was cut. Where it
// does not know, the next try begins another one, unless the whole blob has
// arrived and only the answer was lost.
// See https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-a-blob-in-chunks
func (u *upload) resume(ctx context.Context) (done bool, err error) {
	location, have, err := u.status(ctx)
	u.location = location
	u.at(have)
	if location != nil || err != nil {
		return false, err
	}
	done, err = u.p.exists(ctx, "blobs", u.b.desc.Digest.String())
	if done {
		u.at(u.b.desc.Size)
	}
	return done, err
}

// status is where an upload goes on, and what the registry has of it; nil where it does not say.
func (u *upload) status(ctx context.Context) (location *url.URL, have int64, err error) {
	ctx, dog := watch(ctx, u.p.s.c.o.StallTimeout)
	defer dog.end()
	resp, err := u.p.s.do(ctx, http.MethodGet, u.location.String(), nil)
	if err != nil {
		return nil, 0, dog.cause(ctx, err)
	}
	defer drain(resp)
	last, ok := strings.CutPrefix(resp.Header.Get("Range"), "0-")
	end, err := strconv.ParseInt(last, 10, 64)
	// "0-0" may be one byte or none.
	if resp.StatusCode != http.StatusNoContent || !ok || err != nil || end < 1 || end >= u.b.desc.Size {
		return nil, 0, nil
	}
	location, err = u.p.location(resp)
	if err != nil {
		return nil, 0, nil // it begins another one
	}
	return location, end + 1, nil
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

// send sends what the registry does not have yet, and ends the upload.
func (u *upload) send(ctx context.Context) (err error) {
	source := u.p.blobSource(ctx, u.b, u.sent)
	defer func() { err = errors.Join(err, source.Close()) }()
	ctx, dog := watch(ctx, u.p.s.c.o.StallTimeout)
	defer dog.end()
	q := u.location.Query()
	q.Set("digest", u.b.desc.Digest.String())
	target := *u.location
	target.RawQuery = q.Encode()

	var body *blobBody
	next := func() (io.ReadCloser, error) {
		if body != nil {
			u.track.Advance(-body.end())
		}
		r, err := source.reader()
		if err != nil {
			return nil, err
		}
		body = &blobBody{r: r, dog: dog, track: u.track}
		return body, nil
	}
	if _, err := next(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, target.String(), body)
	if err != nil {
		return &permanentError{err}
	}
	req.ContentLength = u.b.desc.Size - u.sent
	if req.ContentLength == 0 {
		req.Body = http.NoBody
	}
	req.GetBody = next // for a registry that redirects the upload
	req.Header.Set("Content-Type", "application/octet-stream")
	if u.sent > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.sent, u.b.desc.Size-1))
	}
	resp, err := u.p.s.client.Do(req)
	if err == nil {
		defer drain(resp)
		err = checkStatus(resp, http.StatusCreated, http.StatusNoContent)
	}
	sent := body.end()
	if err == nil {
		return nil
	}
	// The registry says, when it is asked, how much of that arrived.
	u.sent += sent
	if status, ok := errors.AsType[*StatusError](err); ok && !transientStatus(status.Status) && u.sent > sent {
		// The rest is not taken. The registry may still have been writing what
		// came before the cut; if not that, it is sent from the start.
		if u.refused++; u.refused > maxRefused {
			u.location = nil
			u.at(0)
		}
		err = &retryError{err}
	}
	if cause := source.failed(); cause != nil {
		err = cause
	}
	return dog.cause(ctx, withoutQuery(err))
}

// blobBody feeds the watchdog and the display while a request is sent. The
// transport may go on reading for a moment after it has given up.
type blobBody struct {
	r     io.Reader
	dog   *watchdog
	track Tracker

	mu    sync.Mutex
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
	b.passed(int64(n))
	if err == io.EOF {
		b.dog.allow(commitTime)
	}
	return n, err
}

// passed notes bytes that were sent; b.mu is held.
func (b *blobBody) passed(n int64) {
	if b.sent += n; n > 0 {
		b.dog.feed()
		b.track.Advance(n)
	}
}

// Close leaves the reader, which the sender closes, alone.
func (b *blobBody) Close() error { return nil }

// end stops reading, and says how much was read.
func (b *blobBody) end() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return b.sent
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
