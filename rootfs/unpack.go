// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
)

// Provider gives content by descriptor. store.Content() is one.
type Provider = content.Provider

// maxDocument bounds a manifest or config. Registries refuse manifests over 4 MiB.
const maxDocument = 16 << 20

// addImage unpacks the layers of a manifest that are not there yet, and holds them by an image.
func (s *Storage) addImage(ctx context.Context, p Provider, desc ocispec.Descriptor) error {
	id := desc.Digest.Encoded()
	if _, err := s.store.Image(id); err == nil || !errors.Is(err, storage.ErrImageUnknown) {
		return err
	}
	var manifest ocispec.Manifest
	if err := readDocument(ctx, p, desc, &manifest); err != nil {
		return err
	}
	var config ocispec.Image
	if err := readDocument(ctx, p, manifest.Config, &config); err != nil {
		return err
	}
	diffIDs := config.RootFS.DiffIDs
	if len(diffIDs) != len(manifest.Layers) {
		return fmt.Errorf("reading the config %s: it has %d diff IDs for %d layers", manifest.Config.Digest, len(diffIDs), len(manifest.Layers))
	}
	for _, d := range diffIDs {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("reading the config %s: diff ID %q: %w", manifest.Config.Digest, d, err)
		}
	}
	top := ""
	for i, layer := range manifest.Layers {
		chain := identity.ChainID(diffIDs[:i+1]).Encoded()
		if err := s.addLayer(ctx, p, layer, diffIDs[i], chain, top); err != nil {
			return err
		}
		top = chain
	}
	_, err := s.store.CreateImage(id, nil, top, "", nil)
	return err
}

// addLayer unpacks one layer, named by its chain ID: images that share it, and all below it, share it unpacked. A layer that is cut
// while it is unpacked stays marked as incomplete, and containers/storage deletes it when it is next opened.
func (s *Storage) addLayer(ctx context.Context, p Provider, desc ocispec.Descriptor, diffID digest.Digest, chain, parent string) error {
	old, err := s.store.Layer(chain)
	switch {
	case err == nil && old.UncompressedDigest == diffID:
		return nil
	case err == nil: // unpacked, and cut before the check below
		if err := s.store.DeleteLayer(chain); err != nil {
			return err
		}
	case !errors.Is(err, storage.ErrLayerUnknown):
		return err
	}
	ra, err := p.ReaderAt(ctx, desc)
	if err != nil {
		return &AbsentError{desc.Digest, err}
	}
	blob := &verified{ctx: ctx, r: content.NewReader(ra), desc: desc, hash: desc.Digest.Algorithm().Digester()}
	s.log.Debug("unpacking", "layer", desc.Digest, "bytes", desc.Size)
	layer, _, err := s.store.PutLayer(chain, parent, nil, "", false, nil, blob)
	if err == nil {
		_, err = io.Copy(io.Discard, blob) // padding after the end of the tar
		if err == nil && layer.UncompressedDigest != diffID {
			err = &DigestError{"content of layer", diffID, layer.UncompressedDigest}
		}
		if err != nil {
			err = errors.Join(err, s.store.DeleteLayer(chain))
		}
	}
	if blob.err != nil && !errors.Is(blob.err, io.EOF) {
		err = blob.err // rather than what unpacking made of it
	}
	if err != nil {
		err = fmt.Errorf("unpacking layer %s: %w", desc.Digest, err)
	}
	return errors.Join(err, ra.Close())
}

// verified reads a blob, ends with ctx, and does not end well where the blob is not what its descriptor says.
type verified struct {
	ctx  context.Context
	r    io.Reader
	desc ocispec.Descriptor
	hash digest.Digester
	n    int64
	err  error
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.ctx.Err() != nil {
		v.err = context.Cause(v.ctx)
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.hash.Hash().Write(p[:n])
	v.n += int64(n)
	if errors.Is(err, io.EOF) {
		if got := v.hash.Digest(); got != v.desc.Digest || v.n != v.desc.Size {
			err = &DigestError{"layer", v.desc.Digest, got}
		}
	}
	v.err = err
	return n, err
}

func readDocument(ctx context.Context, p Provider, desc ocispec.Descriptor, into any) (err error) {
	what := "config"
	if strings.Contains(desc.MediaType, "manifest") {
		what = "manifest"
	}
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("reading the %s %q: %w", what, desc.Digest, err)
	}
	if desc.Size > maxDocument {
		return fmt.Errorf("reading the %s %s: %d bytes are too many", what, desc.Digest, desc.Size)
	}
	ra, err := p.ReaderAt(ctx, desc)
	if err != nil {
		return &AbsentError{desc.Digest, err}
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	data, err := io.ReadAll(io.LimitReader(content.NewReader(ra), maxDocument+1))
	if err != nil {
		return fmt.Errorf("reading the %s %s: %w", what, desc.Digest, err)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return &DigestError{what, desc.Digest, got}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading the %s %s: %w", what, desc.Digest, err)
	}
	return nil
}
