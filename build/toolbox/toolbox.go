// SPDX-License-Identifier: Apache-2.0

// Package toolbox carries the small root file system that RUN instructions run in: an OCI image that hack/toolbox.sh
// makes of busybox and sealer-fetch.
package toolbox

import (
	"archive/tar"
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

//go:embed files
var files embed.FS

// maxUnpacked bounds what an archive unpacks to, in bytes.
const maxUnpacked = 256 << 20

// MissingError is returned where this binary carries no toolbox.
type MissingError struct{ Arch string }

func (e *MissingError) Error() string {
	return "this sealer binary carries no toolbox for linux/" + e.Arch + ", which RUN needs"
}

// Hint says what to do.
func (*MissingError) Hint() string {
	return "build sealer with `make build`, or name an image to run in: --toolbox IMAGE, or `# toolbox=IMAGE` in the Kubefile"
}

// Unpack writes the toolbox for linux/arch as an OCI layout below dir and returns the layout's folder and its image. It
// does nothing where an earlier call did it. Any number of processes may do it at once.
func Unpack(dir, arch string) (string, ocispec.Descriptor, error) {
	packed, err := files.ReadFile("files/toolbox-linux-" + arch + ".tar.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return "", ocispec.Descriptor{}, &MissingError{Arch: arch}
	}
	if err != nil {
		return "", ocispec.Descriptor{}, fmt.Errorf("reading the toolbox: %w", err)
	}
	layout := filepath.Join(dir, digest.FromBytes(packed).Encoded())
	if image, err := read(layout); err == nil {
		return layout, image, nil
	}
	if err := unpack(packed, dir, layout); err != nil {
		return "", ocispec.Descriptor{}, fmt.Errorf("unpacking the toolbox: %w", err)
	}
	image, err := read(layout)
	return layout, image, err
}

// unpack writes a folder beside the wanted one and renames it.
func unpack(packed []byte, dir, layout string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".toolbox-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := extract(packed, tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, layout); err != nil {
		if _, readErr := read(layout); readErr == nil {
			return nil // another process was faster
		}
		if err := os.RemoveAll(layout); err != nil { // what is there is broken
			return err
		}
		return os.Rename(tmp, layout)
	}
	return nil
}

func extract(packed []byte, dir string) error {
	z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for r := tar.NewReader(io.LimitReader(z, maxUnpacked)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := write(root, name, r); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, r io.Reader) error {
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// read returns the one image of a layout. Its blobs are verified by those who read them.
func read(layout string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("reading the toolbox in %q: %w", layout, err)
	}
	if len(index.Manifests) != 1 {
		return ocispec.Descriptor{}, fmt.Errorf("reading the toolbox in %q: it has %d images", layout, len(index.Manifests))
	}
	return index.Manifests[0], nil
}
