// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Descriptors lists every blob that the image needs on the given platforms (all
// of them where none is given), each once: the index, then for each platform
// the rootfs, the image list, and every packed image with its source index.
// Documents come before the layers that they name. It needs the documents in p,
// not the layers. Attestations go with the rootfs that they speak of; unknown entries are listed only with all platforms.
func (img *Image) Descriptors(ctx context.Context, p content.Provider, want []ocispec.Platform) ([]ocispec.Descriptor, error) {
	s := descriptorSet{seen: map[digest.Digest]bool{}}
	if !IsManifest(img.Descriptor.MediaType) { // of an older tool, and then among the entries
		s.add(img.Descriptor)
	}
	chosen, err := img.choose(want)
	if err != nil {
		return nil, err
	}
	for _, d := range img.Index.Manifests {
		if !chosen(d) {
			continue
		}
		if err := s.addImage(ctx, p, d); err != nil {
			return nil, err
		}
		if d.Annotations[AnnotationRole] != RoleImageList {
			continue
		}
		images, err := ReadImageList(ctx, p, d)
		if err != nil {
			return nil, err
		}
		for _, pi := range images {
			if pi.Index != nil {
				s.add(*pi.Index)
			}
			if err := s.addImage(ctx, p, pi.Manifest); err != nil {
				return nil, fmt.Errorf("image %s: %w", pi.Name, err)
			}
		}
	}
	return append(s.documents, s.layers...), nil
}

// choose says which index entries belong to the wanted platforms. Container
// images are reached through their image list, by all their platforms.
func (img *Image) choose(want []ocispec.Platform) (func(ocispec.Descriptor) bool, error) {
	if len(want) == 0 {
		return func(ocispec.Descriptor) bool { return true }, nil
	}
	rootfs := map[digest.Digest]bool{}
	lists := map[string]bool{}
	for _, w := range want {
		r, err := img.Platform(w)
		if err != nil {
			return nil, err
		}
		rootfs[r.Descriptor.Digest] = true
		lists[platforms.Format(platforms.Normalize(r.Platform))] = true
	}
	return func(d ocispec.Descriptor) bool {
		switch d.Annotations[AnnotationRole] {
		case RoleRootfs:
			return rootfs[d.Digest]
		case RoleImageList:
			return lists[d.Annotations[AnnotationPlatform]]
		}
		return rootfs[About(d)]
	}, nil
}

type descriptorSet struct {
	seen              map[digest.Digest]bool
	documents, layers []ocispec.Descriptor
}

func (s *descriptorSet) add(d ocispec.Descriptor) {
	if !s.seen[d.Digest] {
		s.seen[d.Digest] = true
		s.documents = append(s.documents, d)
	}
}

// addImage adds a manifest with its config and layers; other media types only themselves.
func (s *descriptorSet) addImage(ctx context.Context, p content.Provider, d ocispec.Descriptor) error {
	if s.seen[d.Digest] {
		return nil
	}
	s.add(d)
	if !IsManifest(d.MediaType) {
		return nil
	}
	var m ocispec.Manifest
	if err := ReadJSON(ctx, p, d, &m); err != nil {
		return err
	}
	s.add(m.Config)
	for _, l := range m.Layers {
		if !s.seen[l.Digest] && Distributable(l) {
			s.seen[l.Digest] = true
			s.layers = append(s.layers, l)
		}
	}
	return nil
}

// Distributable tells whether a layer travels with its image. Layers that live
// at a URL of their owner (old Windows bases) do not.
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#non-distributable-layers
func Distributable(l ocispec.Descriptor) bool {
	switch l.MediaType {
	case "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return false
	}
	return true
}
