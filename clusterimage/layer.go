// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxWindow bounds the memory that a zstd stream may ask for, in bytes.
const maxWindow = 256 << 20

// LayerFile is an entry of a layer.
type LayerFile struct {
	// Path is clean, and relative to the root; "" is the root.
	Path string
	// Whiteout says that what lower layers have at Path, and below it, is gone.
	// See https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts
	Whiteout bool
	// Opaque is a whiteout of all that lower layers have in the folder Path.
	Opaque bool
	Header *tar.Header
	// Content is valid until the function that got the file returns.
	Content io.Reader
}

// WalkLayer reads a layer, gzip, zstd or plain, and calls fn for each of its
// entries. At the end the layer is verified: what fn has got counts only where
// the error is nil.
func WalkLayer(ctx context.Context, p content.Provider, l ocispec.Descriptor, fn func(LayerFile) error) (err error) {
	ra, err := p.ReaderAt(ctx, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	if ra.Size() != l.Size {
		return fmt.Errorf("it has %d bytes, not %d", ra.Size(), l.Size)
	}
	verifier := l.Digest.Verifier()
	blob := io.TeeReader(&interruptible{ctx: ctx, r: io.NewSectionReader(ra, 0, l.Size)}, verifier)
	r, err := decompress(blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := walkTar(tar.NewReader(r), fn); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil { // what stands after the tar's end
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("its content is not that of %s", l.Digest)
	}
	return nil
}

func walkTar(tr *tar.Reader, fn func(LayerFile) error) error {
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f := LayerFile{Path: strings.TrimPrefix(path.Clean("/"+hdr.Name), "/"), Header: hdr, Content: tr}
		dir, base := path.Split(f.Path)
		if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			f.Whiteout = true
			f.Path = dir + hidden
			if base == ".wh..wh..opq" {
				f.Path, f.Opaque = strings.TrimSuffix(dir, "/"), true
			}
		}
		if err := fn(f); err != nil {
			return err
		}
	}
}

// decompress reads gzip, zstd or plain tar, told apart by their first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// interruptible ends with its context.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of one call
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}
