// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

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
	src = src.direct()
	if d, ok := src.digest(); ok && d != desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("pushing %s to %s: the name has another digest", desc.Digest, src.name())
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()

	return c.push(ctx, st, desc, src, nil)
}

// push sends an image whose documents are in the store. Blobs that the store
// lacks are read from another repository, where one is given.
func (c *Client) push(ctx context.Context, st *store.Store, desc ocispec.Descriptor, src source, from *session) (ocispec.Descriptor, error) {
	p := pusher{
		c: c, st: st, name: src.name(), host: src.host, path: src.path, source: from,
		blobs: map[digest.Digest]*blobPush{}, heights: map[digest.Digest]int{},
	}
	if _, err := p.collect(ctx, desc, 0); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.findMounts(ctx); err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	var err error
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
	c *Client
	s *session
	// source is a repository of blobs that the store lacks; nil: there is none.
	source     *session
	st         *store.Store
	name       string
	host, path string
	blobs      map[digest.Digest]*blobPush
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
	// stored is unset where the blob is to be read from another registry.
	stored bool
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
			if !have && p.source == nil {
				return &IncompleteError{Image: p.name, Missing: d.Digest}
			}
			b = &blobPush{desc: d, stored: have}
			p.blobs[d.Digest] = b
		}
		if from != "" {
			b.from = from
		}
		mp.blobs = append(mp.blobs, b)
	}
	return nil
}

func (p *pusher) push(ctx context.Context) error {
	sent := &sentBlobs{}
	for height, level := range p.levels {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(p.s.c.questions())
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
	release, err := p.s.c.acquire(ctx, b.desc.Size)
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
