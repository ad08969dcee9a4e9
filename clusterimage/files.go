// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxFile bounds what ReadFiles keeps of one file, in bytes.
const maxFile = 16 << 20

// ReadFiles reads regular files of a rootfs, by their clean paths relative to its root. What is not there, or is no
// regular file of up to 16 MiB, is not in the answer. All layers are read, and verified.
func ReadFiles(ctx context.Context, p content.Provider, layers []ocispec.Descriptor, paths []string) (map[string][]byte, error) {
	found := map[string][]byte{}
	hide := func(path string, itself bool) {
		for name := range found {
			if itself && name == path || path == "" || strings.HasPrefix(name, path+"/") {
				delete(found, name)
			}
		}
	}
	for _, l := range layers {
		err := WalkLayer(ctx, p, l, func(f LayerFile) error {
			switch {
			case f.Opaque:
				hide(f.Path, false)
			case f.Whiteout || !f.Header.FileInfo().IsDir():
				hide(f.Path, true)
			}
			if f.Whiteout || !f.Header.FileInfo().Mode().IsRegular() || f.Header.Size > maxFile || !slices.Contains(paths, f.Path) {
				return nil
			}
			data, err := io.ReadAll(io.LimitReader(f.Content, maxFile))
			found[f.Path] = data
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading the layer %s: %w", l.Digest, err)
		}
	}
	return found, nil
}
