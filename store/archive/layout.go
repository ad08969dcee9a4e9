// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// annotationContainerdName is where containerd, docker and nerdctl put the full name.
const annotationContainerdName = "io.containerd.image.name"

// blobName is where a layout has a blob.
func blobName(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// layout finds the images of an OCI layout. names are those that docker save's list has, by the digest of the config.
func (a *Archive) layout(ctx context.Context, data []byte, names map[digest.Digest][]string) ([]Image, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	var out []Image
	for _, d := range index.Manifests {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		found, err := a.entryImages(d)
		if err != nil {
			return nil, err
		}
		for _, image := range found {
			known := layoutNames(d.Annotations)
			if len(known) == 0 {
				known = names[image.Config.Digest]
			}
			if len(known) == 0 {
				known = []string{""}
			}
			for _, name := range known {
				image.Name, image.Tag = name, layoutTag(d.Annotations)
				out = append(out, image)
			}
		}
	}
	if len(out) == 0 {
		return nil, &FormatError{ocispec.ImageIndexFile + " names no image that is in it"}
	}
	// A name and a platform stand for one image; that it is listed twice says nothing new.
	return slices.CompactFunc(out, func(x, y Image) bool {
		return x.Name != "" && x.Name == y.Name && x.Manifest.Digest == y.Manifest.Digest
	}), nil
}

// layoutNames are the names in an entry's annotations. Many programs write only a tag there, which is no name.
func layoutNames(annotations map[string]string) []string {
	if name := fullName(annotations[annotationContainerdName]); name != "" {
		return []string{name}
	}
	if ref := annotations[ocispec.AnnotationRefName]; strings.ContainsAny(ref, "/:") {
		if name := fullName(ref); name != "" {
			return []string{name}
		}
	}
	return nil
}

// layoutTag is the tag in an entry's annotations that has no name before it.
func layoutTag(annotations map[string]string) string {
	if ref := annotations[ocispec.AnnotationRefName]; !strings.ContainsAny(ref, "/:@") {
		return ref
	}
	return ""
}

// entryImages are the images that an entry of index.json stands for: one for each platform whose manifest is there.
func (a *Archive) entryImages(d ocispec.Descriptor) ([]Image, error) {
	if clusterimage.IsManifest(d.MediaType) {
		image, err := a.image(d)
		if err != nil {
			return nil, err
		}
		return []Image{image}, nil
	}
	if !clusterimage.IsIndex(d.MediaType) {
		return nil, nil // signatures and the like
	}
	data, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index %s: %w", d.Digest, err)
	}
	top := bare(d)
	var out []Image
	for _, child := range index.Manifests {
		if !clusterimage.IsManifest(child.MediaType) || attestation(child) || child.Digest.Validate() != nil {
			continue
		}
		if _, ok := a.entries[blobName(child.Digest)]; !ok {
			continue // another platform, which was not saved
		}
		image, err := a.image(child)
		if err != nil {
			return nil, err
		}
		image.Index = &top
		if child.Platform != nil && child.Platform.Architecture != "" {
			image.Platform = platforms.Normalize(*child.Platform)
		}
		out = append(out, image)
	}
	return out, nil
}

// image reads a manifest and its config.
func (a *Archive) image(d ocispec.Descriptor) (Image, error) {
	data, err := a.blob(d)
	if err != nil {
		return Image{}, err
	}
	image := Image{Manifest: bare(d)}
	if err := json.Unmarshal(data, &image.parsed); err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, b := range append([]ocispec.Descriptor{image.parsed.Config}, image.parsed.Layers...) {
		if err := b.Digest.Validate(); err != nil || b.Size < 0 {
			return Image{}, fmt.Errorf("manifest %s: blob %q of %d bytes", d.Digest, b.Digest, b.Size)
		}
	}
	image.Config = bare(image.parsed.Config)
	config, err := a.blob(image.Config)
	if err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	image.Platform, err = configPlatform(config)
	return image, err
}

func configPlatform(config []byte) (ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return p, fmt.Errorf("the config is no JSON: %w", err)
	}
	return platforms.Normalize(p), nil
}

// blob is a document, verified.
func (a *Archive) blob(d ocispec.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d.Digest, err)
	}
	data, err := a.document(blobName(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return nil, &clusterimage.DigestError{Want: d.Digest, Got: got}
	}
	return data, nil
}

// attestation tells whether an entry says something about an image and is none.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
func attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

// bare keeps of a descriptor what identifies the bytes.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
