// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// ImageRequest asks for one container image for one platform.
type ImageRequest struct {
	// Name is a reference, with tag, digest or both; the digest wins.
	Name     string
	Platform ocispec.Platform
	// Origins and App go into the PackedImage unchanged.
	Origins []string
	App     string
	// Digest is what Name stands for, an index or a manifest, where that is known: the tag is then not asked for, and the
	// registry only for what the store lacks.
	Digest digest.Digest
	// Absent is told why an image cannot be had, and decides: with true it is no error, and the result for it is the zero value.
	// IsAbsent, IsRefused and MayPass tell the reasons apart. It may be called from several goroutines.
	Absent func(req ImageRequest, err error) bool
}

// fail says in an error of an image which files ask for it. Requests may share the error, so it is left as it is.
func (r ImageRequest) fail(err error) error {
	if len(r.Origins) == 0 {
		return err
	}
	one := ImageError{Image: r.Name, Err: err}
	if named, ok := err.(*ImageError); ok { //nolint:errorlint // what stands around one would be lost
		one = *named
	}
	one.Origins = r.Origins
	return &one
}

// errOtherImage ends transfers when the list of images turned out wrong.
var errOtherImage = errors.New("another image failed")

// PackImages brings container images into the store as they are upstream: for
// each the index document, where it has one, the manifest for its platform, the
// config and the layers. What the store has is not asked for; each blob is fetched
// once, over all images. The result is in the order of reqs.
//
// The error joins one *ImageError for every image that failed. An image that
// cannot be had ends the transfer of layers, once all images were looked up;
// what has arrived is continued from by the next call. The caller holds the
// store.
func (c *Client) PackImages(ctx context.Context, st *store.Store, reqs []ImageRequest) ([]clusterimage.PackedImage, error) {
	return c.pack(ctx, st, reqs, true)
}

// ResolveImages is PackImages without the layers: it finds out which images the names stand for now.
func (c *Client) ResolveImages(ctx context.Context, st *store.Store, reqs []ImageRequest) ([]clusterimage.PackedImage, error) {
	return c.pack(ctx, st, reqs, false)
}

func (c *Client) pack(ctx context.Context, st *store.Store, reqs []ImageRequest, withLayers bool) ([]clusterimage.PackedImage, error) {
	known, err := packedNames(ctx, st)
	if err != nil {
		return nil, err
	}
	p := packer{c: c, st: st, known: known, tops: map[string]*top{}}
	layersCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	out := make([]clusterimage.PackedImage, len(reqs))
	failed := make([]error, len(reqs))
	var lookups, layers errgroup.Group
	lookups.SetLimit(c.questions())
	var mu sync.Mutex
	fail := func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed[i] = errors.Join(failed[i], reqs[i].fail(err))
	}
	for i, req := range reqs {
		lookups.Go(func() error {
			img, blobs, s, err := p.lookup(ctx, req)
			if err != nil && req.Absent != nil && ctx.Err() == nil && req.Absent(req, err) {
				return nil
			}
			if err != nil {
				fail(i, err)
				stop(errOtherImage)
				return nil
			}
			out[i] = img
			if !withLayers || s == nil { // nil: the store has all of it
				return nil
			}
			layers.Go(func() error {
				if err := s.fetchAll(layersCtx, st, blobs); err != nil && !errors.Is(err, errOtherImage) {
					fail(i, s.src.fail(err))
				}
				return nil
			})
			return nil
		})
	}
	_ = lookups.Wait() // failures are in failed
	_ = layers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	return out, nil
}

// fetchAll fetches blobs, all at once; the client's slots bound how many move.
func (s *session) fetchAll(ctx context.Context, st *store.Store, blobs []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.c.questions())
	for _, b := range blobs {
		g.Go(func() error { return s.fetchBlob(ctx, st, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return nil
}

// packedNames lists the names that ClusterImages in the store have packed. For
// those a registry is asked for the digest only, first: most have not moved,
// and registries that count pulls count no such question.
func packedNames(ctx context.Context, st *store.Store) (map[string]bool, error) {
	all, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, t := range all {
		index, err := clusterimage.ReadIndex(ctx, st.Content(), t.Descriptor)
		if err != nil {
			continue // another kind of image, or one that is not whole
		}
		for _, d := range index.Manifests {
			if n := d.Annotations[clusterimage.AnnotationName]; n != "" {
				names[n] = true
			}
		}
	}
	return names, nil
}

// packer looks images up, each name once for all its platforms.
type packer struct {
	c     *Client
	st    *store.Store
	known map[string]bool
	mu    sync.Mutex
	tops  map[string]*top
}

// top is what a name stands for: an index or a manifest.
type top struct {
	once sync.Once
	s    *session
	doc  document
	err  error
}

func (p *packer) top(ctx context.Context, name string, pinned digest.Digest) *top {
	key := name + " " + pinned.String()
	p.mu.Lock()
	t, ok := p.tops[key]
	if !ok {
		t = &top{}
		p.tops[key] = t
	}
	p.mu.Unlock()
	t.once.Do(func() {
		if pinned == "" {
			t.s, t.doc, t.err = p.c.lookup(ctx, p.st, name, p.known[name])
			return
		}
		t.s, t.doc, t.err = p.c.lookupDigest(ctx, p.st, name, pinned)
	})
	return t
}

// lookupDigest gets the document that a name is known to stand for.
func (c *Client) lookupDigest(ctx context.Context, st *store.Store, name string, id digest.Digest) (*session, document, error) {
	src, err := c.parse(name)
	if err != nil {
		return nil, document{}, err
	}
	s, err := c.session(ctx, src, transport.PullScope)
	if err != nil {
		return nil, document{}, src.fail(err)
	}
	doc, err := s.manifest(ctx, st, id.String())
	return s, doc, src.fail(err)
}

// IsAbsent tells whether a failure says that an image does not exist, or not for the platform. That its registry could not
// be asked says nothing of it, and neither does a refusal.
func IsAbsent(err error) bool {
	if _, ok := errors.AsType[*clusterimage.PlatformError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*openingError](err); ok {
		return false
	}
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusNotFound {
		return true
	}
	answer, ok := errors.AsType[*transport.Error](err)
	return ok && slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.ManifestUnknownErrorCode || d.Code == transport.NameUnknownErrorCode
	})
}

// IsRefused tells whether a registry wants another login, as many do for what does not exist.
func IsRefused(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	return ok && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden)
}

// MayPass tells whether the same question may soon have another answer: a registry is busy, or a disk is full.
func MayPass(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return transientStatus(status.Status)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// lookup resolves a name to its document. With known set, a HEAD request comes first.
func (c *Client) lookup(ctx context.Context, st *store.Store, name string, known bool) (*session, document, error) {
	src, err := c.parse(name)
	if err != nil {
		return nil, document{}, err
	}
	s, err := c.session(ctx, src, transport.PullScope)
	if err != nil {
		return nil, document{}, src.fail(err)
	}
	id := src.identifier()
	if _, pinned := src.digest(); !pinned && known {
		d, err := s.headManifest(ctx, id)
		if err != nil {
			return nil, document{}, src.fail(err)
		}
		if d != "" {
			if doc, err := storedManifest(ctx, st, d); err == nil {
				return s, doc, nil
			}
		}
	}
	doc, err := s.manifest(ctx, st, id)
	return s, doc, src.fail(err)
}

// lookup finds an image's documents, stores them, and lists its layers. An image whose digest is known and that is whole in
// the store needs no registry, and gets no session.
func (p *packer) lookup(ctx context.Context, req ImageRequest) (clusterimage.PackedImage, []ocispec.Descriptor, *session, error) {
	src, err := p.c.parse(req.Name)
	if err != nil {
		return clusterimage.PackedImage{}, nil, nil, err
	}
	platform := platforms.Normalize(req.Platform)
	img := clusterimage.PackedImage{
		Name: src.name(), Platform: platforms.Format(platform), Origins: req.Origins, App: req.App,
	}
	if req.Digest != "" {
		if whole, ok := p.stored(ctx, src, req.Digest, platform, img); ok {
			return whole, nil, nil, nil
		}
	}
	t := p.top(ctx, src.name(), req.Digest)
	if t.err != nil {
		return clusterimage.PackedImage{}, nil, nil, t.err
	}
	found, err := t.s.choose(ctx, p.st, t.doc, platform)
	if err != nil {
		return img, nil, nil, src.fail(err)
	}
	return describe(img, t.doc, found), layersOf(found.manifest), t.s, nil
}

// stored takes an image from the store alone; false where that lacks any of it.
func (p *packer) stored(ctx context.Context, src source, id digest.Digest, platform ocispec.Platform, img clusterimage.PackedImage) (clusterimage.PackedImage, bool) {
	s := &session{c: p.c, src: src, offline: true}
	doc, err := s.manifest(ctx, p.st, id.String())
	if err != nil {
		return img, false
	}
	found, err := s.choose(ctx, p.st, doc, platform)
	if err != nil {
		return img, false
	}
	for _, l := range layersOf(found.manifest) {
		if ok, err := present(ctx, p.st, l); err != nil || !ok {
			return img, false
		}
	}
	return describe(img, doc, found), true
}

// describe completes what is known of an image from its documents.
func describe(img clusterimage.PackedImage, top document, f found) clusterimage.PackedImage {
	if f.doc.desc.Digest != top.desc.Digest {
		index := top.desc
		img.Index = &index
	}
	img.Manifest = f.doc.desc
	img.Size = f.doc.desc.Size + f.manifest.Config.Size
	for _, l := range layersOf(f.manifest) {
		img.Size += l.Size
	}
	return img
}

// found is an image for one platform.
type found struct {
	doc      document
	manifest ocispec.Manifest
}

// choose finds the manifest for a platform in what a name stands for, and
// fetches its config.
func (s *session) choose(ctx context.Context, st *store.Store, doc document, want ocispec.Platform) (found, error) {
	if clusterimage.IsManifest(doc.desc.MediaType) {
		f, platform, err := s.image(ctx, st, doc)
		if err != nil {
			return found{}, err
		}
		if platform.Architecture != "" && !clusterimage.Matcher(want).Match(platform) {
			return found{}, missingPlatform(s.src.label(), platforms.Format(want), []string{formatPlatform(platform)})
		}
		return f, nil
	}
	index, err := parseIndex(doc)
	if err != nil {
		return found{}, err
	}
	entry, have, err := s.chooseEntry(ctx, st, index, want)
	if err != nil {
		return found{}, err
	}
	if entry == nil {
		return found{}, missingPlatform(s.src.label(), platforms.Format(want), have)
	}
	if clusterimage.IsIndex(entry.MediaType) {
		return found{}, fmt.Errorf("its index for %s names another index (%s), which sealer does not pack", platforms.Format(want), entry.Digest)
	}
	child, err := s.manifest(ctx, st, entry.Digest.String())
	if err != nil {
		return found{}, err
	}
	f, _, err := s.image(ctx, st, child)
	return f, err
}

// chooseEntry picks the best entry for a platform; nil where there is none.
// have lists the platforms of the index.
func (s *session) chooseEntry(ctx context.Context, st *store.Store, index ocispec.Index, want ocispec.Platform) (best *ocispec.Descriptor, have []string, err error) {
	match := clusterimage.Matcher(want)
	var unnamed []ocispec.Descriptor
	for _, d := range index.Manifests {
		if attestation(d) {
			continue
		}
		if d.Platform == nil || d.Platform.Architecture == "" {
			unnamed = append(unnamed, d)
			continue
		}
		have = append(have, formatPlatform(*d.Platform))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &d
		}
	}
	// Entries that do not say their platform say it in their config.
	for _, d := range unnamed[:min(len(unnamed), maxUnnamed)] {
		if best != nil {
			break
		}
		if !clusterimage.IsManifest(d.MediaType) {
			continue
		}
		doc, err := s.manifest(ctx, st, d.Digest.String())
		if err != nil {
			return nil, nil, err
		}
		_, platform, err := s.image(ctx, st, doc)
		if err != nil {
			return nil, nil, err
		}
		have = append(have, formatPlatform(platform))
		if match.Match(platform) {
			best = &d
		}
	}
	slices.Sort(have)
	return best, slices.Compact(have), nil
}

// maxUnnamed bounds how many entries without a platform are looked into.
const maxUnnamed = 16

// attestation tells whether an index entry is no image but something about one.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
func attestation(d ocispec.Descriptor) bool {
	if d.Annotations["vnd.docker.reference.type"] != "" {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func formatPlatform(p ocispec.Platform) string {
	if p.Architecture == "" && p.OS == "" {
		return "unknown"
	}
	return platforms.Format(platforms.Normalize(p))
}

// image reads an image manifest and its config, fetching the config.
func (s *session) image(ctx context.Context, st *store.Store, doc document) (found, ocispec.Platform, error) {
	m, err := parseManifest(doc)
	if err != nil {
		return found{}, ocispec.Platform{}, err
	}
	if m.Config.Size > maxManifest {
		return found{}, ocispec.Platform{}, fmt.Errorf("its config %s has %d bytes, more than %d", m.Config.Digest, m.Config.Size, maxManifest)
	}
	if err := s.fetchBlob(ctx, st, m.Config); err != nil {
		return found{}, ocispec.Platform{}, err
	}
	data, err := readDocument(ctx, st, m.Config)
	if err != nil {
		return found{}, ocispec.Platform{}, err
	}
	var platform ocispec.Platform
	// Configs of artifacts may be anything, and have no platform.
	_ = json.Unmarshal(data, &platform)
	return found{doc: doc, manifest: m}, platform, nil
}
