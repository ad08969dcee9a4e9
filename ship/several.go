// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// metadataFile is in the archives that sealer 0.9 to 0.11 made of images for
// several platforms: an archive of each, <id>.tar, and the name in this file.
const metadataFile = "Metadata"

// maxName bounds that file, in bytes.
const maxName = 4 << 10

// inner are the archives in an archive.
func inner(items []item) []item {
	var out []item
	for _, it := range items {
		if it.kind == tar.TypeReg && path.Ext(it.name) == ".tar" {
			out = append(out, it)
		}
	}
	return out
}

// several reads an archive of archives and makes an index of their images.
func (l *loader) several(ctx context.Context, s *source, items []item, meta item) ([]imageEntry, error) {
	data, err := s.document(meta, maxName)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(string(data))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, it := range inner(items) {
		images, err := l.platformsOf(ctx, s, it)
		if err != nil {
			return nil, err
		}
		for _, img := range images {
			d, err := l.withPlatform(ctx, img.desc)
			if err != nil {
				return nil, s.wrong(it.name, it.at, 1, err)
			}
			index.Manifests = append(index.Manifests, d)
		}
	}
	encoded, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", l.name, err)
	}
	desc := ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(encoded), Size: int64(len(encoded))}
	err = content.WriteBlob(ctx, l.st.Content(), desc.Digest.String(), bytes.NewReader(encoded), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("loading %q: %w", l.name, err)
	}
	return []imageEntry{{name: name, desc: desc, whole: true}}, nil
}

// withPlatform reads an image's platform from its config.
func (l *loader) withPlatform(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if !clusterimage.IsManifest(d.MediaType) {
		return out, fmt.Errorf("its image has the media type %q", d.MediaType)
	}
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, l.st.Content(), d, &m); err != nil {
		return out, err
	}
	var config ocispec.Image
	if err := clusterimage.ReadJSON(ctx, l.st.Content(), m.Config, &config); err != nil {
		return out, err
	}
	out.Platform = &config.Platform
	return out, nil
}
