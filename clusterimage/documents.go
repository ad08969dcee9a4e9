// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Document is a manifest, config or index of a packed image, verified.
type Document struct {
	Digest digest.Digest
	Data   []byte
}

// writeDocuments packs documents as blobs/<algorithm>/<hex>, sorted, without
// times or owners: the same documents give the same bytes.
func writeDocuments(docs map[digest.Digest][]byte) ([]byte, error) {
	var buf bytes.Buffer
	// One encoder goroutine: block boundaries then do not depend on timing.
	zw, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("packing documents: %w", err)
	}
	tw := tar.NewWriter(zw)
	for _, d := range slices.Sorted(maps.Keys(docs)) {
		hdr := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     documentPath(d),
			Mode:     0o644,
			Size:     int64(len(docs[d])),
			ModTime:  time.Unix(0, 0),
			Format:   tar.FormatUSTAR,
		}
		if err := tw.WriteHeader(hdr); err != nil {
			return nil, fmt.Errorf("packing document %s: %w", d, err)
		}
		if _, err := tw.Write(docs[d]); err != nil {
			return nil, fmt.Errorf("packing document %s: %w", d, err)
		}
	}
	if err := cmp.Or(tw.Close(), zw.Close()); err != nil {
		return nil, fmt.Errorf("packing documents: %w", err)
	}
	return buf.Bytes(), nil
}

func documentPath(d digest.Digest) string {
	return path.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// ReadDocuments reads the documents layer of an image list manifest, one
// document at a time. Each is verified against the digest it is named by; the
// sequence ends after the first error. The layer may unpack to 512 MiB in all
// and 32 MiB in one document.
func ReadDocuments(ctx context.Context, p content.Provider, list ocispec.Descriptor) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		layer, err := documentsLayer(ctx, p, list)
		if err != nil {
			yield(Document{}, err)
			return
		}
		ra, err := p.ReaderAt(ctx, layer)
		if err != nil {
			yield(Document{}, fmt.Errorf("reading the documents layer %s: %w", layer.Digest, err))
			return
		}
		defer ra.Close()
		if err := eachDocument(content.NewReader(ra), func(d Document) bool { return yield(d, nil) }); err != nil {
			yield(Document{}, fmt.Errorf("reading the documents layer %s: %w", layer.Digest, err))
		}
	}
}

func documentsLayer(ctx context.Context, p content.Provider, list ocispec.Descriptor) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := ReadJSON(ctx, p, list, &m); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, l := range m.Layers {
		if l.MediaType == DocumentsMediaType {
			return l, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("image list %s has no layer of type %s", list.Digest, DocumentsMediaType)
}

// eachDocument calls fn for every document until fn returns false. Entries
// that are not blobs are skipped.
func eachDocument(r io.Reader, fn func(Document) bool) error {
	zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return err
	}
	defer zr.Close()
	tr := tar.NewReader(io.LimitReader(zr, maxDocuments))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		dir, hex := path.Split(hdr.Name)
		want := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(dir)), hex)
		if hdr.Typeflag != tar.TypeReg || want.Validate() != nil || documentPath(want) != hdr.Name {
			continue
		}
		if hdr.Size > maxManifest {
			return fmt.Errorf("document %s has %d bytes, more than %d", want, hdr.Size, maxManifest)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("document %s: %w", want, err)
		}
		if got := want.Algorithm().FromBytes(data); got != want {
			return &DigestError{Want: want, Got: got}
		}
		if !fn(Document{Digest: want, Data: data}) {
			return nil
		}
	}
}

// DigestError says that bytes are not what their digest says.
type DigestError struct {
	Want, Got digest.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("content of %s has the digest %s", e.Want, e.Got)
}
