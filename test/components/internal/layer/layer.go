// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// Layer is a packed tree: a compressed blob on disk, which is written once and read by as many images as use it.
type Layer struct {
	path      string
	digest    v1.Hash
	diffID    v1.Hash
	size      int64
	mediaType types.MediaType
}

var _ v1.Layer = (*Layer)(nil)

// Write packs and compresses the tree into dir, the blobs/sha256 folder of an OCI layout, under its digest's name.
func Write(ctx context.Context, t *Tree, dir string) (_ *Layer, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	f, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	defer func() {
		_ = f.Close() // closed before the rename when all went well: then this only says so
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()

	stored, plain := sha256.New(), sha256.New()
	compressor := gzip.NewWriter(io.MultiWriter(f, stored)) // no name and no time in its header
	if err := t.Pack(ctx, io.MultiWriter(compressor, plain)); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, fmt.Errorf("compressing a layer: %w", err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	l := &Layer{digest: sum(stored), diffID: sum(plain), size: size, mediaType: types.DockerLayer}
	l.path = filepath.Join(dir, l.digest.Hex)
	if err := os.Rename(f.Name(), l.path); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	return l, nil
}

// As returns the same blob under another media type: Docker's manifests and OCI's call a compressed tar differently.
func (l *Layer) As(mediaType types.MediaType) *Layer {
	other := *l
	other.mediaType = mediaType
	return &other
}

// Digest is the digest of the compressed blob.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the tar archive.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size is the size of the compressed blob.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType is Docker's, unless the layer came from As.
func (l *Layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed opens the blob; the caller closes it.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed opens the tar archive; the caller closes it.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("reading layer %s: %w", l.digest, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}
