// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxIndex bounds index.json of a layout, in bytes.
const maxIndex = 32 << 20

// Adopt makes a ClusterImage of the image at top, a manifest or an index of manifests, where that is one whose layers
// hold a layout; elsewhere it returns top and false. Every packed blob is written into cs under its digest, verified;
// the rootfs keeps its other layers as they are. The same image gives the same ClusterImage, on every machine.
//
// Manifests that cs does not have (a pull of one platform) are left out. Attestations are, too: they speak of
// manifests that the ClusterImage does not have. Nothing is tagged. The error is an *Error.
func Adopt(ctx context.Context, cs content.Store, top ocispec.Descriptor) (ocispec.Descriptor, bool, error) {
	entries := []ocispec.Descriptor{top}
	if clusterimage.IsIndex(top.MediaType) {
		var index ocispec.Index
		if err := clusterimage.ReadJSON(ctx, cs, top, &index); err != nil {
			return top, false, err
		}
		if clusterimage.IsClusterImage(index) {
			return top, false, nil
		}
		entries = index.Manifests
	}
	var in clusterimage.Composition
	for _, d := range entries {
		if !clusterimage.IsManifest(d.MediaType) || d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		a, err := open(ctx, cs, d)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return top, false, err
		}
		if a == nil {
			return top, false, nil
		}
		rootfs, images, err := a.adopt(ctx)
		if err != nil {
			return top, false, &Error{Digest: d.Digest, Err: err}
		}
		in.Rootfs, in.Images = append(in.Rootfs, rootfs), append(in.Images, images...)
	}
	if len(in.Rootfs) == 0 {
		return top, false, nil
	}
	in.Annotations = map[string]string{AnnotationSource: top.Digest.String()}
	desc, err := clusterimage.Compose(ctx, cs, in)
	return desc, err == nil, err
}

// Source is the digest of the image that a ClusterImage was made of; "" where it was made as one.
func Source(index ocispec.Index) string { return index.Annotations[AnnotationSource] }

// adoption is one platform.
type adoption struct {
	cs       content.Store
	desc     ocispec.Descriptor
	manifest ocispec.Manifest
	config   ocispec.Image
	raw      map[string]json.RawMessage // of the config: fields that we do not know stay
	label    string
}

// open reads a manifest and its config; nil: it has no label.
func open(ctx context.Context, cs content.Store, d ocispec.Descriptor) (*adoption, error) {
	a := &adoption{cs: cs, desc: d}
	if err := clusterimage.ReadJSON(ctx, cs, d, &a.manifest); err != nil {
		return nil, err
	}
	data, err := clusterimage.ReadBlob(ctx, cs, a.manifest.Config)
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(data, &a.config) != nil {
		return nil, nil //nolint:nilnil // the config of an artifact may be anything
	}
	label, ok := a.config.Config.Labels[Label]
	if !ok {
		return nil, nil //nolint:nilnil // another kind of image is an answer
	}
	a.label = label
	return a, json.Unmarshal(data, &a.raw)
}

func (a *adoption) adopt(ctx context.Context) (ocispec.Descriptor, []clusterimage.PackedImage, error) {
	layers, err := ParseLayers(a.label, len(a.manifest.Layers))
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if len(a.config.RootFS.DiffIDs) != len(a.manifest.Layers) {
		return ocispec.Descriptor{}, nil, fmt.Errorf("it has %d layers, and its config %d", len(a.manifest.Layers), len(a.config.RootFS.DiffIDs))
	}
	var index []byte
	for _, n := range layers {
		found, err := a.unpack(ctx, a.manifest.Layers[n])
		if err != nil {
			return ocispec.Descriptor{}, nil, fmt.Errorf("layer %s: %w", a.manifest.Layers[n].Digest, err)
		}
		if found != nil {
			index = found // that of a later layer hides it
		}
	}
	var images []clusterimage.PackedImage
	if len(layers) > 0 {
		if images, err = a.images(ctx, index); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
	}
	rootfs, err := a.rewrite(ctx, layers)
	return rootfs, images, err
}

// unpack writes the blobs of a layer into the store, and returns its index.json, if it has one.
func (a *adoption) unpack(ctx context.Context, layer ocispec.Descriptor) (_ []byte, err error) {
	at, err := a.cs.ReaderAt(ctx, layer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	r, done, err := decompress(layer.MediaType, content.NewReader(at))
	if err != nil {
		return nil, err
	}
	defer done()
	var index []byte
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return index, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		switch d, isBlob := parseBlobPath(name); {
		case name != Dir && !strings.HasPrefix(name, Dir+"/"):
			return nil, fmt.Errorf("it holds %q beside %s", h.Name, Dir)
		case h.Typeflag == tar.TypeDir:
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%q is neither a file nor a folder", h.Name)
		case isBlob:
			if err := a.write(ctx, ocispec.Descriptor{Digest: d, Size: h.Size}, tr); err != nil {
				return nil, fmt.Errorf("writing %s: %w", d, err)
			}
		case name == Dir+"/"+ocispec.ImageIndexFile:
			if h.Size > maxIndex {
				return nil, fmt.Errorf("%q has %d bytes, more than %d", h.Name, h.Size, maxIndex)
			}
			if index, err = io.ReadAll(tr); err != nil {
				return nil, err
			}
		}
	}
}

// write stores a blob; Commit compares size and digest.
func (a *adoption) write(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	if info, err := a.cs.Info(ctx, d.Digest); err == nil && info.Size == d.Size {
		return nil
	}
	w, err := content.OpenWriter(ctx, a.cs, content.WithRef("layout-"+d.Digest.String()), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // after Commit there is nothing to close
	if err := w.Truncate(0); err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if err := w.Commit(ctx, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func decompress(mediaType string, r io.Reader) (io.Reader, func(), error) {
	switch {
	case strings.HasSuffix(mediaType, "zstd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case strings.HasSuffix(mediaType, "gzip"):
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}
	return r, func() {}, nil
}

// images are what the layout's image lists say.
func (a *adoption) images(ctx context.Context, data []byte) ([]clusterimage.PackedImage, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", Dir, ocispec.ImageIndexFile, err)
	}
	return Images(ctx, a.cs, index)
}

// Images reads the image lists that the index of a layout, or of a ClusterImage, names.
func Images(ctx context.Context, p content.Provider, index ocispec.Index) ([]clusterimage.PackedImage, error) {
	var out []clusterimage.PackedImage
	for _, d := range index.Manifests {
		if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
			continue
		}
		images, err := clusterimage.ReadImageList(ctx, p, d)
		if err != nil {
			return nil, err
		}
		out = append(out, images...)
	}
	return out, nil
}

// rewrite makes the rootfs' manifest and config without the layers of the layout.
func (a *adoption) rewrite(ctx context.Context, drop []int) (ocispec.Descriptor, error) {
	dropped := func(i int) bool { return slices.Contains(drop, i) }
	m := a.manifest
	m.MediaType = ocispec.MediaTypeImageManifest
	m.Layers = nil
	var ids []digest.Digest
	for i, l := range a.manifest.Layers {
		if !dropped(i) {
			m.Layers, ids = append(m.Layers, l), append(ids, a.config.RootFS.DiffIDs[i])
		}
	}
	a.config.RootFS.DiffIDs = ids
	var history []ocispec.History
	layer := 0
	for _, h := range a.config.History {
		if !h.EmptyLayer {
			layer++
			if dropped(layer - 1) {
				continue
			}
		}
		history = append(history, h)
	}
	a.config.History = history
	data, err := a.marshalConfig()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if m.Config, err = a.document(ctx, ocispec.MediaTypeImageConfig, data); err != nil {
		return ocispec.Descriptor{}, err
	}
	if data, err = json.Marshal(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := a.document(ctx, ocispec.MediaTypeImageManifest, data)
	p := platforms.Normalize(a.config.Platform)
	d.Platform = &p
	return d, err
}

// marshalConfig replaces in the original config what has changed.
func (a *adoption) marshalConfig() ([]byte, error) {
	inner := map[string]json.RawMessage{}
	if err := json.Unmarshal(a.raw["config"], &inner); err != nil {
		return nil, err
	}
	labels := a.config.Config.Labels
	delete(labels, Label)
	labels[LabelSource] = a.desc.Digest.String()
	for _, f := range []struct {
		in    map[string]json.RawMessage
		name  string
		value any
	}{{inner, "Labels", labels}, {a.raw, "config", inner}, {a.raw, "rootfs", a.config.RootFS}, {a.raw, "history", a.config.History}} {
		data, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		f.in[f.name] = data
	}
	return json.Marshal(a.raw)
}

func (a *adoption) document(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, a.write(ctx, d, strings.NewReader(string(data)))
}
