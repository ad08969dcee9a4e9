// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
)

// MissingError says that a blob is not in the store. It is also an errdefs.ErrNotFound.
type MissingError struct{ Digest digest.Digest }

func (e *MissingError) Error() string { return fmt.Sprintf("%s is not in the store", e.Digest) }

// Unwrap makes the error an errdefs.ErrNotFound.
func (e *MissingError) Unwrap() error { return errdefs.ErrNotFound }

// IncompleteError says that an image cannot be saved because the store has
// only part of it.
type IncompleteError struct {
	Image   string
	Missing digest.Digest
	// Have are the platforms that the store has whole, of those that it names.
	Have, Named []string
}

func (e *IncompleteError) Error() string {
	if len(e.Have) > 0 && len(e.Have) < len(e.Named) {
		return fmt.Sprintf("%s is in the store for %s only, it also has %s", e.Image, strings.Join(e.Have, ", "), strings.Join(without(e.Named, e.Have), ", "))
	}
	return fmt.Sprintf("%s is not complete in the store: %s is missing", e.Image, e.Missing)
}

// Hint tells the user what to do.
func (e *IncompleteError) Hint() string {
	if len(e.Have) > 0 && len(e.Have) < len(e.Named) {
		return "add --platform " + strings.Join(e.Have, ",") + ", or pull the image for all its platforms"
	}
	return "pull it again for all its platforms"
}

func without(all, some []string) []string {
	have := map[string]bool{}
	for _, s := range some {
		have[s] = true
	}
	var out []string
	for _, a := range all {
		if !have[a] {
			out = append(out, a)
		}
	}
	return out
}

// BaseError says that an archive holds only what an image has beyond others,
// and that the store lacks some of what those have.
type BaseError struct {
	Archive string
	// Since are the images that come first, with their digests.
	Since []Member
	// Blobs and Bytes are what is missing; First is one of it.
	Blobs int
	Bytes int64
	First digest.Digest
}

func (e *BaseError) Error() string {
	names := make([]string, 0, len(e.Since))
	for _, s := range e.Since {
		names = append(names, fmt.Sprintf("%s (%s)", s.Name, s.Digest))
	}
	return fmt.Sprintf("%q holds only what is new since %s, of which the store lacks %d blobs (%s), such as %s",
		e.Archive, strings.Join(names, ", "), e.Blobs, units.HumanSize(float64(e.Bytes)), e.First)
}

// Hint tells the user what to do.
func (e *BaseError) Hint() string {
	names := make([]string, 0, len(e.Since))
	for _, s := range e.Since {
		names = append(names, s.Name)
	}
	return "first load or pull " + strings.Join(names, ", ")
}

// ArchiveError says what is wrong with an archive, and where.
type ArchiveError struct {
	// Archive is the file, or "standard input".
	Archive string
	// Part is the file of a split archive that holds the place; "" elsewhere.
	Part string
	// Entry is the name of the tar's entry, "" where it is none's fault.
	Entry string
	// Offset is the place in the archive, in bytes; in Part where that is set.
	Offset int64
	Err    error
}

func (e *ArchiveError) Error() string {
	var at strings.Builder
	fmt.Fprintf(&at, "reading %q: ", e.Archive)
	if e.Entry != "" {
		fmt.Fprintf(&at, "entry %q: ", e.Entry)
	}
	if e.Part != "" {
		fmt.Fprintf(&at, "part %q, ", e.Part)
	}
	fmt.Fprintf(&at, "offset %d: %v", e.Offset, e.Err)
	return at.String()
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *ArchiveError) Hint() string {
	return "copy the archive again and repeat the command; what was read whole is kept and not read again"
}

// ForeignError says that a file is no archive of images.
type ForeignError struct {
	Archive string
	// Why says what was found instead.
	Why string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%q is no archive of images: %s", e.Archive, e.Why)
}

// Hint tells the user what to do.
func (e *ForeignError) Hint() string {
	return "sealer load reads what sealer save, skopeo copy, docker save and podman save write"
}

// NamelessError says that an archive has an image without a name.
type NamelessError struct {
	Archive string
	Digest  digest.Digest
	// Found is what stands for the name, "" where nothing does.
	Found string
}

func (e *NamelessError) Error() string {
	if e.Found != "" {
		return fmt.Sprintf("image %s in %q is named %q, which is only a tag", e.Digest, e.Archive, e.Found)
	}
	return fmt.Sprintf("image %s in %q has no name", e.Digest, e.Archive)
}

// Hint tells the user what to do.
func (e *NamelessError) Hint() string {
	return "give it one with --tag NAME; its content is not read again. Of several images, each keeps its tag behind a NAME without one"
}

// PartsError says that parts of a split archive are missing, or not whole.
type PartsError struct{ Err error }

func (e *PartsError) Error() string { return e.Err.Error() }

func (e *PartsError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *PartsError) Hint() string {
	return "all parts are needed in one folder: copy those that are named here once more"
}

// SeveralError says that one name was given for several images.
type SeveralError struct {
	Archive string
	// Images are what the archive calls them.
	Images []string
}

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%q has %d images (%s), and one name was given for them", e.Archive, len(e.Images), strings.Join(e.Images, ", "))
}

// Hint tells the user what to do.
func (e *SeveralError) Hint() string {
	return "images that have a tag alone get it behind a NAME without one: --tag registry.example.com/team/app"
}
