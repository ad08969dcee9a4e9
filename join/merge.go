// SPDX-License-Identifier: Apache-2.0

// Package join makes one image of several: ClusterImages stacked upon one
// another, and indexes of images for several platforms.
package join

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// MergeOptions say how images are merged.
type MergeOptions struct {
	// Platforms of the merged image; none means all that the images have, which
	// are the same for each.
	Platforms []ocispec.Platform
	// Last settles conflicts in favour of the later image. Different
	// distributions or versions of Kubernetes remain an error.
	Last bool
}

// Merge makes one ClusterImage of several and returns its descriptor, without a
// tag. For each platform the rootfs' layers are stacked in the order of the
// images, those that one shares with an earlier one once; applications,
// commands and variables are joined in that order, and packed images united.
// Metadata and lists of images are joined in a layer on top. No layer is
// written again. Attestations are not taken over: they are about the parts.
//
// All in which the images disagree is one *ConflictError.
func Merge(ctx context.Context, cs content.Store, images []store.Tagged, o MergeOptions) (ocispec.Descriptor, error) {
	if len(images) < 2 {
		return ocispec.Descriptor{}, fmt.Errorf("merging images: there are %d, not two or more", len(images))
	}
	m := &merger{cs: cs, last: o.Last, layers: map[digest.Digest]tree{}}
	for _, t := range images {
		img, err := clusterimage.Read(ctx, cs, t.Descriptor)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("merging %s: %w", t.Name, err)
		}
		m.images = append(m.images, member{name: t.Name, Image: img})
	}
	want, err := m.platforms(o.Platforms)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var in clusterimage.Composition
	for _, p := range want {
		rootfs, err := m.rootfs(ctx, p)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("merging for %s: %w", platforms.Format(p), err)
		}
		in.Rootfs = append(in.Rootfs, rootfs)
		in.Images = append(in.Images, m.packed(p)...)
	}
	if err := m.verdict(); err != nil {
		return ocispec.Descriptor{}, err
	}
	return clusterimage.Compose(ctx, cs, in)
}

// merger is one merge.
type merger struct {
	cs     content.Store
	last   bool
	images []member
	layers map[digest.Digest]tree // what was read of layers
	found  []Conflict
	final  []Conflict
}

type member struct {
	name string
	*clusterimage.Image
}

func (m *merger) conflict(kind, what, first, second string) {
	c := Conflict{Kind: kind, What: what, First: first, Second: second}
	if !slices.Contains(m.found, c) {
		m.found = append(m.found, c)
	}
}

// finally notes a conflict that no preference settles.
func (m *merger) finally(kind, what, first, second string) {
	c := Conflict{Kind: kind, What: what, First: first, Second: second}
	if !slices.Contains(m.final, c) {
		m.final = append(m.final, c)
	}
}

func (m *merger) verdict() error {
	if len(m.final) > 0 {
		return &ConflictError{Conflicts: append(m.final, m.found...), Final: true}
	}
	if len(m.found) > 0 && !m.last {
		return &ConflictError{Conflicts: m.found}
	}
	return nil
}

// platforms are those of the merged image.
func (m *merger) platforms(want []ocispec.Platform) ([]ocispec.Platform, error) {
	if len(want) > 0 {
		return want, nil
	}
	first := m.images[0].names()
	for _, img := range m.images[1:] {
		if have := img.names(); !slices.Equal(first, have) {
			m.finally("platform", "of the images", m.images[0].name+" has "+strings.Join(first, ", "), img.name+" has "+strings.Join(have, ", "))
		}
	}
	if len(m.final) > 0 {
		return nil, &platformsError{ConflictError{Conflicts: m.final}}
	}
	for _, r := range m.images[0].Rootfs {
		want = append(want, r.Platform)
	}
	return want, nil
}

// platformsError has another hint.
type platformsError struct{ ConflictError }

func (e *platformsError) Unwrap() error { return &e.ConflictError }

// Hint tells the user what to do.
func (e *platformsError) Hint() string { return "choose with --platform what all of them have" }

// names are an image's platforms, sorted.
func (img member) names() []string {
	var out []string
	for _, r := range img.Rootfs {
		out = append(out, platforms.Format(platforms.Normalize(r.Platform)))
	}
	slices.Sort(out)
	return out
}

// packed unites the packed images of a platform.
func (m *merger) packed(p ocispec.Platform) []clusterimage.PackedImage {
	type owned struct {
		clusterimage.PackedImage
		owner string
	}
	platform := platforms.Format(platforms.Normalize(p))
	byName := map[string]owned{}
	var out []clusterimage.PackedImage
	for _, img := range m.images {
		for _, pi := range img.Images {
			if pi.Platform != platform {
				continue
			}
			have, ok := byName[pi.Name]
			if ok && have.Manifest.Digest != pi.Manifest.Digest {
				m.conflict("image", pi.Name+" ("+platform+")", have.owner+" has "+have.Manifest.Digest.String(), img.name+" has "+pi.Manifest.Digest.String())
				out = slices.DeleteFunc(out, func(o clusterimage.PackedImage) bool { return o.Name == pi.Name })
			}
			byName[pi.Name] = owned{pi, img.name}
			out = append(out, pi)
		}
	}
	return out
}
