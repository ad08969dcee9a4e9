// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/clusterimage"
)

// PruneOptions say what Prune removes beside unreferenced blobs.
type PruneOptions struct {
	// All also removes images that are known by digest only, without a tag.
	All bool
	// DryRun counts and removes nothing.
	DryRun bool
	// Before spares what was written since then; zero: nothing is spared. Of an image without a tag its manifest counts.
	Before time.Time
	// Waiting is called once, if others hold the store, before the wait for them. It may be nil.
	Waiting func([]Holder)
}

// PruneResult says what was removed (or would be, with DryRun).
type PruneResult struct {
	Blobs int
	// Bytes is the size of the blobs and ingests. What has another hard link,
	// in the build cache or a registry, is counted but still takes its space there.
	Bytes   int64
	Ingests int
	// Freed is the part of Bytes that had no other link, and so is free on the disk now.
	Freed int64
	// Removed are the blobs, and Dropped the names of signatures and of images without a tag that went.
	Removed []ocispec.Descriptor
	Dropped []string
}

// Prune removes the blobs that no tag reaches, downloads that were cut, and
// what dead processes left. It waits until nobody holds the store; when ctx
// ends before, the error is a *BusyError that says who does.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (_ PruneResult, err error) {
	lock, err := waitLock(ctx, filepath.Join(s.dir, holdLock), unix.LOCK_EX, func() {
		if o.Waiting != nil {
			o.Waiting(s.holders())
		}
	})
	if err != nil {
		if ctx.Err() != nil {
			return PruneResult{}, &BusyError{Dir: s.dir, Holders: s.holders(), Err: err}
		}
		return PruneResult{}, fmt.Errorf("pruning store %q: %w", s.dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s.holders()

	var res PruneResult
	keep, err := s.reachable(ctx, o, &res)
	if err != nil {
		return PruneResult{}, fmt.Errorf("pruning store %q: %w", s.dir, err)
	}
	if err := s.pruneBlobs(ctx, o, keep, &res); err != nil {
		return res, fmt.Errorf("pruning store %q: %w", s.dir, err)
	}
	if err := s.pruneLeftovers(o, &res); err != nil {
		return res, fmt.Errorf("pruning store %q: %w", s.dir, err)
	}
	return res, nil
}

// spares tells whether a file is too new to be removed.
func (o PruneOptions) spares(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && o.sparesTime(fi.ModTime())
}

func (o PruneOptions) sparesTime(t time.Time) bool { return !o.Before.IsZero() && !t.Before(o.Before) }

// reachable marks every blob that a tag needs. It drops the signatures of images
// that are not kept and, with All, the entries that have no tag.
func (s *Store) reachable(ctx context.Context, o PruneOptions, res *PruneResult) (map[digest.Digest]bool, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	m := marker{store: s, keep: map[digest.Digest]bool{}}
	var signatures, gone []Tagged
	for _, t := range all {
		if _, ok := Signed(t.Name); ok {
			signatures = append(signatures, t)
			continue
		}
		if o.All && (t.Name == "" || strings.Contains(t.Name, "@")) && !o.spares(s.BlobPath(t.Descriptor.Digest)) {
			gone = append(gone, t)
			continue
		}
		if err := m.mark(ctx, t.Descriptor); err != nil {
			return nil, fmt.Errorf("image %s: %w", t.Name, err)
		}
	}
	for _, t := range signatures {
		if image, _ := Signed(t.Name); !m.keep[image] {
			gone = append(gone, t) // what they sign is
			continue
		}
		if err := m.mark(ctx, t.Descriptor); err != nil {
			return nil, fmt.Errorf("signatures %s: %w", t.Name, err)
		}
	}
	for _, t := range gone {
		res.Dropped = append(res.Dropped, t.Name)
		if o.DryRun {
			continue
		}
		if err := s.drop(ctx, t); err != nil {
			return nil, err
		}
	}
	return m.keep, nil
}

func (s *Store) drop(ctx context.Context, gone Tagged) error {
	return s.changeIndex(ctx, func(index *ocispec.Index) error {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
			t := tagged(d)
			return t.Name == gone.Name && t.Descriptor.Digest == gone.Descriptor.Digest
		})
		return nil
	})
}

// marker walks from an image to everything below it. What is not in the store
// (other platforms) has nothing below it.
type marker struct {
	store *Store
	keep  map[digest.Digest]bool
}

func (m *marker) mark(ctx context.Context, d ocispec.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.Digest.Validate() != nil || m.keep[d.Digest] {
		return nil
	}
	m.keep[d.Digest] = true
	// The source index of a packed image is a document: its children are other
	// platforms, which nobody asked for.
	if doc, err := digest.Parse(d.Annotations[clusterimage.AnnotationIndex]); err == nil {
		m.keep[doc] = true
	}
	var err error
	switch {
	case clusterimage.IsIndex(d.MediaType):
		err = m.markIndex(ctx, d)
	case clusterimage.IsManifest(d.MediaType):
		err = m.markManifest(ctx, d)
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func (m *marker) markIndex(ctx context.Context, d ocispec.Descriptor) error {
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, m.store.content, d, &index); err != nil {
		return err
	}
	for _, child := range index.Manifests {
		if err := m.mark(ctx, child); err != nil {
			return err
		}
	}
	return nil
}

func (m *marker) markManifest(ctx context.Context, d ocispec.Descriptor) error {
	var man ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, m.store.content, d, &man); err != nil {
		return err
	}
	m.keep[man.Config.Digest] = true
	for _, l := range man.Layers {
		m.keep[l.Digest] = true
	}
	if man.ArtifactType != clusterimage.ImageListArtifactType {
		return nil
	}
	// A manifest of several names has one entry in the index but may have
	// several source indexes; the list has them all.
	images, err := clusterimage.ReadImageList(ctx, m.store.content, d)
	if err != nil {
		return err
	}
	for _, p := range images {
		if p.Index != nil {
			m.keep[p.Index.Digest] = true
		}
		if err := m.mark(ctx, p.Manifest); err != nil {
			return err
		}
	}
	return nil
}

// pruneBlobs removes the blobs that are not kept.
func (s *Store) pruneBlobs(ctx context.Context, o PruneOptions, keep map[digest.Digest]bool, res *PruneResult) error {
	return filepath.WalkDir(filepath.Join(s.dir, blobsDir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), e.Name())
		if keep[d] {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if o.sparesTime(fi.ModTime()) {
			return nil
		}
		if !o.DryRun {
			if err := os.Remove(path); err != nil { //nolint:gosec // a folder of our own, held exclusively
				return err
			}
		}
		res.Bytes += fi.Size()
		if strings.HasPrefix(e.Name(), ".") { // a small blob that was cut
			res.Ingests++
			res.Freed += fi.Size()
			return nil
		}
		res.Blobs++
		if stat, ok := fi.Sys().(*syscall.Stat_t); ok && stat.Nlink == 1 {
			res.Freed += fi.Size()
		}
		res.Removed = append(res.Removed, ocispec.Descriptor{Digest: d, Size: fi.Size()})
		return nil
	})
}

// pruneLeftovers removes ingests, lock files and the temporary files of an
// index that was never switched. Nobody holds the store: none is in use.
func (s *Store) pruneLeftovers(o PruneOptions, res *PruneResult) error {
	ingests, err := os.ReadDir(filepath.Join(s.dir, ingestDir))
	if err != nil {
		return err
	}
	for _, e := range ingests {
		path := filepath.Join(s.dir, ingestDir, e.Name())
		if o.spares(filepath.Join(path, "data")) {
			continue
		}
		if fi, err := os.Stat(filepath.Join(path, "data")); err == nil {
			res.Bytes += fi.Size()
			res.Freed += fi.Size()
		}
		res.Ingests++
		if o.DryRun {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if o.DryRun {
		return nil
	}
	if err := s.pruneDerived(); err != nil {
		return err
	}
	for _, pattern := range []string{
		filepath.Join(s.dir, "."+ocispec.ImageIndexFile+".*"),
		filepath.Join(s.dir, "."+ocispec.ImageLayoutFile+".*"),
		filepath.Join(s.dir, locksDir, "*"),
		filepath.Join(s.dir, ".fsverity-check-*"), // containerd's, made at Open
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}
