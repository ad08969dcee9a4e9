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
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// commitTime is how long a registry may take to answer after the last byte of
// a blob: it may hash it, and copy it to where it belongs.
const commitTime = 5 * time.Minute

// Push sends the image that desc names to ref and returns its descriptor. It
// asks which manifests and blobs the registry has, takes over by a mount what
// another repository there has, uploads the rest in parallel, and puts each
// manifest after what it names; the tag comes last. An image of which the
// store has only a part is an *IncompleteError.
func (c *Client) Push(ctx context.Context, st *store.Store, desc ocispec.Descriptor, ref string) (_ ocispec.Descriptor, err error) {
	src, err := c.parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	// A mirror is for reading.
	src.host, src.path, src.via = reference.Domain(src.named), reference.Path(src.named), ""
	if d, ok := src.digest(); ok && d != desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("pushing %s to %s: the name has another digest", desc.Digest, src.name())
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()

	p := pusher{st: st, name: src.name(), host: src.host, blobs: map[digest.Digest]*blobPush{}, heights: map[digest.Digest]int{}}
	if _, err := p.collect(ctx, desc, 0); err != nil {
		return ocispec.Descriptor{}, err
	}
	p.s, err = c.session(ctx, src, transport.PushScope, p.mountScopes(src.path)...)
	if err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	if err := p.push(ctx); err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	return ocispec.Descriptor{
		MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Digest: desc.Digest, Size: desc.Size,
	}, nil
}

// pusher is one push: first a list of what the image consists of, then the transfer.
type pusher struct {
	s     *session
	st    *store.Store
	name  string
	host  string
	blobs map[digest.Digest]*blobPush
	// heights are those of the manifests: 0 names blobs only, 1 names manifests.
	heights map[digest.Digest]int
	// levels are the manifests by height; the last one is the image itself.
	levels [][]*manifestPush
}

type manifestPush struct {
	doc   document
	blobs []*blobPush
}

type blobPush struct {
	desc ocispec.Descriptor
	from string // a repository of the registry that may have it
}

// collect reads the image's documents, checks that the store has its blobs,
// and returns its height.
func (p *pusher) collect(ctx context.Context, desc ocispec.Descriptor, depth int) (int, error) {
	if depth > maxNesting {
		return 0, fmt.Errorf("pushing %s: indexes are nested more than %d deep", p.name, maxNesting)
	}
	if h, ok := p.heights[desc.Digest]; ok {
		return h, nil
	}
	data, err := readDocument(ctx, p.st, desc)
	if errdefs.IsNotFound(err) {
		return 0, &IncompleteError{Image: p.name, Missing: desc.Digest}
	}
	if err != nil {
		return 0, fmt.Errorf("pushing %s: %w", p.name, err)
	}
	mp := &manifestPush{doc: document{desc: desc, data: data}}
	if mp.doc.desc.MediaType, err = manifestType(desc.MediaType, data); err != nil {
		return 0, fmt.Errorf("pushing %s: %s: %w", p.name, desc.Digest, err)
	}
	height := 0
	if clusterimage.IsIndex(mp.doc.desc.MediaType) {
		index, err := parseIndex(mp.doc)
		if err != nil {
			return 0, fmt.Errorf("pushing %s: %w", p.name, err)
		}
		for _, d := range index.Manifests {
			h, err := p.collect(ctx, d, depth+1)
			if err != nil {
				return 0, err
			}
			height = max(height, h+1)
		}
		height = max(height, 1)
	} else if err := p.collectBlobs(ctx, mp, p.mountFrom(desc)); err != nil {
		return 0, err
	}
	for len(p.levels) <= height {
		p.levels = append(p.levels, nil)
	}
	p.levels[height] = append(p.levels[height], mp)
	p.heights[desc.Digest] = height
	return height, nil
}

// mountFrom is the repository of the target registry that a packed image is named by.
func (p *pusher) mountFrom(desc ocispec.Descriptor) string {
	named, err := reference.ParseNormalizedNamed(desc.Annotations[clusterimage.AnnotationName])
	if err != nil || reference.Domain(named) != p.host {
		return ""
	}
	return reference.Path(named)
}

func (p *pusher) collectBlobs(ctx context.Context, mp *manifestPush, from string) error {
	m, err := parseManifest(mp.doc)
	if err != nil {
		return fmt.Errorf("pushing %s: %w", p.name, err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if !clusterimage.Distributable(d) {
			continue
		}
		b, ok := p.blobs[d.Digest]
		if !ok {
			have, err := present(ctx, p.st, d)
			if err != nil {
				return fmt.Errorf("pushing %s: %w", p.name, err)
			}
			if !have {
				return &IncompleteError{Image: p.name, Missing: d.Digest}
			}
			b = &blobPush{desc: d}
			p.blobs[d.Digest] = b
		}
		if from != "" {
			b.from = from
		}
		mp.blobs = append(mp.blobs, b)
	}
	return nil
}

// maxMounts bounds the repositories that a token is asked for, beside the target.
const maxMounts = 20

func (p *pusher) mountScopes(target string) []string {
	var out []string
	seen := map[string]bool{target: true, "": true}
	for _, level := range p.levels {
		for _, mp := range level {
			for _, b := range mp.blobs {
				if !seen[b.from] && len(out) < maxMounts {
					seen[b.from] = true
					out = append(out, b.from)
				}
			}
		}
	}
	return out
}

func (p *pusher) push(ctx context.Context) error {
	sent := &sentBlobs{}
	for height, level := range p.levels {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(2 * p.s.c.o.Jobs)
		for _, mp := range level {
			if height == len(p.levels)-1 {
				// The top has the tag, which is put even where the digest is there.
				g.Go(func() error { return p.pushTop(gctx, mp, sent) })
				continue
			}
			g.Go(func() error { return p.pushManifest(gctx, mp, sent) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pusher) pushTop(ctx context.Context, mp *manifestPush, sent *sentBlobs) error {
	if err := p.pushBlobs(ctx, mp, sent); err != nil {
		return err
	}
	return p.putManifest(ctx, mp.doc, p.s.src.identifier())
}

// pushManifest sends a manifest and its blobs. A registry that has the
// manifest has checked, when it took it, that it has the blobs.
func (p *pusher) pushManifest(ctx context.Context, mp *manifestPush, sent *sentBlobs) error {
	id := mp.doc.desc.Digest.String()
	have, err := p.exists(ctx, "manifests", id)
	if err != nil || have {
		return err
	}
	if err := p.pushBlobs(ctx, mp, sent); err != nil {
		return err
	}
	return p.putManifest(ctx, mp.doc, id)
}

// sentBlobs makes each blob go once, however many manifests name it.
type sentBlobs struct {
	flights flights
	done    syncSet
}

func (p *pusher) pushBlobs(ctx context.Context, mp *manifestPush, sent *sentBlobs) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range mp.blobs {
		g.Go(func() error {
			for !sent.done.has(b.desc.Digest) {
				lead, done, err := sent.flights.lead(ctx, b.desc.Digest.String(), p.host)
				if err != nil {
					return err
				}
				if !lead {
					continue
				}
				err = p.pushBlob(ctx, b)
				if err == nil {
					sent.done.add(b.desc.Digest)
				}
				done(err)
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// pushBlob asks for a blob and uploads it where it is missing.
func (p *pusher) pushBlob(ctx context.Context, b *blobPush) error {
	release, err := p.s.c.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	have, err := p.exists(ctx, "blobs", b.desc.Digest.String())
	if err != nil || have {
		return err
	}
	return p.upload(ctx, b)
}

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
		defer drain(resp.Body)
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
	defer drain(resp.Body)
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
		defer drain(resp.Body)
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
		defer drain(resp.Body)
		return checkStatus(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	})
	if err != nil {
		return fmt.Errorf("sending manifest %s: %w", doc.desc.Digest, err)
	}
	return nil
}
