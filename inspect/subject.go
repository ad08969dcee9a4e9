// SPDX-License-Identifier: Apache-2.0

// Package inspect looks into images, in the store, a registry or an archive: what a ClusterImage holds and why, what
// it shares with others, how two differ, and whether all of it is whole. It
// changes nothing.
package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/signature"
	"github.com/sealerio/sealer/store"
)

// Subject is an image with what its content is read from.
type Subject struct {
	Name       string
	Descriptor ocispec.Descriptor
	Content    content.Provider
	Signatures signature.Source
	// Open streams a blob, of any size. What is read is not verified.
	Open func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// Local says that layers can be read at once, and need not be fetched.
	Local bool

	image *clusterimage.Image
}

// InStore is an image of a store.
func InStore(st *store.Store, t store.Tagged) *Subject {
	return &Subject{
		Name: t.Name, Descriptor: t.Descriptor, Content: st.Content(), Signatures: signature.InStore(st), Local: true,
		Open: opener(st.Content()),
	}
}

type blobReader struct {
	io.Reader
	io.Closer
}

// InRegistry is an image of a registry. Only its documents are fetched.
func InRegistry(ctx context.Context, c *registry.Client, ref string) (*Subject, error) {
	repo, err := c.Repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return nil, err
	}
	return &Subject{
		Name: ref, Descriptor: desc, Content: repo, Signatures: signature.InRegistry(repo), Open: repo.Open,
	}, nil
}

// Image reads the ClusterImage; another kind of image is a *clusterimage.NotClusterImageError. Of an image in a registry, the
// documents of all that is packed come with one request.
func (s *Subject) Image(ctx context.Context) (*clusterimage.Image, error) {
	if s.image != nil {
		return s.image, nil
	}
	img, err := clusterimage.Read(ctx, s.Content, s.Descriptor)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.Name, err)
	}
	if !s.Local {
		docs := documents{Provider: s.Content, docs: map[digest.Digest][]byte{}}
		for _, d := range img.Index.Manifests {
			if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
				continue
			}
			for doc, err := range clusterimage.ReadDocuments(ctx, s.Content, d) {
				if err != nil {
					return nil, fmt.Errorf("reading %s: %w", s.Name, err)
				}
				docs.docs[doc.Digest] = doc.Data
			}
		}
		s.Content = docs
	}
	s.image = img
	return img, nil
}

// documents has the documents of packed images in front of a registry.
type documents struct {
	content.Provider
	docs map[digest.Digest][]byte
}

func (d documents) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if data, ok := d.docs[desc.Digest]; ok {
		return memory{bytes.NewReader(data)}, nil
	}
	return d.Provider.ReaderAt(ctx, desc)
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// blobs are all blobs of the image that are meant to be there: those of its present platforms.
func (s *Subject) blobs(ctx context.Context) ([]ocispec.Descriptor, error) {
	img, err := s.Image(ctx)
	if errors.Is(err, clusterimage.ErrNotClusterImage) {
		return s.plainBlobs(ctx, s.Descriptor, 0)
	}
	if err != nil {
		return nil, err
	}
	var want []ocispec.Platform
	absent := false
	for _, r := range img.Rootfs {
		if absent = absent || r.Absent; !r.Absent {
			want = append(want, r.Platform)
		}
	}
	if !absent {
		want = nil
	}
	return img.Descriptors(ctx, s.Content, want)
}

// maxNesting bounds how deep an index may name indexes.
const maxNesting = 3

// plainBlobs are those of an ordinary image, as far as it is there.
func (s *Subject) plainBlobs(ctx context.Context, d ocispec.Descriptor, depth int) ([]ocispec.Descriptor, error) {
	var doc struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	err := clusterimage.ReadJSON(ctx, s.Content, d, &doc)
	if errdefs.IsNotFound(err) && depth > 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := []ocispec.Descriptor{d}
	if doc.Config != nil {
		out = append(out, *doc.Config)
	}
	for _, l := range doc.Layers {
		if clusterimage.Distributable(l) {
			out = append(out, l)
		}
	}
	for _, m := range doc.Manifests {
		if depth >= maxNesting {
			return nil, fmt.Errorf("reading %s: indexes are nested more than %d deep", s.Name, maxNesting)
		}
		below, err := s.plainBlobs(ctx, m, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	seen := map[digest.Digest]bool{}
	unique := out[:0]
	for _, b := range out {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			unique = append(unique, b)
		}
	}
	return unique, nil
}
