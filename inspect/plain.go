// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// plain describes an ordinary image: its platforms.
func (d *Description) plain(ctx context.Context, s *Subject) error {
	list := []ocispec.Descriptor{s.Descriptor}
	if clusterimage.IsIndex(s.Descriptor.MediaType) {
		var index ocispec.Index
		if err := clusterimage.ReadJSON(ctx, s.Content, s.Descriptor, &index); err != nil {
			return err
		}
		list, d.Annotations = index.Manifests, index.Annotations
	}
	for _, desc := range list {
		if !clusterimage.IsManifest(desc.MediaType) || desc.Annotations[annotationReferenceDigest] != "" {
			continue
		}
		row, ok, err := s.plainPlatform(ctx, desc)
		if err != nil {
			return err
		}
		if ok {
			d.Rootfs = append(d.Rootfs, row)
		}
	}
	return nil
}

// plainPlatform is one of them; ok is false for what is no container image but uses the same documents, as signatures do.
func (s *Subject) plainPlatform(ctx context.Context, desc ocispec.Descriptor) (_ Rootfs, ok bool, err error) {
	var m ocispec.Manifest
	var config ocispec.Image
	if err = clusterimage.ReadJSON(ctx, s.Content, desc, &m); err == nil {
		if !isImageConfig(m.Config.MediaType) {
			return Rootfs{}, false, nil
		}
		err = clusterimage.ReadJSON(ctx, s.Content, m.Config, &config)
	}
	if errdefs.IsNotFound(err) && desc.Platform != nil {
		return absentRootfs(*desc.Platform, desc), true, nil
	}
	if err != nil {
		return Rootfs{}, false, err
	}
	platform := config.Platform
	if desc.Platform != nil {
		platform = *desc.Platform
	}
	return newRootfs(platform, desc, m, config), true, nil
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}

func absentRootfs(platform ocispec.Platform, desc ocispec.Descriptor) Rootfs {
	return Rootfs{Platform: platforms.Format(platform), Digest: desc.Digest.String(), Absent: true, Layers: []ocispec.Descriptor{}}
}
