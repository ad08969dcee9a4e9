// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

const copyBuffer = 256 << 10

// layer brings a layer of docker save's format in. A plain tar is compressed; what is compressed already (crane writes
// layers so) stays as it is. Either way the unpacked bytes must have the digest that the image's config says.
func (in *importing) layer(ctx context.Context, j *job, r io.Reader) error {
	br := bufio.NewReaderSize(r, copyBuffer)
	desc := ocispec.Descriptor{MediaType: layerType(in.o.Compression)}
	err := in.making(ctx, "archive-"+j.diffID.String()+"-"+j.how, func(w content.Writer) (digest.Digest, error) {
		var got digest.Digest
		var err error
		if j.kind == "" {
			got, err = pack(w, br, in.o.Compression, j.diffID.Algorithm())
		} else {
			desc.MediaType = layerType(j.kind)
			got, err = keep(w, br, j.kind, j.diffID.Algorithm())
		}
		if err != nil {
			return "", fmt.Errorf("layer %s: %w", j.diffID, err)
		}
		if got != j.diffID {
			return "", &clusterimage.DigestError{Want: j.diffID, Got: got}
		}
		status, err := w.Status()
		if err != nil {
			return "", err
		}
		desc.Digest, desc.Size = w.Digest(), status.Offset
		return desc.Digest, nil
	})
	if err != nil {
		return err
	}
	in.made[j.diffID] = desc
	return in.st.SetDerived(j.diffID, j.how, desc)
}

func layerType(kind string) string {
	if kind == Gzip {
		return ocispec.MediaTypeImageLayerGzip
	}
	return ocispec.MediaTypeImageLayerZstd
}

// pack writes r compressed to w and returns the digest of r. The output depends on nothing but the input.
func pack(w io.Writer, r io.Reader, kind string, algorithm digest.Algorithm) (digest.Digest, error) {
	buffered := bufio.NewWriterSize(w, copyBuffer)
	var z io.WriteCloser
	var err error
	if kind == Gzip {
		z, err = gzip.NewWriterLevel(buffered, gzip.DefaultCompression)
	} else {
		// Two goroutines, one behind the other: blocks are cut by size, not by time.
		z, err = zstd.NewWriter(buffered, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedDefault))
	}
	if err != nil {
		return "", err
	}
	sum := algorithm.Digester()
	if _, err := io.CopyBuffer(z, io.TeeReader(onlyReader{r}, sum.Hash()), make([]byte, copyBuffer)); err != nil {
		return "", errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return sum.Digest(), buffered.Flush()
}

// onlyReader hides WriteTo, so that CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// keep writes r to w as it is and returns the digest of what it unpacks to.
func keep(w io.Writer, r io.Reader, kind string, algorithm digest.Algorithm) (digest.Digest, error) {
	tee := io.TeeReader(r, w)
	var z io.Reader
	switch kind {
	case Gzip:
		gz, err := gzip.NewReader(tee)
		if err != nil {
			return "", err
		}
		z = gz
	case Zstd:
		// One goroutine: nothing reads ahead of what is hashed.
		zd, err := zstd.NewReader(tee, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return "", err
		}
		defer zd.Close()
		z = zd
	default:
		return "", fmt.Errorf("it is compressed with %s, which sealer does not read", kind)
	}
	sum := algorithm.Digester()
	if _, err := io.Copy(sum.Hash(), z); err != nil {
		return "", err
	}
	// What follows belongs to the blob.
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return "", err
	}
	return sum.Digest(), nil
}
