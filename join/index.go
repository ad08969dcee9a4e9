// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// ownAnnotations are sealer's own on entries; they are not for users to set.
const ownAnnotations = "io.sealer."

// referenceDigest ties an attestation to an entry.
const referenceDigest = "vnd.docker.reference.digest"

// Entry says how an image stands in an index. Zero values leave what the image
// says of itself.
type Entry struct {
	// Platform replaces the parts of the platform that are set.
	Platform ocispec.Platform
	// Annotations are added to the entry; an empty value takes one away.
	Annotations map[string]string
}

// NewIndex writes an index of no images and returns its descriptor.
func NewIndex(ctx context.Context, cs content.Store) (ocispec.Descriptor, error) {
	return writeIndex(ctx, cs, ocispec.Index{Manifests: []ocispec.Descriptor{}})
}

func writeIndex(ctx context.Context, cs content.Store, index ocispec.Index) (ocispec.Descriptor, error) {
	index.Versioned = specs.Versioned{SchemaVersion: 2}
	index.MediaType = ocispec.MediaTypeImageIndex
	desc, err := writeJSON(ctx, cs, index.MediaType, index)
	desc.ArtifactType = index.ArtifactType
	return desc, err
}

// KindError says that a ClusterImage and another image were to stand in one index.
type KindError struct{ List, Image string }

func (e *KindError) Error() string {
	return fmt.Sprintf("adding %s to %s: one is a ClusterImage, the other is not", e.Image, e.List)
}

// Add writes the index list with image in it, too, and returns its descriptor.
// Of an image with an index, all its platforms are added. ClusterImages make a
// ClusterImage: their rootfs stand beside each other, their image lists and
// attestations are kept. A platform that list has already is an error.
func Add(ctx context.Context, cs content.Store, list, image store.Tagged, e Entry) (ocispec.Descriptor, error) {
	if clusterimage.IsManifest(list.Descriptor.MediaType) {
		return ocispec.Descriptor{}, fmt.Errorf("adding to %s: it is an image, not an index of images", list.Name)
	}
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, cs, list.Descriptor, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding to %s: %w", list.Name, err)
	}
	added, err := clusterimage.Read(ctx, cs, image.Descriptor)
	cluster := err == nil
	if err != nil && !errors.Is(err, clusterimage.ErrNotClusterImage) {
		return ocispec.Descriptor{}, fmt.Errorf("adding %s: %w", image.Name, err)
	}
	switch {
	case len(index.Manifests) > 0 && clusterimage.IsClusterImage(index) != cluster:
		return ocispec.Descriptor{}, &KindError{List: list.Name, Image: image.Name}
	case cluster:
		return addCluster(ctx, cs, list, index, image.Name, added, e)
	}
	entries, err := entriesOf(ctx, cs, image.Descriptor)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding %s: %w", image.Name, err)
	}
	for _, d := range entries {
		if !isAttestation(d) {
			d = e.apply(d)
		}
		if err := appendEntry(&index, d); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("adding %s to %s: %w", image.Name, list.Name, err)
		}
	}
	return writeIndex(ctx, cs, index)
}

// entriesOf are an ordinary image's entries for an index.
func entriesOf(ctx context.Context, cs content.Provider, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if clusterimage.IsIndex(desc.MediaType) {
		var index ocispec.Index
		err := clusterimage.ReadJSON(ctx, cs, desc, &index)
		return index.Manifests, err
	}
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, cs, desc, &m); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := clusterimage.ReadJSON(ctx, cs, m.Config, &config); err != nil {
		return nil, err
	}
	d := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	if config.Architecture != "" {
		p := platforms.Normalize(config.Platform)
		d.Platform = &p
	}
	return []ocispec.Descriptor{d}, nil
}

func isAttestation(d ocispec.Descriptor) bool { return d.Annotations[referenceDigest] != "" }

// appendEntry adds an entry whose platform is new to the index.
func appendEntry(index *ocispec.Index, d ocispec.Descriptor) error {
	for _, have := range index.Manifests {
		if have.Digest == d.Digest {
			return fmt.Errorf("%s is in it already", d.Digest)
		}
		if !isAttestation(d) && !isAttestation(have) && samePlatform(have.Platform, d.Platform) {
			return fmt.Errorf("it has %s for %s already", have.Digest, platforms.FormatAll(*d.Platform))
		}
	}
	index.Manifests = append(index.Manifests, d)
	return nil
}

func samePlatform(a, b *ocispec.Platform) bool {
	return a != nil && b != nil && platforms.FormatAll(platforms.Normalize(*a)) == platforms.FormatAll(platforms.Normalize(*b))
}

// apply changes an entry as the user wants it.
func (e Entry) apply(d ocispec.Descriptor) ocispec.Descriptor {
	d.Annotations = maps.Clone(d.Annotations)
	for k, v := range e.Annotations {
		if v == "" {
			delete(d.Annotations, k)
			continue
		}
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[k] = v
	}
	if !e.setsPlatform() {
		return d
	}
	p := ocispec.Platform{}
	if d.Platform != nil {
		p = *d.Platform
	}
	for _, f := range []struct{ to, from *string }{
		{&p.OS, &e.Platform.OS}, {&p.Architecture, &e.Platform.Architecture},
		{&p.Variant, &e.Platform.Variant}, {&p.OSVersion, &e.Platform.OSVersion},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if len(e.Platform.OSFeatures) > 0 {
		p.OSFeatures = e.Platform.OSFeatures
	}
	d.Platform = &p
	return d
}

func (e Entry) setsPlatform() bool {
	p := e.Platform
	return p.OS != "" || p.Architecture != "" || p.Variant != "" || p.OSVersion != "" || len(p.OSFeatures) > 0
}

// check refuses what would make a ClusterImage say wrong things of itself.
func (e Entry) check() error {
	if e.setsPlatform() {
		return errors.New("the platform of a rootfs is what it was built for, and its image list is for the same")
	}
	for k := range e.Annotations {
		if strings.HasPrefix(k, ownAnnotations) || k == clusterimage.AnnotationName {
			return fmt.Errorf("the annotation %s is sealer's own", k)
		}
	}
	return nil
}

func addCluster(ctx context.Context, cs content.Store, list store.Tagged, index ocispec.Index, name string, added *clusterimage.Image, e Entry) (ocispec.Descriptor, error) {
	if err := e.check(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding %s: %w", name, err)
	}
	in := clusterimage.Composition{Annotations: index.Annotations}
	if len(index.Manifests) > 0 {
		img, err := clusterimage.Read(ctx, cs, list.Descriptor)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("adding to %s: %w", list.Name, err)
		}
		in = composition(img)
	}
	for _, r := range added.Rootfs {
		for _, have := range in.Rootfs {
			if samePlatform(have.Platform, &r.Platform) {
				return ocispec.Descriptor{}, fmt.Errorf("adding %s to %s: it has a rootfs for %s already", name, list.Name, platforms.FormatAll(r.Platform))
			}
		}
	}
	more := composition(added)
	for i := range more.Rootfs {
		more.Rootfs[i] = e.apply(more.Rootfs[i])
	}
	in.Rootfs = append(in.Rootfs, more.Rootfs...)
	in.Images = append(in.Images, more.Images...)
	for _, d := range more.Keep {
		if !slices.ContainsFunc(in.Keep, func(k ocispec.Descriptor) bool { return k.Digest == d.Digest }) {
			in.Keep = append(in.Keep, d)
		}
	}
	if len(in.Annotations) == 0 {
		in.Annotations = more.Annotations
	}
	return clusterimage.Compose(ctx, cs, in)
}

// composition is what a ClusterImage is made of.
func composition(img *clusterimage.Image) clusterimage.Composition {
	in := clusterimage.Composition{Images: img.Images, Annotations: img.Index.Annotations, Keep: slices.Clone(img.Foreign)}
	for _, r := range img.Rootfs {
		d := r.Descriptor
		p := r.Platform
		d.Platform = &p
		in.Rootfs = append(in.Rootfs, d)
	}
	return in
}

// NoEntryError says that an index has no such entry.
type NoEntryError struct {
	List, Entry string
	// Have are the entries it has, by platform and digest.
	Have []string
}

func (e *NoEntryError) Error() string {
	return fmt.Sprintf("%s has no entry %q, it has %s", e.List, e.Entry, strings.Join(e.Have, ", "))
}

// find picks an entry by its platform or its digest. Entries of packed images,
// lists and attestations are none that a user picks.
func find(list store.Tagged, index ocispec.Index, entry string) (int, error) {
	want, err := platforms.Parse(entry)
	byPlatform := err == nil && strings.Contains(entry, "/")
	no := &NoEntryError{List: list.Name, Entry: entry}
	for i, d := range index.Manifests {
		role := d.Annotations[clusterimage.AnnotationRole]
		if isAttestation(d) || role != "" && role != clusterimage.RoleRootfs {
			continue
		}
		text := d.Digest.String()
		if d.Platform != nil {
			text = platforms.FormatAll(*d.Platform) + " (" + text + ")"
		}
		no.Have = append(no.Have, text)
		if d.Digest.String() == entry || byPlatform && samePlatform(d.Platform, &want) {
			return i, nil
		}
	}
	return 0, no
}

// Annotate writes the index list with one entry, named by platform or digest,
// changed. Of a ClusterImage only annotations can be changed.
func Annotate(ctx context.Context, cs content.Store, list store.Tagged, entry string, e Entry) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, cs, list.Descriptor, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("annotating %s: %w", list.Name, err)
	}
	i, err := find(list, index, entry)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("annotating %s: %w", list.Name, err)
	}
	if clusterimage.IsClusterImage(index) {
		if err := e.check(); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("annotating %s: %w", list.Name, err)
		}
	}
	index.Manifests[i] = e.apply(index.Manifests[i])
	return writeIndex(ctx, cs, index)
}

// Remove writes the index list without one entry, named by platform or digest,
// and without what is attested of it; of a ClusterImage, without its packed
// images, too.
func Remove(ctx context.Context, cs content.Store, list store.Tagged, entry string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, cs, list.Descriptor, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("removing from %s: %w", list.Name, err)
	}
	i, err := find(list, index, entry)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("removing from %s: %w", list.Name, err)
	}
	gone := index.Manifests[i]
	isGone := func(d ocispec.Descriptor) bool {
		return d.Digest == gone.Digest || digest.Digest(d.Annotations[referenceDigest]) == gone.Digest
	}
	if !clusterimage.IsClusterImage(index) {
		index.Manifests = slices.DeleteFunc(index.Manifests, isGone)
		return writeIndex(ctx, cs, index)
	}
	img, err := clusterimage.Read(ctx, cs, list.Descriptor)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("removing from %s: %w", list.Name, err)
	}
	in := composition(img)
	in.Rootfs = slices.DeleteFunc(in.Rootfs, isGone)
	in.Keep = slices.DeleteFunc(in.Keep, isGone)
	if len(in.Rootfs) == 0 {
		return NewIndex(ctx, cs)
	}
	platform := platforms.Format(platforms.Normalize(*gone.Platform))
	in.Images = slices.DeleteFunc(slices.Clone(in.Images), func(p clusterimage.PackedImage) bool { return p.Platform == platform })
	return clusterimage.Compose(ctx, cs, in)
}
