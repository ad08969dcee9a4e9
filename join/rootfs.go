// SPDX-License-Identifier: Apache-2.0

package join

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// layer is a layer with what the config says of it.
type layer struct {
	desc    ocispec.Descriptor
	diff    digest.Digest
	history []ocispec.History // its own entry, and those without a layer before it
}

// part is the rootfs of one image for the platform at hand.
type part struct {
	name string
	clusterimage.Rootfs
	layers []layer
}

// rootfs stacks the images' rootfs for a platform and returns the manifest.
func (m *merger) rootfs(ctx context.Context, p ocispec.Platform) (ocispec.Descriptor, error) {
	var parts []part
	for _, img := range m.images {
		r, err := img.Platform(p)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%s: %w", img.name, err)
		}
		if r.Absent {
			return ocispec.Descriptor{}, fmt.Errorf("%s: its rootfs is not in the store: %w", img.name, errdefs.ErrNotFound)
		}
		layers, err := layersOf(r)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%s: %w", img.name, err)
		}
		parts = append(parts, part{name: img.name, Rootfs: r, layers: layers})
	}
	stacked, files, err := m.stack(ctx, parts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config := m.config(parts)
	top, err := m.joinFiles(parts, files, &config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(top) > 0 {
		l, err := m.writeLayer(ctx, top)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		stacked = append(stacked, l)
	}
	return m.writeRootfs(ctx, config, stacked, parts[0].Platform)
}

func layersOf(r clusterimage.Rootfs) ([]layer, error) {
	diffs := r.Config.RootFS.DiffIDs
	if len(diffs) != len(r.Manifest.Layers) {
		return nil, fmt.Errorf("rootfs %s has %d layers and %d diff IDs", r.Descriptor.Digest, len(r.Manifest.Layers), len(diffs))
	}
	layers := make([]layer, len(diffs))
	n := 0
	for _, h := range r.Config.History {
		if n < len(layers) {
			layers[n].history = append(layers[n].history, h)
		}
		if !h.EmptyLayer {
			n++
		}
	}
	for i := range layers {
		layers[i].desc, layers[i].diff = r.Manifest.Layers[i], diffs[i]
		if n != len(layers) { // the history says something else; it is for people only
			layers[i].history = []ocispec.History{{}}
		}
	}
	return layers, nil
}

// shared counts the layers at the bottom that two have in common.
func shared(a, b []layer) int {
	n := 0
	for n < len(a) && n < len(b) && a[n].desc.Digest == b[n].desc.Digest {
		n++
	}
	return n
}

// stack puts the layers of all parts upon one another and looks for files that
// two of them have each in a way of its own. joined files come out by part.
func (m *merger) stack(ctx context.Context, parts []part) ([]layer, []tree, error) {
	var stacked []layer
	all := tree{}
	own := make([]tree, len(parts))
	for i, p := range parts {
		base := 0
		for _, earlier := range parts[:i] {
			base = max(base, shared(earlier.layers, p.layers))
		}
		bottom := map[digest.Digest]bool{}
		whole := tree{}
		above := tree{} // what the part brings beside its base, deletions too
		for n, l := range p.layers {
			files, err := m.files(ctx, l.desc, p.name)
			if err != nil {
				return nil, nil, err
			}
			whole.apply(files)
			if n < base {
				bottom[l.desc.Digest] = true
				continue
			}
			maps.Copy(above, files)
			stacked = append(stacked, l)
		}
		own[i] = whole
		m.compare(all, above, whole, bottom, p.name)
		for _, l := range p.layers[base:] {
			all.apply(m.layers[l.desc.Digest])
		}
	}
	return stacked, own, nil
}

func (m *merger) files(ctx context.Context, l ocispec.Descriptor, owner string) (tree, error) {
	if files, ok := m.layers[l.Digest]; ok {
		return files, nil
	}
	files, err := layerFiles(ctx, m.cs, l, owner)
	if err == nil {
		m.layers[l.Digest] = files
	}
	return files, err
}

// compare looks for what a part does to files that others brought. Files of a
// base that both stand on may be changed by one of them.
func (m *merger) compare(all, above, whole tree, bottom map[digest.Digest]bool, name string) {
	for _, file := range slices.Sorted(maps.Keys(above)) {
		f := above[file]
		if joined(file) || ofBuild(file) {
			continue
		}
		if f.kind == deleted {
			m.compareDeleted(all, file, bottom, name)
			continue
		}
		have, ok := all[file]
		now, still := whole[file]
		if !ok || !still || bottom[have.layer] || have.same(now) {
			continue
		}
		m.conflict("file", file, have.owner+" has "+have.describe(), name+" has "+now.describe())
	}
}

func (m *merger) compareDeleted(all tree, file string, bottom map[digest.Digest]bool, name string) {
	below := strings.TrimSuffix(file, "/") + "/"
	for _, have := range slices.Sorted(maps.Keys(all)) {
		if have != file && !strings.HasPrefix(have, below) || bottom[all[have].layer] || all[have].kind == tar.TypeDir || joined(have) || ofBuild(have) {
			continue
		}
		m.conflict("file", have, all[have].owner+" has "+all[have].describe(), name+" deletes it")
	}
}

// describe says what a file is.
func (f fileInfo) describe() string {
	switch f.kind {
	case tar.TypeReg:
		_, hex, _ := strings.Cut(f.content, ":")
		return "a file of digest " + hex[:min(12, len(hex))]
	case tar.TypeDir:
		return "a folder"
	case tar.TypeSymlink, tar.TypeLink:
		return "a link to " + f.content
	}
	return "a special file"
}

// writeLayer makes a layer of files; the same files give the same bytes.
func (m *merger) writeLayer(ctx context.Context, files map[string][]byte) (layer, error) {
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		hdr := &tar.Header{
			Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}
		if err := tw.WriteHeader(hdr); err != nil {
			return layer{}, fmt.Errorf("writing %q: %w", name, err)
		}
		if _, err := tw.Write(files[name]); err != nil {
			return layer{}, fmt.Errorf("writing %q: %w", name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return layer{}, fmt.Errorf("writing a layer: %w", err)
	}
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return layer{}, fmt.Errorf("writing a layer: %w", err)
	}
	desc, err := write(ctx, m.cs, ocispec.MediaTypeImageLayerZstd, zw.EncodeAll(plain.Bytes(), nil))
	return layer{
		desc: desc, diff: digest.FromBytes(plain.Bytes()),
		history: []ocispec.History{{CreatedBy: "sealer merge", Comment: "Metadata and image lists of all"}},
	}, err
}

func (m *merger) writeRootfs(ctx context.Context, config ocispec.Image, layers []layer, platform ocispec.Platform) (ocispec.Descriptor, error) {
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config.RootFS, config.History = ocispec.RootFS{Type: "layers"}, nil
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diff)
		config.History = append(config.History, l.history...)
	}
	var err error
	if manifest.Config, err = writeJSON(ctx, m.cs, ocispec.MediaTypeImageConfig, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := writeJSON(ctx, m.cs, manifest.MediaType, manifest)
	normal := platforms.Normalize(platform)
	desc.Platform = &normal
	return desc, err
}

func writeJSON(ctx context.Context, cs content.Store, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing a document: %w", err)
	}
	return write(ctx, cs, mediaType, data)
}

func write(ctx context.Context, cs content.Store, mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(ctx, cs, "document-"+desc.Digest.String(), bytes.NewReader(data), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, fmt.Errorf("writing %s: %w", desc.Digest, err)
	}
	return desc, nil
}
