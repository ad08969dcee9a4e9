// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/store"
)

// Archive is an OCI layout in an archive, looked at where it lies. It is a
// content.Provider of the blobs in it, which nobody has verified.
type Archive struct {
	s      *source
	blobs  map[digest.Digest]item
	images []imageEntry
	// left are the blobs that a difference archive leaves out; base may have them.
	left map[digest.Digest]bool
	base content.Provider
}

// OpenArchive opens the archive of an OCI layout: a file that is not
// compressed, or the parts of a split one. base has what a difference archive
// leaves out. Errors are *ArchiveError, *ForeignError, *UnseenError. The caller closes it.
func OpenArchive(path string, base content.Provider) (_ *Archive, err error) {
	s, err := openSource(path)
	if err != nil {
		return nil, err
	}
	a := &Archive{s: s, base: base, blobs: map[digest.Digest]item{}, left: map[digest.Digest]bool{}}
	if err := a.read(); err != nil {
		_ = s.Close() // nothing was written
		return nil, err
	}
	return a, nil
}

func (a *Archive) read() error {
	plain, err := decompress(io.NewSectionReader(a.s, 0, a.s.size))
	if err != nil {
		return a.s.wrong("", 0, 1, err)
	}
	if plain != nil {
		_ = plain.Close() // only looked at
		return &UnseenError{Archive: a.s.name, Why: "is compressed"}
	}
	items, err := scan(a.s, 0, a.s.size)
	if err != nil {
		return err
	}
	for _, it := range items {
		if d, ok := it.blob(); ok {
			a.blobs[d] = it
		}
	}
	it, ok := file(items, indexFile)
	if !ok {
		if _, ok := file(items, dockerFile); ok {
			return &UnseenError{Archive: a.s.name, Why: "is in Docker's own format, in which nothing has a digest"}
		}
		return (&loader{name: a.s.name}).foreign(items)
	}
	var contents *Contents
	if it, ok := file(items, ContentsFile); ok {
		data, err := a.s.document(it, maxContents)
		if err != nil {
			return err
		}
		if contents, err = parseContents(data); err != nil {
			return a.s.wrong(it.name, it.at, it.size, err)
		}
		for _, d := range contents.Missing {
			a.left[d.Digest] = true
		}
	}
	data, err := a.s.document(it, maxIndex)
	if err != nil {
		return err
	}
	if a.images, err = parseIndexFile(data, contents); err != nil {
		return a.s.wrong(it.name, it.at, it.size, err)
	}
	return nil
}

// Images are those of the archive, in its order, signatures too. A name may be a tag alone, or missing.
func (a *Archive) Images() []store.Tagged {
	var out []store.Tagged
	for _, img := range a.images {
		out = append(out, store.Tagged{Name: img.name, Descriptor: img.desc})
	}
	return out
}

// Resolve finds an image by its name, the end of it, its tag or its digest. ref may be empty where there is one image.
// The error is a *ChoiceError.
func (a *Archive) Resolve(ref string) (store.Tagged, error) {
	var found []store.Tagged
	var names []string
	for _, t := range a.Images() {
		if _, ok := store.Signed(t.Name); ok {
			continue
		}
		names = append(names, strings.TrimSpace(t.Name+" "+t.Descriptor.Digest.String()))
		if ref == "" || isCalled(t, ref) {
			found = append(found, t)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	slices.Sort(names)
	return store.Tagged{}, &ChoiceError{Archive: a.s.name, Ref: ref, Have: names, Several: len(found) > 1}
}

func isCalled(t store.Tagged, ref string) bool {
	if t.Name == ref || t.Descriptor.Digest.String() == strings.TrimPrefix(ref, "@") || strings.HasSuffix(t.Name, ":"+ref) || strings.HasSuffix(t.Name, "/"+ref) {
		return true
	}
	named, err := reference.ParseNormalizedNamed(ref)
	return err == nil && t.Name == reference.TagNameOnly(named).String()
}

// Signatures lists the manifests that hold signatures of an image.
func (a *Archive) Signatures(_ context.Context, image digest.Digest) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, t := range a.Images() {
		if d, ok := store.Signed(t.Name); ok && d == image {
			out = append(out, t.Descriptor)
		}
	}
	return out, nil
}

// ReaderAt reads a blob. An errdefs.ErrNotFound says that it is not in the archive.
func (a *Archive) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if it, ok := a.blobs[desc.Digest]; ok {
		return entryReader{io.NewSectionReader(a.s, it.data, it.size)}, nil
	}
	if a.left[desc.Digest] {
		if a.base != nil {
			r, err := a.base.ReaderAt(ctx, desc)
			if !errdefs.IsNotFound(err) {
				return r, err
			}
		}
		return nil, fmt.Errorf("%s is left out of %q, and not in the store: %w", desc.Digest, a.s.name, errdefs.ErrNotFound)
	}
	return nil, fmt.Errorf("%s is not in %q: %w", desc.Digest, a.s.name, errdefs.ErrNotFound)
}

type entryReader struct{ *io.SectionReader }

func (entryReader) Close() error { return nil }

// Close closes the files.
func (a *Archive) Close() error { return a.s.Close() }

// UnseenError says that an archive can be loaded, and not looked into.
type UnseenError struct{ Archive, Why string }

func (e *UnseenError) Error() string {
	return fmt.Sprintf("looking into %q: it %s", e.Archive, e.Why)
}

// Hint tells the user what to do.
func (e *UnseenError) Hint() string {
	return "sealer load -i " + e.Archive + " brings it into the store, where it can be looked at"
}

// ChoiceError is a name that does not stand for one image of an archive.
type ChoiceError struct {
	Archive, Ref string
	Have         []string // names and digests
	Several      bool
}

func (e *ChoiceError) Error() string {
	have := strings.Join(e.Have, ", ")
	switch {
	case e.Several && e.Ref == "":
		return fmt.Sprintf("looking into %q: it holds several images: %s", e.Archive, have)
	case e.Several:
		return fmt.Sprintf("looking into %q: %q stands for more than one image of %s", e.Archive, e.Ref, have)
	}
	return fmt.Sprintf("looking into %q: it has no image %q, it has %s", e.Archive, e.Ref, have)
}

// Hint tells the user what to do.
func (e *ChoiceError) Hint() string {
	return "say which one behind the file: oci-archive:" + e.Archive + ":NAME"
}
