// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// derivedDir holds what blobs were made of: layers that an archive has as plain tars are compressed once.
const derivedDir = "derived"

// maxDerived bounds one such note, in bytes.
const maxDerived = 4 << 10

// Derived returns the blob that was made in one way (how) of content with the digest from; false where it is not, or no
// longer, in the store.
func (s *Store) Derived(from digest.Digest, how string) (ocispec.Descriptor, bool) {
	var d ocispec.Descriptor
	info, err := os.Stat(s.derivedPath(from, how))
	if err != nil || info.Size() > maxDerived {
		return d, false
	}
	data, err := os.ReadFile(s.derivedPath(from, how))
	if err != nil || json.Unmarshal(data, &d) != nil || d.Digest.Validate() != nil {
		return ocispec.Descriptor{}, false
	}
	if fi, err := os.Stat(s.BlobPath(d.Digest)); err != nil || fi.Size() != d.Size {
		return ocispec.Descriptor{}, false
	}
	return d, true
}

// SetDerived notes which blob was made. It is no tag: Prune removes the blob unless something else needs it, and the note
// with it.
func (s *Store) SetDerived(from digest.Digest, how string, made ocispec.Descriptor) error {
	data, err := json.Marshal(made)
	if err != nil {
		return fmt.Errorf("noting %s: %w", made.Digest, err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, derivedDir), 0o755); err != nil {
		return fmt.Errorf("noting %s: %w", made.Digest, err)
	}
	return atomicfile.Write(s.derivedPath(from, how), data, 0o644)
}

func (s *Store) derivedPath(from digest.Digest, how string) string {
	return filepath.Join(s.dir, derivedDir, from.Algorithm().String()+"-"+from.Encoded()+"."+how+".json")
}

// pruneDerived removes notes whose blob is gone.
func (s *Store) pruneDerived() error {
	dir := filepath.Join(s.dir, derivedDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var d ocispec.Descriptor
		data, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(data, &d) == nil && d.Digest.Validate() == nil {
			if _, err := os.Stat(s.BlobPath(d.Digest)); err == nil {
				continue
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
