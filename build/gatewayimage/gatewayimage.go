// SPDX-License-Identifier: Apache-2.0

// Package gatewayimage makes the image that BuildKit runs sealer's frontend from: the toolbox of RUN instructions with
// the program sealer-frontend on top.
package gatewayimage

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/build/toolbox"
	"github.com/sealerio/sealer/clusterimage"
)

const (
	program = "sealer-frontend"
	// maxProgram bounds the program that is packed, in bytes: it is held in memory.
	maxProgram = 512 << 20
)

// Options are what a gateway image is made of.
type Options struct {
	// Program is the path of sealer-frontend, built for Linux without cgo. Its architecture is the image's.
	Program string
	// Version of sealer, for the image's label.
	Version string
	// ToolboxDir is where the toolbox is unpacked, and kept.
	ToolboxDir string
}

// Make writes the image's blobs into cs and returns its manifest. The same program gives the same digest. Nothing is tagged.
func Make(ctx context.Context, cs content.Store, o Options) (ocispec.Descriptor, error) {
	arch, data, err := readProgram(o.Program)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, config, err := copyToolbox(ctx, cs, o.ToolboxDir, arch)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("packing the toolbox: %w", err)
	}
	layer, id, err := programLayer(data)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("packing %q: %w", o.Program, err)
	}
	d, err := write(ctx, cs, ocispec.MediaTypeImageLayerGzip, layer)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Layers = append(m.Layers, d)
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, id)
	config.Config.Entrypoint = []string{"/" + program}
	config.Config.Labels = map[string]string{
		frontend.LabelToolbox:     "true",
		clusterimage.LabelVersion: o.Version,
		// What a frontend asks of BuildKit: https://github.com/moby/buildkit/blob/v0.33.1/docs/reference/buildkitd.md
		"moby.buildkit.frontend.network.none": "true",
		"moby.buildkit.frontend.caps":         "moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts",
	}
	return finish(ctx, cs, m, config)
}

func finish(ctx context.Context, cs content.Store, m ocispec.Manifest, config ocispec.Image) (ocispec.Descriptor, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if m.Config, err = write(ctx, cs, ocispec.MediaTypeImageConfig, data); err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	if data, err = json.Marshal(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := write(ctx, cs, ocispec.MediaTypeImageManifest, data)
	p := config.Platform
	d.Platform = &p
	return d, err
}

// readProgram reads the program and the architecture that it is for.
func readProgram(path string) (string, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("reading the frontend program: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxProgram+1))
	if err != nil {
		return "", nil, fmt.Errorf("reading the frontend program: %w", err)
	}
	if len(data) > maxProgram {
		return "", nil, fmt.Errorf("reading the frontend program: %q has more than %d bytes", path, maxProgram)
	}
	header, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return "", nil, fmt.Errorf("reading the frontend program: %q is no Linux program: %w", path, err)
	}
	for _, p := range header.Progs {
		if p.Type == elf.PT_INTERP {
			return "", nil, fmt.Errorf("reading the frontend program: %q is not static: build it with CGO_ENABLED=0", path)
		}
	}
	switch header.Machine {
	case elf.EM_X86_64:
		return "amd64", data, nil
	case elf.EM_AARCH64:
		return "arm64", data, nil
	}
	return "", nil, fmt.Errorf("reading the frontend program: %q is for %s: amd64 and arm64 are known", path, header.Machine)
}

// copyToolbox brings the toolbox's layers into cs and returns what describes them.
func copyToolbox(ctx context.Context, cs content.Store, dir, arch string) (m ocispec.Manifest, config ocispec.Image, err error) {
	folder, image, err := toolbox.Unpack(dir, arch)
	if err != nil {
		return m, config, err
	}
	from, err := local.NewStore(folder)
	if err != nil {
		return m, config, err
	}
	if err := clusterimage.ReadJSON(ctx, from, image, &m); err != nil {
		return m, config, err
	}
	if err := clusterimage.ReadJSON(ctx, from, m.Config, &config); err != nil {
		return m, config, err
	}
	for _, l := range m.Layers {
		at, err := from.ReaderAt(ctx, l)
		if err != nil {
			return m, config, err
		}
		err = content.WriteBlob(ctx, cs, "gateway-"+l.Digest.String(), content.NewReader(at), l)
		_ = at.Close()
		if err != nil {
			return m, config, err
		}
	}
	return m, config, nil
}

// programLayer is a layer with the program alone.
func programLayer(data []byte) ([]byte, digest.Digest, error) {
	var packed bytes.Buffer
	plain := digest.Canonical.Digester()
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(io.MultiWriter(z, plain.Hash()))
	err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: program, Mode: 0o755, Size: int64(len(data)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	})
	if err != nil {
		return nil, "", err
	}
	if _, err := w.Write(data); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), plain.Digest(), nil
}

func write(ctx context.Context, cs content.Store, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(ctx, cs, "gateway-"+d.Digest.String(), bytes.NewReader(data), d)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, fmt.Errorf("writing %s: %w", d.Digest, err)
	}
	return d, nil
}

// Archive writes an image of cs as a tar of an OCI layout, named name.
func Archive(ctx context.Context, cs content.Store, desc ocispec.Descriptor, name string, w io.Writer) error {
	if err := archive.Export(ctx, cs, w, archive.WithManifest(desc, name), archive.WithSkipDockerManifest()); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}
