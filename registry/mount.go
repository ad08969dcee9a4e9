// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxMounts bounds the repositories that a token is asked for, beside the
// target; maxSiblings the images that are looked through for blobs.
const (
	maxMounts   = 20
	maxSiblings = 100
)

// mountFrom is the repository of the target registry that a packed image came
// from: by its name, or because the registry is the mirror that was asked.
func (p *pusher) mountFrom(desc ocispec.Descriptor) string {
	name := desc.Annotations[clusterimage.AnnotationName]
	if name == "" {
		return ""
	}
	src, err := p.c.parse(name)
	if err != nil {
		return ""
	}
	for _, s := range []source{src.direct(), src} {
		if s.host == p.host && s.path != p.path {
			return s.path
		}
	}
	return ""
}

// findMounts says for each blob which other repository of the registry may have
// it: that of the image it is copied from, that of a packed image, or that of
// another image of the store, which was pulled from there or pushed to it. A
// wrong guess costs nothing: the registry then opens an upload.
func (p *pusher) findMounts(ctx context.Context) error {
	if p.source != nil && p.source.src.host == p.host && p.source.src.path != p.path {
		for _, b := range p.blobs {
			b.from = p.source.src.path
		}
		return nil
	}
	if err := p.findSiblings(ctx); err != nil {
		return err
	}
	h, err := p.c.host(ctx, p.host)
	if err != nil {
		return err
	}
	if !strings.EqualFold(h.challenge.Scheme, "bearer") {
		return nil
	}
	// A token says what it is good for; one for hundreds of repositories is refused.
	scopes := map[string]bool{}
	for _, b := range p.blobs {
		if len(scopes) < maxMounts {
			scopes[b.from] = true
		}
		if !scopes[b.from] {
			b.from = ""
		}
	}
	return nil
}

// findSiblings looks through other images of the store with names at the registry.
func (p *pusher) findSiblings(ctx context.Context) error {
	all, err := p.st.List(ctx)
	if err != nil {
		return err
	}
	seen := map[digest.Digest]bool{}
	looked := 0
	for _, t := range all {
		named, err := reference.ParseNormalizedNamed(t.Name)
		if err != nil || reference.Domain(named) != p.host || reference.Path(named) == p.path {
			continue
		}
		if looked++; looked > maxSiblings {
			return nil
		}
		p.sibling(ctx, t.Descriptor, reference.Path(named), seen, 0)
	}
	return nil
}

// sibling notes the blobs of an image that stands in the repository. What
// cannot be read is no source of mounts.
func (p *pusher) sibling(ctx context.Context, d ocispec.Descriptor, repository string, seen map[digest.Digest]bool, depth int) {
	if seen[d.Digest] || depth > maxNesting || d.Digest.Validate() != nil {
		return
	}
	seen[d.Digest] = true
	data, err := readDocument(ctx, p.st, d)
	if err != nil {
		return
	}
	var doc struct {
		ocispec.Manifest
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if json.Unmarshal(data, &doc) != nil {
		return
	}
	for _, child := range doc.Manifests {
		p.sibling(ctx, child, repository, seen, depth+1)
	}
	for _, blob := range append(doc.Layers, doc.Config) {
		if b := p.blobs[blob.Digest]; b != nil && b.from == "" {
			b.from = repository
		}
	}
}

// mountScopes are the repositories that the token must be good for.
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
