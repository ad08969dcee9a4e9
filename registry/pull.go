// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
	"github.com/sealerio/sealer/store"
)

// PullOptions narrow a pull.
type PullOptions struct {
	// Platforms to pull; none means all that the image has.
	Platforms []ocispec.Platform
}

// Pull brings an image into the store and tags it, once it is complete, with
// the name it was asked for by. A ClusterImage costs a request for the index,
// two for the manifests of each platform, and two for the lists; the packed
// images' documents come with those. Any other OCI or Docker image works too; one that a BuildKit frontend made
// becomes a ClusterImage in the store.
func (c *Client) Pull(ctx context.Context, st *store.Store, ref string, o PullOptions) (_ ocispec.Descriptor, err error) {
	src, err := c.parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()

	known := false
	if _, err := st.Resolve(ctx, src.name()); err == nil {
		known = true
	}
	s, doc, err := c.lookup(ctx, st, src.name(), known)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p := puller{s: s, st: st, want: o.Platforms}
	desc, ok := p.adopted(ctx, src.name(), doc)
	if !ok {
		if desc, err = p.pull(ctx, doc); err != nil {
			return ocispec.Descriptor{}, src.fail(err)
		}
		if desc, _, err = layout.Adopt(ctx, st.Content(), desc); err != nil {
			return ocispec.Descriptor{}, src.fail(err)
		}
	}
	if err := st.Tag(ctx, ref, desc); err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	return desc, nil
}

type puller struct {
	s    *session
	st   *store.Store
	want []ocispec.Platform
	// documentsOnly leaves the layers where they are.
	documentsOnly bool
}

// layers fetches the layers of an image, where they are wanted.
func (p *puller) layers(ctx context.Context, blobs []ocispec.Descriptor) error {
	if p.documentsOnly {
		return nil
	}
	return p.s.fetchAll(ctx, p.st, blobs)
}

func (p *puller) pull(ctx context.Context, doc document) (ocispec.Descriptor, error) {
	if clusterimage.IsManifest(doc.desc.MediaType) {
		return p.pullManifest(ctx, doc)
	}
	index, err := parseIndex(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if clusterimage.IsClusterImage(index) {
		return p.pullClusterImage(ctx, doc, index)
	}
	return p.pullIndex(ctx, doc, index)
}

// pullManifest pulls a single image.
func (p *puller) pullManifest(ctx context.Context, doc document) (ocispec.Descriptor, error) {
	f, platform, err := p.s.image(ctx, p.st, doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, w := range p.want {
		if platform.Architecture != "" && !clusterimage.Matcher(w).Match(platform) {
			return ocispec.Descriptor{}, missingPlatform(p.s.src.label(), platforms.Format(w), []string{formatPlatform(platform)})
		}
	}
	return doc.desc, p.layers(ctx, layersOf(f.manifest))
}

func layersOf(m ocispec.Manifest) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, l := range m.Layers {
		if clusterimage.Distributable(l) {
			out = append(out, l)
		}
	}
	return out
}

// pullIndex pulls the wanted platforms of an image of several.
func (p *puller) pullIndex(ctx context.Context, doc document, index ocispec.Index) (ocispec.Descriptor, error) {
	var ids []digest.Digest
	for _, w := range p.want {
		f, err := p.s.choose(ctx, p.st, doc, platforms.Normalize(w))
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		ids = append(ids, f.doc.desc.Digest)
	}
	if len(p.want) == 0 {
		for _, d := range index.Manifests {
			ids = append(ids, d.Digest)
		}
	}
	return doc.desc, p.pullChildren(ctx, ids, 0)
}

// maxNesting bounds how deep an index may name indexes.
const maxNesting = 3

// pullChildren pulls manifests with all that they name.
func (p *puller) pullChildren(ctx context.Context, ids []digest.Digest, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("its indexes are nested more than %d deep", maxNesting)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.s.c.questions())
	for _, id := range ids {
		g.Go(func() error {
			doc, err := p.s.manifest(ctx, p.st, id.String())
			if err != nil {
				return err
			}
			if clusterimage.IsIndex(doc.desc.MediaType) {
				index, err := parseIndex(doc)
				if err != nil {
					return err
				}
				var below []digest.Digest
				for _, d := range index.Manifests {
					below = append(below, d.Digest)
				}
				return p.pullChildren(ctx, below, depth+1)
			}
			f, _, err := p.s.image(ctx, p.st, doc)
			if err != nil {
				return err
			}
			return p.layers(ctx, layersOf(f.manifest))
		})
	}
	return g.Wait()
}

// pullClusterImage pulls the documents first, then every layer at once.
func (p *puller) pullClusterImage(ctx context.Context, doc document, index ocispec.Index) (ocispec.Descriptor, error) {
	desc := doc.desc
	desc.ArtifactType = clusterimage.ArtifactType
	entries, err := p.entries(index)
	if err != nil {
		return desc, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.s.c.questions())
	for _, d := range entries {
		g.Go(func() error { return p.entry(gctx, d) })
	}
	if err := g.Wait(); err != nil {
		return desc, err
	}
	img, err := clusterimage.Read(ctx, p.st.Content(), desc)
	if err != nil {
		return desc, err
	}
	blobs, err := img.Descriptors(ctx, p.st.Content(), p.want)
	if err != nil {
		return desc, err
	}
	return desc, p.layers(ctx, blobs)
}

// entries are the index entries to ask for: all but the container images,
// whose documents come with the image lists. With wanted platforms, only theirs.
func (p *puller) entries(index ocispec.Index) ([]ocispec.Descriptor, error) {
	img := &clusterimage.Image{}
	for _, d := range index.Manifests {
		if d.Annotations[clusterimage.AnnotationRole] == clusterimage.RoleRootfs && d.Platform != nil {
			img.Rootfs = append(img.Rootfs, clusterimage.Rootfs{Descriptor: d, Platform: *d.Platform})
		}
	}
	chosen := map[string]bool{}
	described := map[digest.Digest]bool{}
	for _, w := range p.want {
		r, err := img.Platform(w)
		if err != nil {
			if pe, ok := errors.AsType[*clusterimage.PlatformError](err); ok {
				pe.Image = p.s.src.label()
			}
			return nil, err
		}
		chosen[platforms.Format(platforms.Normalize(r.Platform))] = true
		described[r.Descriptor.Digest] = true
	}
	var out []ocispec.Descriptor
	for _, d := range index.Manifests {
		platform := d.Annotations[clusterimage.AnnotationPlatform]
		switch d.Annotations[clusterimage.AnnotationRole] {
		case clusterimage.RoleContainerImage:
			continue
		case clusterimage.RoleRootfs:
			if d.Platform != nil {
				platform = platforms.Format(platforms.Normalize(*d.Platform))
			}
		case clusterimage.RoleImageList:
		default:
			platform = "" // what is not known goes with all platforms only
		}
		if len(p.want) == 0 || chosen[platform] || described[clusterimage.About(d)] {
			out = append(out, d)
		}
	}
	return out, nil
}

// entry fetches the documents that an index entry stands for.
func (p *puller) entry(ctx context.Context, d ocispec.Descriptor) error {
	if clusterimage.IsIndex(d.MediaType) {
		return p.pullChildren(ctx, []digest.Digest{d.Digest}, 0)
	}
	doc, err := p.s.manifest(ctx, p.st, d.Digest.String())
	if err != nil {
		return err
	}
	f, _, err := p.s.image(ctx, p.st, doc)
	if err != nil {
		return err
	}
	if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
		return nil
	}
	if err := p.s.fetchAll(ctx, p.st, f.manifest.Layers); err != nil {
		return err
	}
	images, err := clusterimage.ReadImageList(ctx, p.st.Content(), d)
	if err != nil {
		return err
	}
	return p.documents(ctx, d, images)
}

// documents writes the packed images' documents into the store from the
// documents layer, and asks the registry for those that the layer lacks.
func (p *puller) documents(ctx context.Context, list ocispec.Descriptor, images []clusterimage.PackedImage) error {
	missing := map[digest.Digest]bool{}
	for _, img := range images {
		whole, err := p.whole(ctx, img)
		if err != nil {
			return err
		}
		if !whole {
			missing[img.Manifest.Digest] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.s.c.questions()) // each write waits for the disk
	for doc, err := range clusterimage.ReadDocuments(ctx, p.st.Content(), list) {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			return storeDocument(gctx, p.st, ocispec.Descriptor{Digest: doc.Digest, Size: int64(len(doc.Data))}, doc.Data)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, img := range images {
		if err := p.complete(ctx, img); err != nil {
			return fmt.Errorf("packed image %s: %w", img.Name, err)
		}
	}
	return nil
}

// whole tells whether the store has an image's documents.
func (p *puller) whole(ctx context.Context, img clusterimage.PackedImage) (bool, error) {
	var m ocispec.Manifest
	err := clusterimage.ReadJSON(ctx, p.st.Content(), img.Manifest, &m)
	if err == nil {
		_, err = p.st.Content().Info(ctx, m.Config.Digest)
	}
	if err == nil && img.Index != nil {
		_, err = p.st.Content().Info(ctx, img.Index.Digest)
	}
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// complete asks for the documents that the documents layer did not have.
func (p *puller) complete(ctx context.Context, img clusterimage.PackedImage) error {
	doc, err := p.s.manifest(ctx, p.st, img.Manifest.Digest.String())
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(doc.data, &m); err != nil {
		return fmt.Errorf("reading manifest %s: %w", doc.desc.Digest, err)
	}
	if err := p.s.fetchBlob(ctx, p.st, m.Config); err != nil {
		return err
	}
	if img.Index == nil {
		return nil
	}
	// A registry has a source index only where it holds the image itself too.
	_, err = p.s.manifest(ctx, p.st, img.Index.Digest.String())
	return err
}
