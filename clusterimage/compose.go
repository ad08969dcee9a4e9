// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Composition is what a ClusterImage is made of.
type Composition struct {
	// Rootfs are the manifests of the rootfs, one for each platform, each with
	// its Platform set. At least one.
	Rootfs []ocispec.Descriptor
	// Images are the packed images of every platform, in any order. Their
	// manifests, configs and source indexes are in the store.
	Images []PackedImage
	// Annotations go to the index.
	Annotations map[string]string
	// Keep are entries added as they stand, in this order: attestations.
	Keep []ocispec.Descriptor
}

// Compose writes the image lists, the documents layers and the index into cs
// and returns the index's descriptor. It is deterministic: the same
// composition gives the same digest, in whatever order it is listed. It does
// not tag. No layer of any image is read.
func Compose(ctx context.Context, cs content.Store, in Composition) (ocispec.Descriptor, error) {
	if len(in.Rootfs) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("composing a ClusterImage: it has no rootfs")
	}
	entries, err := rootfsEntries(in.Rootfs)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("composing a ClusterImage: %w", err)
	}
	images, _, err := ComposeImages(ctx, cs, in.Images)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("composing a ClusterImage: %w", err)
	}
	entries = append(entries, images...)
	entries = append(entries, in.Keep...)

	index := ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageIndex,
		ArtifactType: ArtifactType,
		Manifests:    once(entries),
		Annotations:  in.Annotations,
	}
	desc, err := writeDocument(ctx, cs, ocispec.MediaTypeImageIndex, bytes.TrimRight(mustJSON(index), "\n"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("composing a ClusterImage: %w", err)
	}
	desc.ArtifactType = ArtifactType
	return desc, nil
}

// ComposeImages writes the image lists and documents layers of packed images into cs. It returns the index entries of
// the lists and of the images, and the images themselves: sorted, each name and platform once.
func ComposeImages(ctx context.Context, cs content.Store, in []PackedImage) ([]ocispec.Descriptor, []PackedImage, error) {
	images, err := mergeImages(in)
	if err != nil {
		return nil, nil, err
	}
	entries, err := writeImageLists(ctx, cs, images)
	if err != nil {
		return nil, nil, err
	}
	return append(entries, containerImageEntries(images)...), images, nil
}

func rootfsEntries(rootfs []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var entries []ocispec.Descriptor
	seen := map[string]bool{}
	for _, d := range rootfs {
		if d.Platform == nil || d.Platform.OS == "" || d.Platform.Architecture == "" {
			return nil, fmt.Errorf("rootfs %s has no platform", d.Digest)
		}
		p := platforms.FormatAll(platforms.Normalize(*d.Platform))
		if seen[p] {
			return nil, fmt.Errorf("there are two rootfs for %s", p)
		}
		seen[p] = true
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		// An exporter leaves the tag here; it is not part of the content.
		delete(d.Annotations, AnnotationName)
		delete(d.Annotations, "io.containerd.image.name")
		delete(d.Annotations, ocispec.AnnotationCreated)
		d.Annotations[AnnotationRole] = RoleRootfs
		entries = append(entries, d)
	}
	slices.SortFunc(entries, func(a, b ocispec.Descriptor) int {
		return cmp.Compare(platforms.FormatAll(*a.Platform), platforms.FormatAll(*b.Platform))
	})
	return entries, nil
}

// mergeImages sorts, and joins what is listed more than once.
func mergeImages(images []PackedImage) ([]PackedImage, error) {
	sorted := slices.Clone(images)
	slices.SortStableFunc(sorted, compareImages)
	var out []PackedImage
	for _, p := range sorted {
		if p.Name == "" || p.Platform == "" {
			return nil, fmt.Errorf("image %s (%s) lacks a name or a platform", p.Name, p.Manifest.Digest)
		}
		p.Origins = slices.Clone(p.Origins)
		if n := len(out); n > 0 && compareImages(out[n-1], p) == 0 {
			last := &out[n-1]
			if last.Manifest.Digest != p.Manifest.Digest {
				return nil, fmt.Errorf("image %s for %s is both %s and %s", p.Name, p.Platform, last.Manifest.Digest, p.Manifest.Digest)
			}
			last.Origins = append(last.Origins, p.Origins...)
			last.App = cmp.Or(last.App, p.App)
			continue
		}
		out = append(out, p)
	}
	for i := range out {
		slices.Sort(out[i].Origins)
		out[i].Origins = slices.Compact(out[i].Origins)
	}
	return out, nil
}

func writeImageLists(ctx context.Context, cs content.Store, images []PackedImage) ([]ocispec.Descriptor, error) {
	byPlatform := map[string][]PackedImage{}
	for _, p := range images {
		byPlatform[p.Platform] = append(byPlatform[p.Platform], p)
	}
	var out []ocispec.Descriptor
	for _, platform := range slices.Sorted(maps.Keys(byPlatform)) {
		d, err := writeImageList(ctx, cs, platform, byPlatform[platform])
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func writeImageList(ctx context.Context, cs content.Store, platform string, images []PackedImage) (ocispec.Descriptor, error) {
	docs := map[digest.Digest][]byte{}
	for _, p := range images {
		if err := collectDocuments(ctx, cs, p, docs); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("image %s for %s: %w", p.Name, p.Platform, err)
		}
	}
	packed, err := writeDocuments(docs)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	list, err := writeDocument(ctx, cs, ImageListArtifactType, mustJSON(newImageList(platform, images)))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	documents, err := writeDocument(ctx, cs, DocumentsMediaType, packed)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := writeDocument(ctx, cs, ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ImageListArtifactType,
		Config:       config,
		Layers:       []ocispec.Descriptor{list, documents},
	}
	d, err := writeDocument(ctx, cs, ocispec.MediaTypeImageManifest, bytes.TrimRight(mustJSON(m), "\n"))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	// No artifactType in the entry: skopeo 1.9 drops it from an index that it
	// copies, and so changes the digest. The platform is the one that tools skip
	// when they look for theirs, as BuildKit's attestations have it.
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{AnnotationRole: RoleImageList, AnnotationPlatform: platform}
	return d, nil
}

func collectDocuments(ctx context.Context, cs content.Provider, p PackedImage, docs map[digest.Digest][]byte) error {
	data, err := ReadBlob(ctx, cs, p.Manifest)
	if err != nil {
		return err
	}
	docs[p.Manifest.Digest] = data
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("reading manifest %s: %w", p.Manifest.Digest, err)
	}
	if docs[m.Config.Digest], err = ReadBlob(ctx, cs, m.Config); err != nil {
		return err
	}
	if p.Index == nil {
		return nil
	}
	docs[p.Index.Digest], err = ReadBlob(ctx, cs, *p.Index)
	return err
}

// containerImageEntries has one entry for each manifest, with the first of its
// names. The entries have no platform: crane and skopeo compare an entry's
// platform with the config's, so it cannot be unknown/unknown; and one that
// matched could be picked instead of the rootfs. Without one, an entry is
// taken only where nothing matches, and the rootfs stands first.
func containerImageEntries(images []PackedImage) []ocispec.Descriptor {
	var entries []ocispec.Descriptor
	for _, p := range images {
		d := bare(p.Manifest)
		d.Annotations = map[string]string{
			AnnotationRole:     RoleContainerImage,
			AnnotationName:     p.Name,
			AnnotationPlatform: p.Platform,
		}
		if p.Index != nil {
			d.Annotations[AnnotationIndex] = p.Index.Digest.String()
		}
		if p.App != "" {
			d.Annotations[AnnotationApp] = p.App
		}
		entries = append(entries, d)
	}
	return entries
}

// once keeps the first entry of each digest: some registries refuse an index
// that names a manifest twice.
func once(entries []ocispec.Descriptor) []ocispec.Descriptor {
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(entries, func(d ocispec.Descriptor) bool {
		dup := seen[d.Digest]
		seen[d.Digest] = true
		return dup
	})
}

// writeDocument stores bytes under their digest; content that is there already is fine.
func writeDocument(ctx context.Context, cs content.Ingester, mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := ingest(ctx, cs, desc, data)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	return desc, nil
}

func ingest(ctx context.Context, cs content.Ingester, desc ocispec.Descriptor, data []byte) error {
	w, err := content.OpenWriter(ctx, cs, content.WithRef("document-"+desc.Digest.String()), content.WithDescriptor(desc))
	if err != nil {
		return err
	}
	defer w.Close() // after Commit there is nothing to close
	// What a power cut left of an earlier try may be damaged.
	if err := w.Truncate(0); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit(ctx, desc.Size, desc.Digest)
}
