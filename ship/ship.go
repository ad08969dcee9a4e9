// SPDX-License-Identifier: Apache-2.0

// Package ship moves images between the store and archives: files, pipes and
// sets of parts. An archive is a plain tar of an OCI layout, which any OCI tool
// reads, with one document more that says what is in it and what is not.
package ship

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// TrackFunc starts the display of a transfer of total bytes.
type TrackFunc func(name string, total int64) Tracker

// Tracker is one transfer. Advance may be called from several goroutines; Done
// once, at the end.
type Tracker interface {
	Advance(n int64)
	Done(err error)
}

type silentTracker struct{}

func (silentTracker) Advance(int64) {}
func (silentTracker) Done(error)    {}

func (f TrackFunc) start(name string, total int64) Tracker {
	if f == nil {
		return silentTracker{}
	}
	return f(name, total)
}

// maxNesting bounds how deep an index may name indexes.
const maxNesting = 3

// Blobs lists every blob that an image needs on the given platforms (all of
// them where none is given), each once, documents before the layers that they
// name. It works for any image. It needs the documents, not the layers; one
// that is not there is a *MissingError.
func Blobs(ctx context.Context, p content.Provider, desc ocispec.Descriptor, want []ocispec.Platform) ([]ocispec.Descriptor, error) {
	p = naming{p}
	img, err := clusterimage.Read(ctx, p, desc)
	if err == nil {
		return img.Descriptors(ctx, p, want)
	}
	if !errors.Is(err, clusterimage.ErrNotClusterImage) {
		return nil, err
	}
	b := blobList{p: p, seen: map[digest.Digest]bool{}}
	if clusterimage.IsIndex(desc.MediaType) && len(want) > 0 {
		return b.some(ctx, desc, want)
	}
	if err := b.add(ctx, desc, 0); err != nil {
		return nil, err
	}
	return append(b.documents, b.layers...), nil
}

// blobList collects the blobs of an ordinary image.
type blobList struct {
	p                 content.Provider
	seen              map[digest.Digest]bool
	documents, layers []ocispec.Descriptor
}

// some lists the blobs of the wanted platforms of an index.
func (b *blobList) some(ctx context.Context, desc ocispec.Descriptor, want []ocispec.Platform) ([]ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, b.p, desc, &index); err != nil {
		return nil, err
	}
	b.seen[desc.Digest] = true
	b.documents = append(b.documents, desc)
	for _, w := range want {
		child, err := clusterimage.ChooseEntry(desc, index, w)
		if err != nil {
			return nil, err
		}
		if err := b.add(ctx, child, 1); err != nil {
			return nil, err
		}
	}
	return append(b.documents, b.layers...), nil
}

func (b *blobList) add(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if b.seen[d.Digest] {
		return nil
	}
	if depth > maxNesting {
		return fmt.Errorf("reading %s: indexes are nested more than %d deep", d.Digest, maxNesting)
	}
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("reading %q: %w", d.Digest, err)
	}
	b.seen[d.Digest] = true
	b.documents = append(b.documents, d)
	if clusterimage.IsIndex(d.MediaType) {
		var index ocispec.Index
		if err := clusterimage.ReadJSON(ctx, b.p, d, &index); err != nil {
			return err
		}
		for _, child := range index.Manifests {
			if err := b.add(ctx, child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if !clusterimage.IsManifest(d.MediaType) {
		return nil
	}
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, b.p, d, &m); err != nil {
		return err
	}
	for i, blob := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := blob.Digest.Validate(); err != nil {
			return fmt.Errorf("reading %s: blob %q: %w", d.Digest, blob.Digest, err)
		}
		if b.seen[blob.Digest] || !clusterimage.Distributable(blob) {
			continue
		}
		b.seen[blob.Digest] = true
		if i == 0 {
			b.documents = append(b.documents, blob)
			continue
		}
		b.layers = append(b.layers, blob)
	}
	return nil
}

// Missing lists those of the blobs that the store lacks. A blob of another size
// than its descriptor's is an error.
func Missing(ctx context.Context, st *store.Store, blobs []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, b := range blobs {
		have, err := present(ctx, st, b)
		if err != nil {
			return nil, err
		}
		if !have {
			out = append(out, b)
		}
	}
	return out, nil
}

func present(ctx context.Context, st *store.Store, d ocispec.Descriptor) (bool, error) {
	info, err := st.Content().Info(ctx, d.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for %s in the store: %w", d.Digest, err)
	}
	if info.Size != d.Size {
		return false, fmt.Errorf("%s has %d bytes in the store and %d by its descriptor", d.Digest, info.Size, d.Size)
	}
	return true, nil
}

// Platforms lists the platforms of which the store has all blobs, and those
// that the image's index names. Both are empty for what has no platforms.
func Platforms(ctx context.Context, st *store.Store, desc ocispec.Descriptor) (have, named []ocispec.Platform, err error) {
	if !clusterimage.IsIndex(desc.MediaType) {
		return nil, nil, nil
	}
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, st.Content(), desc, &index); err != nil {
		return nil, nil, err
	}
	for _, d := range index.Manifests {
		role := d.Annotations[clusterimage.AnnotationRole]
		if d.Platform == nil || d.Platform.OS == "unknown" || role != "" && role != clusterimage.RoleRootfs {
			continue
		}
		named = append(named, *d.Platform)
		blobs, err := Blobs(ctx, st.Content(), desc, []ocispec.Platform{*d.Platform})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		missing, err := Missing(ctx, st, blobs)
		if err != nil {
			return nil, nil, err
		}
		if len(missing) == 0 {
			have = append(have, *d.Platform)
		}
	}
	return have, named, nil
}

func formatAll(ps []ocispec.Platform) []string {
	out := make([]string, 0, len(ps))
	for _, p := range ps {
		out = append(out, platforms.Format(platforms.Normalize(p)))
	}
	return out
}

// naming makes a *MissingError of content that is not there.
type naming struct{ content.Provider }

func (n naming) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := n.Provider.ReaderAt(ctx, d)
	if errdefs.IsNotFound(err) {
		return nil, &MissingError{Digest: d.Digest}
	}
	return ra, err
}
