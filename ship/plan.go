// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// annotationContainerdName is where containerd and Docker look for the full name.
const annotationContainerdName = "io.containerd.image.name"

// block is the unit of a tar, in bytes.
const block = 512

// Options narrow what an archive holds.
type Options struct {
	// Platforms to save; none means all that the images have.
	Platforms []ocispec.Platform
	// Since are images whose blobs are left out. Their documents are in the
	// store; their layers need not be.
	Since []store.Tagged
}

// Plan is an archive before it is written: every entry with its place. The same
// images give the same bytes.
type Plan struct {
	st       *store.Store
	entries  []entry
	size     int64
	contents Contents
}

// entry is a file of the tar.
type entry struct {
	header []byte
	// at is the offset of the header.
	at   int64
	size int64
	name string
	// data is the content where the plan itself has it; else the blob is digest.
	data   []byte
	digest digest.Digest
	// open gives the content where it is no blob as it stands; digest is that of the content.
	open func(ctx context.Context) (io.ReadCloser, error)
}

// NewPlan looks whether the store has all that the images need, and lays the
// archive out. The caller holds the store until the archive is written. The
// error for an image that is not whole is an *IncompleteError.
func NewPlan(ctx context.Context, st *store.Store, images []store.Tagged, o Options) (*Plan, error) {
	if len(images) == 0 {
		return nil, errors.New("saving images: there are none to save")
	}
	p := &Plan{st: st, contents: Contents{SchemaVersion: contentsVersion, Images: []Member{}}}
	theirs, err := p.since(ctx, o)
	if err != nil {
		return nil, err
	}
	var blobs []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, img := range sortedImages(images) {
		all, err := p.needs(ctx, img, o.Platforms, theirs)
		if err != nil {
			return nil, err
		}
		for _, b := range all {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				blobs = append(blobs, b)
			}
		}
		index.Manifests = append(index.Manifests, named(img))
		p.contents.Images = append(p.contents.Images, member(img, o.Platforms))
	}
	var kept []ocispec.Descriptor
	tops := topDigests(images)
	for _, b := range blobs {
		if theirs[b.Digest] && !tops[b.Digest] {
			p.contents.Missing = append(p.contents.Missing, ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size})
			continue
		}
		kept = append(kept, b)
	}
	return p, p.layOut(index, documentsFirst(kept))
}

// since lists what the images of Options.Since have.
func (p *Plan) since(ctx context.Context, o Options) (map[digest.Digest]bool, error) {
	theirs := map[digest.Digest]bool{}
	for _, img := range o.Since {
		blobs, err := Blobs(ctx, p.st.Content(), img.Descriptor, o.Platforms)
		if errdefs.IsNotFound(err) {
			return nil, p.incomplete(ctx, img, "", err)
		}
		if err != nil {
			return nil, fmt.Errorf("reading image %q: %w", img.Name, err)
		}
		for _, b := range blobs {
			theirs[b.Digest] = true
		}
		p.contents.Since = append(p.contents.Since, member(img, o.Platforms))
	}
	return theirs, nil
}

// needs lists an image's blobs, and checks those that will be written.
func (p *Plan) needs(ctx context.Context, img store.Tagged, want []ocispec.Platform, theirs map[digest.Digest]bool) ([]ocispec.Descriptor, error) {
	blobs, err := Blobs(ctx, p.st.Content(), img.Descriptor, want)
	if errdefs.IsNotFound(err) {
		return nil, p.incomplete(ctx, img, "", err)
	}
	if pe, ok := errors.AsType[*clusterimage.PlatformError](err); ok {
		pe.Image = img.Name
	}
	if err != nil {
		return nil, fmt.Errorf("saving %s: %w", img.Name, err)
	}
	var own []ocispec.Descriptor
	for _, b := range blobs {
		if !theirs[b.Digest] {
			own = append(own, b)
		}
	}
	missing, err := Missing(ctx, p.st, own)
	if err != nil {
		return nil, fmt.Errorf("saving %s: %w", img.Name, err)
	}
	if len(missing) > 0 {
		return nil, p.incomplete(ctx, img, missing[0].Digest, nil)
	}
	return blobs, nil
}

// incomplete tells as much as the store knows of an image that is not whole.
func (p *Plan) incomplete(ctx context.Context, img store.Tagged, d digest.Digest, err error) error {
	if me, ok := errors.AsType[*MissingError](err); ok {
		d = me.Digest
	}
	e := &IncompleteError{Image: img.Name, Missing: d}
	have, all, err := Platforms(ctx, p.st, img.Descriptor)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("saving %s: %w", img.Name, err)
	}
	e.Have, e.Named = formatAll(have), formatAll(all)
	return e
}

func sortedImages(images []store.Tagged) []store.Tagged {
	out := slices.Clone(images)
	slices.SortFunc(out, func(a, b store.Tagged) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Descriptor.Digest, b.Descriptor.Digest))
	})
	return slices.CompactFunc(out, func(a, b store.Tagged) bool {
		return a.Name == b.Name && a.Descriptor.Digest == b.Descriptor.Digest
	})
}

func topDigests(images []store.Tagged) map[digest.Digest]bool {
	tops := map[digest.Digest]bool{}
	for _, img := range images {
		tops[img.Descriptor.Digest] = true
	}
	return tops
}

// named is an image's entry of index.json, with its full name where OCI's,
// containerd's and Docker's tools look for it.
func named(img store.Tagged) ocispec.Descriptor {
	d := img.Descriptor
	d.Annotations = map[string]string{ocispec.AnnotationRefName: img.Name, annotationContainerdName: img.Name}
	for k, v := range img.Descriptor.Annotations {
		if _, ours := d.Annotations[k]; !ours {
			d.Annotations[k] = v
		}
	}
	return d
}

func member(img store.Tagged, platforms []ocispec.Platform) Member {
	return Member{Name: img.Name, Digest: img.Descriptor.Digest, Platforms: formatAll(platforms)}
}

// documentsFirst puts what a reader needs to know what is coming before the
// layers. Within each, the order stays.
func documentsFirst(blobs []ocispec.Descriptor) []ocispec.Descriptor {
	layer := func(d ocispec.Descriptor) int {
		if strings.Contains(d.MediaType, "layer") || strings.Contains(d.MediaType, "diff") {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(blobs, func(a, b ocispec.Descriptor) int { return cmp.Compare(layer(a), layer(b)) })
	return blobs
}

// layOut gives every entry its place. The size of the archive stands in one of
// its documents: it is written with room for any size.
func (p *Plan) layOut(index ocispec.Index, blobs []ocispec.Descriptor) error {
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return fmt.Errorf("laying out an archive: %w", err)
	}
	indexData, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("laying out an archive: %w", err)
	}
	for range 4 { // the number of digits of the size may change the size, once
		contents, err := json.Marshal(p.contents)
		if err != nil {
			return fmt.Errorf("laying out an archive: %w", err)
		}
		p.entries, p.size = nil, 0
		err = errors.Join(
			p.add(entry{name: layoutFile, data: layout}),
			p.add(entry{name: ContentsFile, data: contents}),
			p.add(entry{name: indexFile, data: indexData}),
			p.add(entry{name: blobsFolder + "/"}),
			p.add(entry{name: blobsFolder + "/" + digest.Canonical.String() + "/"}),
		)
		for _, b := range blobs {
			err = errors.Join(err, p.add(entry{
				name: path.Join(blobsFolder, b.Digest.Algorithm().String(), b.Digest.Encoded()), size: b.Size, digest: b.Digest,
			}))
		}
		if err != nil {
			return err
		}
		p.size += 2 * block // the tar's end
		if p.contents.Size == p.size {
			return nil
		}
		p.contents.Size = p.size
	}
	return errors.New("laying out an archive: its size does not settle")
}

func (p *Plan) add(e entry) error {
	if e.data != nil {
		e.size = int64(len(e.data))
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: e.size, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(e.name, "/") {
		header.Typeflag, header.Mode = tar.TypeDir, 0o755
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(header); err != nil {
		return fmt.Errorf("laying out entry %q: %w", e.name, err)
	}
	e.header, e.at = buf.Bytes(), p.size
	p.entries = append(p.entries, e)
	p.size += int64(len(e.header)) + padded(e.size)
	return nil
}

// padded is a size rounded up to whole blocks.
func padded(n int64) int64 { return (n + block - 1) / block * block }

// Size is the number of bytes of the archive.
func (p *Plan) Size() int64 { return p.size }

// Contents says what the archive holds, and what it leaves out.
func (p *Plan) Contents() Contents { return p.contents }
