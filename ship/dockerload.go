// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxConfig bounds a config in Docker's format, in bytes.
const maxConfig = 32 << 20

// docker reads an archive in Docker's own format. Layers are kept as they
// stand in it; a manifest is made for each image.
func (l *loader) docker(ctx context.Context, s *source, items []item) ([]imageEntry, error) {
	list, _ := file(items, dockerFile)
	data, err := s.document(list, maxIndex)
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, s.wrong(list.name, list.at, list.size, err)
	}
	var out []imageEntry
	for _, img := range images {
		desc, err := l.dockerManifest(ctx, s, items, img)
		if err != nil {
			return nil, err
		}
		names := img.RepoTags
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			out = append(out, imageEntry{name: name, desc: desc, whole: true})
		}
	}
	if len(out) == 0 {
		return nil, s.wrong(list.name, list.at, list.size, errors.New("it names no image"))
	}
	return out, nil
}

func (l *loader) dockerManifest(ctx context.Context, s *source, items []item, img dockerImage) (ocispec.Descriptor, error) {
	it, ok := dockerEntry(items, img.Config)
	if !ok {
		return ocispec.Descriptor{}, &ForeignError{Archive: l.name, Why: fmt.Sprintf("the config %q is not in it", img.Config)}
	}
	data, err := s.document(it, maxConfig)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, err)
	}
	if len(config.RootFS.DiffIDs) != len(img.Layers) {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, fmt.Errorf("it has %d layers, the archive names %d", len(config.RootFS.DiffIDs), len(img.Layers)))
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	if m.Config, err = l.put(ctx, ocispec.MediaTypeImageConfig, data); err != nil {
		return ocispec.Descriptor{}, err
	}
	for i, name := range img.Layers {
		it, ok := dockerEntry(items, name)
		if !ok {
			return ocispec.Descriptor{}, &ForeignError{Archive: l.name, Why: fmt.Sprintf("the layer %q is not in it", name)}
		}
		d, err := l.dockerLayer(ctx, s, it, config.RootFS.DiffIDs[i])
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	encoded, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("loading %q: %w", l.name, err)
	}
	return l.put(ctx, m.MediaType, encoded)
}

// dockerEntry finds a file; of several images, shared layers are links.
func dockerEntry(items []item, name string) (item, bool) {
	name = path.Clean(name)
	for range 8 { // links that lead to links
		it, ok := file(items, name)
		if ok {
			return it, true
		}
		i := indexOf(items, name)
		if i < 0 {
			return item{}, false
		}
		switch items[i].kind {
		case tar.TypeSymlink:
			name = path.Join(path.Dir(name), items[i].link)
		case tar.TypeLink:
			name = path.Clean(items[i].link)
		default:
			return item{}, false
		}
	}
	return item{}, false
}

func indexOf(items []item, name string) int {
	for i, it := range items {
		if it.name == name {
			return i
		}
	}
	return -1
}

// dockerLayer stores a layer. Its digest is in no document of the archive
// unless it is a plain tar: it is read once to find it.
func (l *loader) dockerLayer(ctx context.Context, s *source, it item, diff digest.Digest) (ocispec.Descriptor, error) {
	section := io.NewSectionReader(s, it.data, it.size)
	plain, err := decompress(section)
	if err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diff, Size: it.size}
	if err := diff.Validate(); err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, err)
	}
	if plain == nil {
		return desc, l.blobAt(ctx, s, it, diff)
	}
	defer plain.Close()
	head := make([]byte, 2)
	if _, err := s.ReadAt(head, it.data); err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, cut(err))
	}
	desc.MediaType = ocispec.MediaTypeImageLayerZstd
	if string(head) == magicGzip {
		desc.MediaType = ocispec.MediaTypeImageLayerGzip
	}
	unpacked := diff.Algorithm().Digester()
	if _, err := io.Copy(unpacked.Hash(), &waiting{ctx: ctx, r: plain}); err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, cut(err))
	}
	if unpacked.Digest() != diff {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, fmt.Errorf("unpacked it has the digest %s, not %s", unpacked.Digest(), diff))
	}
	whole := digest.Canonical.Digester()
	if _, err := io.Copy(whole.Hash(), &waiting{ctx: ctx, r: io.NewSectionReader(s, it.data, it.size)}); err != nil {
		return ocispec.Descriptor{}, s.wrong(it.name, it.at, it.size, cut(err))
	}
	desc.Digest = whole.Digest()
	return desc, l.blobAt(ctx, s, it, desc.Digest)
}

// put stores a document.
func (l *loader) put(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(ctx, l.st.Content(), "document-"+desc.Digest.String(), bytes.NewReader(data), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, fmt.Errorf("loading %q: %w", l.name, err)
	}
	return desc, nil
}
