// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations by which BuildKit ties an attestation to a manifest of the index.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
)

// Select writes the index of an image with some of its platforms only, and what
// is attested of those, and returns its descriptor: another digest, unless the
// image has no other platform. It needs the documents of these platforms.
// An image without an index is returned as it is, if it is for the platform.
// The error for what the image does not have is a *PlatformError.
func Select(ctx context.Context, cs content.Store, desc ocispec.Descriptor, want []ocispec.Platform) (ocispec.Descriptor, error) {
	if len(want) == 0 {
		return desc, nil
	}
	if IsManifest(desc.MediaType) {
		return desc, matches(ctx, cs, desc, want)
	}
	img, err := Read(ctx, cs, desc)
	if err == nil {
		return img.selectPlatforms(ctx, cs, want)
	}
	if !errors.Is(err, ErrNotClusterImage) {
		return ocispec.Descriptor{}, err
	}
	return selectEntries(ctx, cs, desc, want)
}

func matches(ctx context.Context, cs content.Provider, desc ocispec.Descriptor, want []ocispec.Platform) error {
	var m ocispec.Manifest
	if err := ReadJSON(ctx, cs, desc, &m); err != nil {
		return err
	}
	var have ocispec.Platform
	if err := ReadJSON(ctx, cs, m.Config, &have); err != nil {
		return err
	}
	for _, w := range want {
		if have.Architecture != "" && !Matcher(w).Match(have) {
			return &PlatformError{
				Image: desc.Digest.String(), Want: platforms.Format(platforms.Normalize(w)),
				Have: []string{platforms.Format(platforms.Normalize(have))},
			}
		}
	}
	return nil
}

func (img *Image) selectPlatforms(ctx context.Context, cs content.Store, want []ocispec.Platform) (ocispec.Descriptor, error) {
	in := Composition{Annotations: img.Index.Annotations}
	chosen := map[digest.Digest]bool{}
	names := map[string]bool{}
	for _, w := range want {
		r, err := img.Platform(w)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if !chosen[r.Descriptor.Digest] {
			chosen[r.Descriptor.Digest] = true
			d := r.Descriptor
			d.Platform = &r.Platform
			in.Rootfs = append(in.Rootfs, d)
			names[platforms.Format(platforms.Normalize(r.Platform))] = true
		}
	}
	if len(chosen) == len(img.Rootfs) {
		return img.Descriptor, nil
	}
	for _, p := range img.Images {
		if names[p.Platform] {
			in.Images = append(in.Images, p)
		}
	}
	in.Keep = attested(img.Foreign, chosen)
	return Compose(ctx, cs, in)
}

// attested are the entries that say something of the chosen manifests.
func attested(entries []ocispec.Descriptor, chosen map[digest.Digest]bool) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, d := range entries {
		if chosen[digest.Digest(d.Annotations[annotationReferenceDigest])] {
			out = append(out, d)
		}
	}
	return out
}

// selectEntries makes an index of some entries of an ordinary one.
func selectEntries(ctx context.Context, cs content.Store, desc ocispec.Descriptor, want []ocispec.Platform) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := ReadJSON(ctx, cs, desc, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	chosen := map[digest.Digest]bool{}
	for _, w := range want {
		d, err := ChooseEntry(desc, index, w)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		chosen[d.Digest] = true
	}
	all := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(slices.Clone(index.Manifests), func(d ocispec.Descriptor) bool {
		return !chosen[d.Digest] && !chosen[digest.Digest(d.Annotations[annotationReferenceDigest])]
	})
	if len(index.Manifests) == all {
		return desc, nil
	}
	out, err := writeDocument(ctx, cs, desc.MediaType, bytes.TrimRight(mustJSON(index), "\n"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("selecting platforms: %w", err)
	}
	return out, nil
}

// ChooseEntry picks the best entry of an ordinary index for a platform, by
// what the entries say of themselves. The error is a *PlatformError.
func ChooseEntry(desc ocispec.Descriptor, index ocispec.Index, want ocispec.Platform) (ocispec.Descriptor, error) {
	match := Matcher(want)
	var (
		best *ocispec.Descriptor
		have []string
	)
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" || d.Annotations[annotationReferenceType] != "" {
			continue
		}
		have = append(have, platforms.Format(platforms.Normalize(*d.Platform)))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &d
		}
	}
	if best == nil {
		slices.Sort(have)
		return ocispec.Descriptor{}, &PlatformError{
			Image: desc.Digest.String(), Want: platforms.Format(platforms.Normalize(want)), Have: slices.Compact(have),
		}
	}
	return *best, nil
}
