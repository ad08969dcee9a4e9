// SPDX-License-Identifier: Apache-2.0

// Package archive reads container images that lie elsewhere than in a registry: in an archive of docker save, an OCI
// layout in an archive or a folder, or a Docker daemon. Archives are read as streams, twice: once for the documents, once
// for the layers that the store lacks. Memory does not grow with their size.
//
// What an archive holds as OCI has it is taken as it is, with its digests. The layers of docker save's own format, which
// has no manifests, are compressed as they are read, always in the same way, and a manifest is made for them: the same
// archive gives the same digests.
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// Limits. A file that goes beyond one is refused.
const (
	maxEntries   = 1 << 20   // of an archive
	maxDocument  = 4 << 20   // bytes of a manifest, config or index
	maxDocuments = 128 << 20 // bytes of all of them in one archive
	maxLinks     = 16        // links that lead from one to the next
	maxWindow    = 128 << 20 // bytes of zstd's window: --long=27
)

// Kinds of layers that are made.
const (
	Zstd = "zstd"
	Gzip = "gzip"
)

// Archive is what was listed of a source. Its images are in no store yet. Close lets go of what the listing keeps.
type Archive struct {
	// Name is the source, for messages.
	Name string
	// Images are sorted by name and platform.
	Images []Image
	// Unnamed counts images without a name of their own; those of a source with one image get a name with Rename.
	Unnamed []Image

	content contents
	entries map[string]entry
	docs    map[string][]byte
	close   func() error
}

// Image is one image of an archive, for one platform.
type Image struct {
	// Name is the full reference; empty where the archive has none for it.
	Name string
	// Tag is what an archive has in place of a name.
	Tag      string
	Platform ocispec.Platform
	// Index and Manifest are documents of the archive. Manifest has no digest where docker save's format has no manifest.
	Index    *ocispec.Descriptor
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor

	config []byte
	layers []layer
	parsed ocispec.Manifest
}

// layer is a file system change in docker save's format.
type layer struct {
	entry  string
	diffID digest.Digest
}

// Error is a source that cannot be read.
type Error struct {
	Source string
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("reading %s: %v", e.Source, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *Error) Hint() string {
	var damaged *clusterimage.DigestError
	var format *FormatError
	var daemon *DaemonError
	switch {
	case errors.As(e.Err, &daemon):
		return daemon.Hint()
	case errors.Is(e.Err, io.ErrUnexpectedEOF), errors.As(e.Err, &damaged):
		return "the archive is cut short or damaged: copy it again, or save the images again"
	case errors.As(e.Err, &format):
		return "sealer reads what docker save, podman save, skopeo copy, crane pull, ctr image export and nerdctl save write, plain or as .gz or .zst"
	case errors.Is(e.Err, fs.ErrNotExist):
		return "paths are relative to the build context"
	}
	return ""
}

// FormatError says that a file is no archive of images.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "it is no archive of images: " + e.Reason }

// list reads the documents of a source and finds its images.
func list(ctx context.Context, name, ref string, c contents, closer func() error) (_ *Archive, err error) {
	a := &Archive{Name: name, content: c, entries: map[string]entry{}, docs: map[string][]byte{}, close: closer}
	defer func() {
		if err != nil {
			err = errors.Join(&Error{Source: name, Err: err}, a.Close())
		}
	}()
	if err := a.read(ctx); err != nil {
		return nil, err
	}
	images, err := a.find(ctx)
	if err != nil {
		return nil, err
	}
	if images, err = selected(images, ref); err != nil {
		return nil, err
	}
	a.Images = slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return i.Name == "" })
	a.Unnamed = slices.DeleteFunc(images, func(i Image) bool { return i.Name != "" })
	slices.SortStableFunc(a.Images, func(x, y Image) int {
		return strings.Compare(x.Name+" "+platforms.FormatAll(x.Platform), y.Name+" "+platforms.FormatAll(y.Platform))
	})
	return a, nil
}

// Close lets go of what was fetched to be read. The archive is of no use after it.
func (a *Archive) Close() error {
	if a.close == nil {
		return nil
	}
	return a.close()
}

// Rename gives the one image of the source another name; where there are several, that is an error that lists them.
func (a *Archive) Rename(name string) error {
	all := append(slices.Clone(a.Images), a.Unnamed...)
	tops := map[digest.Digest]bool{}
	var have []string
	for i := range all {
		top := all[i].Config.Digest
		if all[i].Index != nil {
			top = all[i].Index.Digest
		}
		if !tops[top] {
			tops[top] = true
			have = append(have, all[i].called(top))
		}
		all[i].Name = name
	}
	if len(tops) != 1 {
		return &Error{Source: a.Name, Err: fmt.Errorf("it holds %d images (%s), which cannot all be %s: write which one is meant behind the path", len(tops), strings.Join(have, ", "), name)}
	}
	a.Images, a.Unnamed = slices.CompactFunc(all, func(x, y Image) bool { return x.Config.Digest == y.Config.Digest }), nil
	return nil
}

// called is how messages name an image, which can be written behind a source.
func (i *Image) called(d digest.Digest) string { return cmp.Or(i.Name, i.Tag, d.String()) }

// find goes by what is there: an OCI layout before docker save's list, which newer ones have beside it.
func (a *Archive) find(ctx context.Context) ([]Image, error) {
	index, hasIndex := a.docs[ocispec.ImageIndexFile]
	saved, hasSaved := a.docs[savedList]
	switch {
	case hasIndex:
		names := map[digest.Digest][]string{}
		if hasSaved {
			var err error
			if names, err = a.savedNames(saved); err != nil {
				return nil, err
			}
		}
		return a.layout(ctx, index, names)
	case hasSaved:
		return a.saved(saved)
	case len(a.entries) == 0:
		return nil, &FormatError{"it is empty"}
	}
	return nil, &FormatError{fmt.Sprintf("it has neither %s nor %s", ocispec.ImageIndexFile, savedList)}
}

// fullName completes the name that an archive has for an image; empty: it is none.
func fullName(text string) string {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return ""
	}
	return reference.TagNameOnly(named).String()
}

// selected keeps the images that ref stands for: a name, a bare tag, or a digest. An empty ref keeps all.
func selected(images []Image, ref string) ([]Image, error) {
	if ref == "" {
		return images, nil
	}
	full := fullName(ref)
	var out []Image
	var have []string
	for _, i := range images {
		_, tag, _ := strings.Cut(i.Name[strings.LastIndexByte(i.Name, '/')+1:], ":")
		tag = cmp.Or(tag, i.Tag)
		digests := []string{i.Manifest.Digest.String(), i.Config.Digest.String()}
		if i.Index != nil {
			digests = append(digests, i.Index.Digest.String())
		}
		if i.Name == full || tag == ref || slices.Contains(digests, strings.TrimPrefix(ref, "@")) {
			out = append(out, i)
		}
		have = append(have, i.called(i.Config.Digest))
	}
	if len(out) == 0 {
		slices.Sort(have)
		return nil, fmt.Errorf("it has no image %q, it has %s", ref, strings.Join(slices.Compact(have), ", "))
	}
	return out, nil
}
