// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadBlob reads a manifest, config or list of at most 32 MiB and verifies its
// digest. Absent content is an errdefs.ErrNotFound.
func ReadBlob(ctx context.Context, p content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	return readBlob(ctx, p, desc, maxManifest)
}

func readBlob(ctx context.Context, p content.Provider, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("reading %q: %w", desc.Digest, err)
	}
	ra, err := p.ReaderAt(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	defer ra.Close()
	if ra.Size() > limit {
		return nil, fmt.Errorf("reading %s: it has %d bytes, more than %d", desc.Digest, ra.Size(), limit)
	}
	data := make([]byte, ra.Size())
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, ra.Size()), data); err != nil {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, &DigestError{Want: desc.Digest, Got: got})
	}
	return data, nil
}

// ReadJSON reads a document as ReadBlob does and decodes it into v.
func ReadJSON(ctx context.Context, p content.Provider, desc ocispec.Descriptor, v any) error {
	data, err := ReadBlob(ctx, p, desc)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	return nil
}

// Read reads the index that desc names, with the documents of every platform
// that the provider has. Images of older tools are read as if they were ClusterImages, see Image.Older;
// another kind of image is a *NotClusterImageError.
func Read(ctx context.Context, p content.Provider, desc ocispec.Descriptor) (*Image, error) {
	index, err := ReadIndex(ctx, p, desc)
	if errors.Is(err, ErrNotClusterImage) {
		if img, ok, olderErr := readOlder(ctx, p, desc); ok || olderErr != nil && !errdefs.IsNotFound(olderErr) {
			return img, olderErr
		}
	}
	if err != nil {
		return nil, err
	}
	img := &Image{Descriptor: desc, Index: index}
	for _, d := range index.Manifests {
		switch d.Annotations[AnnotationRole] {
		case RoleRootfs:
			r, err := readRootfs(ctx, p, d)
			if err != nil {
				return nil, fmt.Errorf("reading ClusterImage %s: %w", desc.Digest, err)
			}
			img.Rootfs = append(img.Rootfs, r)
		case RoleImageList:
			list, err := readImageList(ctx, p, d)
			if errdefs.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("reading ClusterImage %s: %w", desc.Digest, err)
			}
			img.Images = append(img.Images, list.packed()...)
		case RoleContainerImage:
		default:
			img.Foreign = append(img.Foreign, d)
		}
	}
	slices.SortFunc(img.Images, compareImages)
	return img, nil
}

// ReadIndex reads and checks only the index document of a ClusterImage.
func ReadIndex(ctx context.Context, p content.Provider, desc ocispec.Descriptor) (ocispec.Index, error) {
	var index ocispec.Index
	if IsManifest(desc.MediaType) {
		return index, &NotClusterImageError{Descriptor: desc, Kind: "an image manifest"}
	}
	if err := ReadJSON(ctx, p, desc, &index); err != nil {
		return index, err
	}
	if !IsClusterImage(index) {
		kind := "an image index"
		if len(index.Manifests) == 0 {
			kind = "an image manifest"
		}
		return index, &NotClusterImageError{Descriptor: desc, Kind: kind}
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return index, fmt.Errorf("reading ClusterImage %s: entry %q: %w", desc.Digest, d.Digest, err)
		}
	}
	return index, nil
}

// IsClusterImage tells whether an index is a ClusterImage: by its artifactType
// or, where a tool dropped that field, by the role of an entry.
func IsClusterImage(index ocispec.Index) bool {
	return index.ArtifactType == ArtifactType || slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		return d.Annotations[AnnotationRole] == RoleRootfs
	})
}

func readRootfs(ctx context.Context, p content.Provider, d ocispec.Descriptor) (Rootfs, error) {
	r := Rootfs{Descriptor: d}
	if d.Platform != nil {
		r.Platform = *d.Platform
	}
	err := ReadJSON(ctx, p, d, &r.Manifest)
	if err == nil {
		err = ReadJSON(ctx, p, r.Manifest.Config, &r.Config)
	}
	if errdefs.IsNotFound(err) {
		r.Manifest, r.Absent = ocispec.Manifest{}, true
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("rootfs: %w", err)
	}
	if d.Platform == nil {
		r.Platform = r.Config.Platform
	}
	if label, ok := r.Config.Config.Labels[LabelExtension]; ok {
		if r.Extension, err = ParseExtension([]byte(label)); err != nil {
			return r, fmt.Errorf("rootfs %s: %w", d.Digest, err)
		}
	}
	return r, nil
}

func readImageList(ctx context.Context, p content.Provider, d ocispec.Descriptor) (imageList, error) {
	var m ocispec.Manifest
	if err := ReadJSON(ctx, p, d, &m); err != nil {
		return imageList{}, fmt.Errorf("image list: %w", err)
	}
	for _, l := range m.Layers {
		if l.MediaType != ImageListArtifactType {
			continue
		}
		data, err := readBlob(ctx, p, l, maxImageList)
		if err != nil {
			return imageList{}, fmt.Errorf("image list %s: %w", d.Digest, err)
		}
		return parseImageList(data)
	}
	return imageList{}, fmt.Errorf("image list %s has no layer of type %s", d.Digest, ImageListArtifactType)
}

// ReadImageList reads the packed images out of the image list manifest that d
// names. It needs the manifest and its first layer.
func ReadImageList(ctx context.Context, p content.Provider, d ocispec.Descriptor) ([]PackedImage, error) {
	list, err := readImageList(ctx, p, d)
	if err != nil {
		return nil, err
	}
	return list.packed(), nil
}
