// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// Diff is how one image becomes another.
type Diff struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Same   bool          `json:"same"` // one digest
	Images []ImageChange `json:"images"`
	Files  []FileChange  `json:"files"`
	// FilesCompared is false where an image is in a registry, and its layers were not fetched.
	FilesCompared bool `json:"filesCompared"`
	// Blobs and Bytes are what somebody who has From still needs to have To.
	Blobs int   `json:"blobsToShip"`
	Bytes int64 `json:"bytesToShip"`
	// Total is the size of To in bytes.
	Total int64 `json:"totalBytes"`
}

// Kinds of changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// ImageChange is a container image that only one of them packs, or that is another one.
type ImageChange struct {
	Change   string `json:"change"`
	Name     string `json:"name"`
	Platform string `json:"platform"`
	From     string `json:"from,omitempty"` // digests
	To       string `json:"to,omitempty"`
	Size     int64  `json:"size"` // of the later one
}

// FileChange is a file of the rootfs that is not the same.
type FileChange struct {
	Change   string `json:"change"`
	Path     string `json:"path"`
	Platform string `json:"platform"`
	// What is different, where the file is in both: content, mode, owner, type, link.
	What []string `json:"what,omitempty"`
	Size int64    `json:"size"` // of the later one
}

// Compare tells two ClusterImages apart.
func Compare(ctx context.Context, from, to *Subject) (*Diff, error) {
	a, err := from.Image(ctx)
	if err != nil {
		return nil, err
	}
	b, err := to.Image(ctx)
	if err != nil {
		return nil, err
	}
	d := &Diff{
		From: from.Name, To: to.Name, Same: from.Descriptor.Digest == to.Descriptor.Digest,
		Images: []ImageChange{}, Files: []FileChange{}, FilesCompared: from.Local && to.Local,
	}
	if err := d.images(ctx, from, to); err != nil {
		return nil, err
	}
	if err := d.ship(ctx, from, to); err != nil {
		return nil, err
	}
	if !d.FilesCompared {
		return d, nil
	}
	return d, d.files(ctx, from, to, a, b)
}

func (d *Diff) images(ctx context.Context, from, to *Subject) error {
	key := func(p Packed) string { return p.Name + " " + p.Platform }
	list := func(s *Subject) (map[string]Packed, error) {
		desc, err := Describe(ctx, s)
		if err != nil {
			return nil, err
		}
		out := map[string]Packed{}
		for _, p := range desc.Images {
			out[key(p)] = p
		}
		return out, nil
	}
	a, err := list(from)
	if err != nil {
		return err
	}
	b, err := list(to)
	if err != nil {
		return err
	}
	for k, p := range b {
		switch old, ok := a[k]; {
		case !ok:
			d.Images = append(d.Images, ImageChange{Change: Added, Name: p.Name, Platform: p.Platform, To: p.Digest, Size: p.Size})
		case old.Digest != p.Digest:
			d.Images = append(d.Images, ImageChange{Change: Changed, Name: p.Name, Platform: p.Platform, From: old.Digest, To: p.Digest, Size: p.Size})
		}
	}
	for k, p := range a {
		if _, ok := b[k]; !ok {
			d.Images = append(d.Images, ImageChange{Change: Removed, Name: p.Name, Platform: p.Platform, From: p.Digest, Size: p.Size})
		}
	}
	slices.SortFunc(d.Images, func(a, b ImageChange) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform))
	})
	return nil
}

func (d *Diff) ship(ctx context.Context, from, to *Subject) error {
	have := map[digest.Digest]bool{}
	blobs, err := from.blobs(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", from.Name, err)
	}
	for _, b := range blobs {
		have[b.Digest] = true
	}
	if blobs, err = to.blobs(ctx); err != nil {
		return fmt.Errorf("reading %s: %w", to.Name, err)
	}
	for _, b := range blobs {
		d.Total += b.Size
		if !have[b.Digest] {
			d.Blobs++
			d.Bytes += b.Size
		}
	}
	return nil
}

// files compares the rootfs of each platform that both have.
func (d *Diff) files(ctx context.Context, from, to *Subject, a, b *clusterimage.Image) error {
	for _, rb := range b.Rootfs {
		i := slices.IndexFunc(a.Rootfs, func(ra clusterimage.Rootfs) bool {
			return platforms.FormatAll(platforms.Normalize(ra.Platform)) == platforms.FormatAll(platforms.Normalize(rb.Platform))
		})
		if i < 0 || rb.Absent || a.Rootfs[i].Absent {
			continue
		}
		changes, err := compareRootfs(ctx, from, to, a.Rootfs[i].Manifest.Layers, rb.Manifest.Layers)
		if err != nil {
			return err
		}
		for _, c := range changes {
			c.Platform = platforms.Format(rb.Platform)
			d.Files = append(d.Files, c)
		}
	}
	return nil
}

func compareRootfs(ctx context.Context, from, to *Subject, a, b []ocispec.Descriptor) ([]FileChange, error) {
	common := 0
	for common < min(len(a), len(b)) && a[common].Digest == b[common].Digest {
		common++
	}
	if common == len(a) && common == len(b) {
		return nil, nil
	}
	below := fileTree{}
	if err := below.layers(ctx, from, a[:common]); err != nil {
		return nil, err
	}
	one, two := below.clone(), below.clone()
	if err := errors.Join(one.layers(ctx, from, a[common:]), two.layers(ctx, to, b[common:])); err != nil {
		return nil, err
	}
	var out []FileChange
	for path, f := range two {
		old, ok := one[path]
		switch what := old.differs(f); {
		case !ok:
			out = append(out, FileChange{Change: Added, Path: path, Size: f.size})
		case len(what) > 0:
			out = append(out, FileChange{Change: Changed, Path: path, What: what, Size: f.size})
		}
	}
	for path, f := range one {
		if _, ok := two[path]; !ok {
			out = append(out, FileChange{Change: Removed, Path: path, Size: f.size})
		}
	}
	slices.SortFunc(out, func(a, b FileChange) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

func (t fileTree) clone() fileTree { return maps.Clone(t) }
