// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Link takes a blob over from file, which some other content store has verified
// and will not change: by a hard link, or, where the file system allows none,
// by a verified copy. It says whether the blob is new to the store. A file
// whose size is not the descriptor's is refused.
func (s *Store) Link(ctx context.Context, desc ocispec.Descriptor, file string) (bool, error) {
	if err := desc.Digest.Validate(); err != nil {
		return false, fmt.Errorf("linking %q: %w", file, err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		return false, fmt.Errorf("linking %s: %w", desc.Digest, err)
	}
	if !fi.Mode().IsRegular() || fi.Size() != desc.Size {
		return false, fmt.Errorf("linking %s: %q has %d bytes, not %d", desc.Digest, file, fi.Size(), desc.Size)
	}
	target := s.BlobPath(desc.Digest)
	err = os.Link(file, target)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return false, fmt.Errorf("linking %s: %w", desc.Digest, err)
		}
		err = os.Link(file, target)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrExist):
		return false, nil
	}
	return s.copyIn(ctx, desc, file)
}

func (s *Store) copyIn(ctx context.Context, desc ocispec.Descriptor, file string) (_ bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef("copy-"+desc.Digest.String()), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	defer w.Close() // after Commit there is nothing to close
	// From the start: what is left of an earlier copy may be of another file.
	if err := w.Truncate(0); err != nil {
		return false, fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	if _, err := io.Copy(w, f); err != nil {
		return false, fmt.Errorf("copying %s: %w", desc.Digest, err)
	}
	err = w.Commit(ctx, desc.Size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("copying %s from %q: %w", desc.Digest, file, err)
	}
	return true, nil
}
