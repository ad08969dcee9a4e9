// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// maxIndex bounds index.json, in bytes.
const maxIndex = 64 << 20

// annotationContainerdName is where containerd and BuildKit look for the full name.
const annotationContainerdName = "io.containerd.image.name"

// Tagged is an image under a name.
type Tagged struct {
	// Name is the full reference: docker.io/library/x:1, or
	// r.io/x@sha256:… for what was pulled by digest alone.
	Name       string
	Descriptor ocispec.Descriptor
}

// tagName is the name that a reference is stored under.
func tagName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("reading the image name %q: %w", name, err)
	}
	if tagged, ok := named.(reference.NamedTagged); ok {
		// The digest of repo:tag@digest is in the descriptor.
		t, err := reference.WithTag(reference.TrimNamed(named), tagged.Tag())
		if err != nil {
			return "", fmt.Errorf("reading the image name %q: %w", name, err)
		}
		return t.String(), nil
	}
	return reference.TagNameOnly(named).String(), nil
}

// List returns every tag, sorted by name.
func (s *Store) List(ctx context.Context) ([]Tagged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	index, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	out := make([]Tagged, 0, len(index.Manifests))
	for _, d := range index.Manifests {
		out = append(out, tagged(d))
	}
	slices.SortFunc(out, func(a, b Tagged) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// tagged splits the name off an entry of index.json.
func tagged(d ocispec.Descriptor) Tagged {
	t := Tagged{Name: cmp.Or(d.Annotations[annotationContainerdName], d.Annotations[ocispec.AnnotationRefName])}
	d.Annotations = maps.Clone(d.Annotations)
	delete(d.Annotations, annotationContainerdName)
	delete(d.Annotations, ocispec.AnnotationRefName)
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
	t.Descriptor = d
	return t
}

// Tag gives name to desc, whose blob is in the store; another image loses the
// name. The switch is atomic and durable when Tag returns.
func (s *Store) Tag(ctx context.Context, name string, desc ocispec.Descriptor) error {
	full, err := tagName(name)
	if err != nil {
		return err
	}
	if _, err := s.content.Info(ctx, desc.Digest); err != nil {
		return fmt.Errorf("tagging %s as %s: %w", desc.Digest, full, err)
	}
	// The small blobs that the image consists of are durable, but for their names.
	if err := atomicfile.SyncFolder(filepath.Join(s.dir, blobsDir, digest.Canonical.String())); err != nil {
		return fmt.Errorf("tagging %s as %s: %w", desc.Digest, full, err)
	}
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[ocispec.AnnotationRefName] = full
	desc.Annotations[annotationContainerdName] = full
	return s.changeIndex(ctx, func(index *ocispec.Index) error {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return tagged(d).Name == full })
		index.Manifests = append(index.Manifests, desc)
		return nil
	})
}

// Untag takes a name away; the blobs stay until Prune. A name that is not
// there is a *NotFoundError.
func (s *Store) Untag(ctx context.Context, name string) error {
	full, err := tagName(name)
	if err != nil {
		return err
	}
	return s.changeIndex(ctx, func(index *ocispec.Index) error {
		n := len(index.Manifests)
		names := make([]string, 0, n)
		for _, d := range index.Manifests {
			names = append(names, tagged(d).Name)
		}
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return tagged(d).Name == full })
		if len(index.Manifests) == n {
			return &NotFoundError{Ref: name, Near: near(full, names)}
		}
		return nil
	})
}

// changeIndex reads, changes and replaces index.json under a lock.
func (s *Store) changeIndex(ctx context.Context, change func(*ocispec.Index) error) (err error) {
	f, err := waitLock(ctx, filepath.Join(s.dir, indexLock), unix.LOCK_EX, nil)
	if err != nil {
		return fmt.Errorf("locking the index of store %q: %w", s.dir, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(&index); err != nil {
		return err
	}
	slices.SortStableFunc(index.Manifests, func(a, b ocispec.Descriptor) int {
		return cmp.Compare(tagged(a).Name, tagged(b).Name)
	})
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("writing the index of store %q: %w", s.dir, err)
	}
	return atomicfile.Write(filepath.Join(s.dir, ocispec.ImageIndexFile), data, 0o644)
}

func (s *Store) readIndex() (ocispec.Index, error) {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	path := filepath.Join(s.dir, ocispec.ImageIndexFile)
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return index, nil
	}
	if err != nil {
		return index, fmt.Errorf("reading the index of store %q: %w", s.dir, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return index, fmt.Errorf("reading %q: %w", path, err)
	}
	if len(data) > maxIndex {
		return index, fmt.Errorf("reading %q: it is larger than %d bytes", path, maxIndex)
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fmt.Errorf("reading %q: %w", path, err)
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return index, fmt.Errorf("reading %q: entry %q: %w", path, tagged(d).Name, err)
		}
	}
	return index, nil
}
