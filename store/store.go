// SPDX-License-Identifier: Apache-2.0

// Package store is the local content store: an OCI image layout whose blobs
// are written by containerd's content store, so that downloads resume, and any
// OCI tool reads the folder. Several processes may use one store at once.
package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// Folders and files of the layout. Those that OCI does not name are ignored by
// other tools.
const (
	blobsDir   = "blobs"
	ingestDir  = "ingest"
	locksDir   = "locks"
	holdersDir = "holders"
	indexLock  = "index.lock"
	holdLock   = "hold.lock"
)

// Store is an OCI layout in a folder. It holds no open files between calls and
// needs no closing.
type Store struct {
	dir     string
	content *contentStore
}

// Open opens the store in dir and creates it, readable for its owner's group
// and others as umask allows, where there is none. A folder that holds
// something else than an OCI layout is an error.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening store %q: %w", dir, err)
	}
	if err := prepare(dir); err != nil {
		return nil, fmt.Errorf("opening store %q: %w", dir, err)
	}
	cs, err := local.NewStore(dir)
	if err != nil {
		return nil, fmt.Errorf("opening store %q: %w", dir, err)
	}
	return &Store{dir: dir, content: &contentStore{Store: cs, locks: filepath.Join(dir, locksDir)}}, nil
}

func prepare(dir string) error {
	for _, sub := range []string{filepath.Join(blobsDir, digest.Canonical.String()), ingestDir, locksDir, holdersDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, ocispec.ImageLayoutFile)
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		data, err = json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		if err != nil {
			return err
		}
		return atomicfile.Write(path, data, 0o644)
	}
	if err != nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%q says version %q of the layout, sealer knows %q", path, layout.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// Dir is the store's folder, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Content gives access to the blobs. One writer at a time, over all processes,
// may write to a ref; a second gets errdefs.ErrUnavailable. A blob that is said to
// have at most 256 KiB is kept in memory until it is complete, and may have several
// writers. Callers that write blobs which no tag reaches yet do so under Hold.
func (s *Store) Content() content.Store { return &sizedStore{contentStore: s.content, store: s} }

// BlobPath is where the blob lies, whether it is there or not. The digest is
// one that Validate accepts.
func (s *Store) BlobPath(d digest.Digest) string {
	return filepath.Join(s.dir, blobsDir, d.Algorithm().String(), d.Encoded())
}
