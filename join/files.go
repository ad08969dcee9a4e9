// SPDX-License-Identifier: Apache-2.0

package join

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whiteouts of a layer's tar.
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = whiteoutPrefix + whiteoutPrefix + ".opq"
)

// maxKept bounds a file whose content is kept, in bytes.
const maxKept = 1 << 20

// maxFiles bounds the number of files of a rootfs.
const maxFiles = 4 << 20

// fileInfo is what two files of one path are compared by.
type fileInfo struct {
	kind byte // of the tar; 'w' where the path is deleted
	// content is the digest of a file's bytes, or where a link leads.
	content string
	// layer has the file; owner is the image that brought the layer.
	layer digest.Digest
	owner string
	// data is the content of files that are joined.
	data []byte
}

const deleted = 'w'

// same tells whether two entries are the same thing. Folders are.
func (f fileInfo) same(other fileInfo) bool {
	return f.kind == other.kind && (f.kind == tar.TypeDir || f.content == other.content)
}

// tree is the files of stacked layers, by path without a leading slash.
type tree map[string]fileInfo

// layerFiles reads what one layer brings: files, links, folders and deletions.
func layerFiles(ctx context.Context, cs content.Provider, l ocispec.Descriptor, owner string) (tree, error) {
	ra, err := cs.ReaderAt(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("reading layer %s of %s: %w", l.Digest, owner, err)
	}
	defer ra.Close()
	files, err := readLayer(ctx, content.NewReader(ra), fileInfo{layer: l.Digest, owner: owner})
	if err != nil {
		return nil, fmt.Errorf("reading layer %s of %s: %w", l.Digest, owner, err)
	}
	return files, nil
}

func readLayer(ctx context.Context, r io.Reader, base fileInfo) (tree, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	files := tree{}
	tr := tar.NewReader(plain)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if len(files) == maxFiles {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
		if err := files.addEntry(tr, hdr, base); err != nil {
			return nil, fmt.Errorf("file %q: %w", hdr.Name, err)
		}
	}
}

// addEntry notes an entry of the tar.
func (t tree) addEntry(r io.Reader, hdr *tar.Header, f fileInfo) error {
	name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
	if name == "" {
		return nil
	}
	dir, last := path.Split(name)
	if last == whiteoutOpaque {
		f.kind, f.content = deleted, "opaque"
		t[strings.TrimSuffix(dir, "/")+"/"] = f
		return nil
	}
	if gone, ok := strings.CutPrefix(last, whiteoutPrefix); ok {
		f.kind = deleted
		t[dir+gone] = f
		return nil
	}
	f.kind = hdr.Typeflag
	switch hdr.Typeflag {
	case tar.TypeReg:
		if err := f.read(r, name, hdr.Size); err != nil {
			return err
		}
	case tar.TypeLink:
		// A hard link is the file that it leads to, where that is of the layer.
		target := strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/")
		if to, ok := t[target]; ok {
			f.kind, f.content, f.data = to.kind, to.content, to.data
		} else {
			f.content = target
		}
	case tar.TypeSymlink:
		f.content = hdr.Linkname
	}
	t[name] = f
	return nil
}

// read hashes a file, and keeps those that are joined.
func (f *fileInfo) read(r io.Reader, name string, size int64) error {
	d := digest.Canonical.Digester()
	var kept bytes.Buffer
	w := io.Writer(d.Hash())
	if joined(name) {
		if size > maxKept {
			return fmt.Errorf("it has %d bytes, more than %d", size, maxKept)
		}
		w = io.MultiWriter(w, &kept)
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	f.content, f.data = d.Digest().String(), kept.Bytes()
	return nil
}

// joined tells of which files a merged image has one made of all.
func joined(name string) bool {
	return name == metadataName || slices.Contains(imageLists(), name)
}

// imageLists are the files that name images, beside manifests.
func imageLists() []string { return []string{"imageList", "manifests/imageList"} }

// ofBuild tells which files say how a rootfs was built, and mean nothing in it.
// A Kubefile with COPY . . has them all.
func ofBuild(name string) bool {
	switch name {
	case "Kubefile", "Dockerfile", "Sealfile", "imageList.lock", ".sealerignore", ".dockerignore":
		return true
	}
	return false
}

// apply stacks a layer upon others.
func (t tree) apply(layer tree) {
	for name, f := range layer {
		if f.kind == deleted {
			t.remove(name)
		}
	}
	for name, f := range layer {
		if f.kind != deleted {
			if old, ok := t[name]; ok && old.kind == tar.TypeDir && f.kind != tar.TypeDir {
				t.remove(name)
			}
			t[name] = f
		}
	}
}

// remove takes a path and all below it away; "dir/" stands for what is below only.
func (t tree) remove(name string) {
	delete(t, name)
	below := strings.TrimSuffix(name, "/") + "/"
	for have := range t {
		if strings.HasPrefix(have, below) {
			delete(t, have)
		}
	}
}

// decompress unpacks a layer: gzip, zstd or a plain tar, by its first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return gzip.NewReader(br)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		zr, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
