// SPDX-License-Identifier: Apache-2.0

// Package imagelist finds the container images that a cluster needs: in lists
// that the user writes (imageList), in Kubernetes manifests, and in what Helm
// charts and kustomizations render to. It tells for each image where it was
// found, and reports what it cannot read: no image is left out in silence.
package imagelist

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// MaxFile is the largest file that is read, in bytes.
const MaxFile = 32 << 20

// Image is an image that somebody asked for.
type Image struct {
	// Name is the full reference: docker.io/library/nginx:1.27,
	// quay.io/a/b@sha256:…, r.example.com/x:t@sha256:….
	Name     string
	Platform string   // os/arch[/variant]; empty: the platform that is built
	Origins  []Origin // sorted, never empty in what this package returns
	App      string   // the application that asked for it; empty: none did
	// Candidate is true where a text reads like an image and nothing says that it is one: a variable, an argument, a
	// string in a custom resource. It is packed if it exists; if not, that is reported and no mistake.
	Candidate bool
	// Source is what the image is read from instead of its registry: docker-archive:FILE, oci-archive:FILE, archive:FILE
	// (either), oci:FOLDER, each with :REFERENCE where one of several is meant; docker-daemon:NAME. Empty: a registry.
	// With a Source, Name may be empty: every image that is there, under the name that it has there.
	Source string
}

// Origin is a place where an image is asked for.
type Origin struct {
	File string // in a chart, the template
	Line int    // counted from 1; 0 for what was rendered: the whole file
	// Field says what the image is there: "image", "env RELATED_IMAGE_PROXY", "argument --proxy-image"; empty in a list.
	Field string
}

// String returns file:line, or the file alone.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// ReferenceError is a string that is no reference to an image.
type ReferenceError struct {
	Reference string
	Err       error
	hint      string
}

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("%q is not the name of an image: %v", shorten(e.Reference), e.Err)
}

// Unwrap returns what is wrong with the reference.
func (e *ReferenceError) Unwrap() error { return e.Err }

// Hint returns how the reference could be mended, or nothing.
func (e *ReferenceError) Hint() string { return e.hint }

// Normalize completes a reference as docker does: nginx becomes
// docker.io/library/nginx:latest. A reference with a digest keeps its tag, if it
// has one, and gets none otherwise. An error is a *ReferenceError.
func Normalize(ref string) (string, error) {
	if scheme, rest, ok := strings.Cut(ref, "://"); ok {
		return "", &ReferenceError{ref, fmt.Errorf("a reference has no %s:// in front", scheme), "write " + rest}
	}
	if len(ref) > maxReference {
		return "", &ReferenceError{ref, fmt.Errorf("it has %d characters", len(ref)), ""}
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		hint := ""
		if _, err := reference.ParseNormalizedNamed(lowerName(ref)); err == nil {
			hint = "did you mean " + lowerName(ref) + "?"
		}
		return "", &ReferenceError{ref, err, hint}
	}
	return reference.TagNameOnly(named).String(), nil
}

// maxReference is far above what a registry takes: a name of 255 characters,
// a tag of 128 and a digest.
const maxReference = 1024

// lowerName returns a reference with its repository in lower case: tags keep
// theirs.
func lowerName(ref string) string {
	end := len(ref)
	if at := strings.IndexByte(ref, '@'); at >= 0 {
		end = at
	}
	if colon := strings.LastIndexByte(ref[:end], ':'); colon > strings.LastIndexByte(ref[:end], '/') {
		end = colon
	}
	return strings.ToLower(ref[:end]) + ref[end:]
}

// Merge joins lists: sorted by name, platform and source, each once, with
// the origins of all. Where applications differ, the first in byte order stays; an
// image that one place asks for surely is no candidate any more.
func Merge(lists ...[]Image) []Image {
	type key struct{ name, platform, source string }
	found := map[key]*Image{}
	for _, image := range slices.Concat(lists...) {
		k := key{image.Name, image.Platform, image.Source}
		known, ok := found[k]
		if !ok {
			image.Origins = slices.Clone(image.Origins)
			found[k] = &image
			continue
		}
		known.Origins = append(known.Origins, image.Origins...)
		known.Candidate = known.Candidate && image.Candidate
		if image.App != "" && (known.App == "" || image.App < known.App) {
			known.App = image.App
		}
	}
	var merged []Image
	for _, image := range found {
		slices.SortFunc(image.Origins, func(a, b Origin) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
		})
		image.Origins = slices.CompactFunc(image.Origins, func(a, b Origin) bool { return a.File == b.File && a.Line == b.Line })
		merged = append(merged, *image)
	}
	slices.SortFunc(merged, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.Source, b.Source))
	})
	return merged
}
