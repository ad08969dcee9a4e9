// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// NotFoundError says that the store has no image of that name. It is also an
// errdefs.ErrNotFound.
type NotFoundError struct {
	Ref string
	// Near are the names that come close, best first, at most three.
	Near []string
}

func (e *NotFoundError) Error() string {
	if len(e.Near) == 0 {
		return fmt.Sprintf("there is no image %q in the store", e.Ref)
	}
	return fmt.Sprintf("there is no image %q in the store (did you mean %s?)", e.Ref, strings.Join(e.Near, ", "))
}

// Unwrap makes the error an errdefs.ErrNotFound.
func (e *NotFoundError) Unwrap() error { return errdefs.ErrNotFound }

// AmbiguousError says that an id prefix fits several images.
type AmbiguousError struct {
	Ref   string
	Names []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q stands for more than one image: %s", e.Ref, strings.Join(e.Names, ", "))
}

// Hint tells the user what to do.
func (e *AmbiguousError) Hint() string { return "give more of the id, or a name" }

// minPrefix is the least number of hex digits that are taken for an id.
const minPrefix = 4

// Resolve finds an image by its name, by its digest (sha256:…), or by the first
// four or more hex digits of its digest. A name wins over an id. In
// repo:tag@digest the digest wins. Errors are *NotFoundError and *AmbiguousError.
func (s *Store) Resolve(ctx context.Context, ref string) (Tagged, error) {
	all, err := s.List(ctx)
	if err != nil {
		return Tagged{}, err
	}
	if d, err := digest.Parse(ref); err == nil {
		return byDigest(all, ref, func(t Tagged) bool { return t.Descriptor.Digest == d })
	}
	full, nameErr := tagName(ref)
	if nameErr == nil {
		if t, ok := byName(all, ref, full); ok {
			return t, nil
		}
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	if len(prefix) >= minPrefix && strings.Trim(prefix, "0123456789abcdef") == "" {
		return byDigest(all, ref, func(t Tagged) bool { return strings.HasPrefix(t.Descriptor.Digest.Encoded(), prefix) })
	}
	if nameErr != nil {
		return Tagged{}, nameErr
	}
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.Name
	}
	return Tagged{}, &NotFoundError{Ref: ref, Near: near(full, names)}
}

// byName finds by name; where the reference has a digest, by repository and digest.
func byName(all []Tagged, ref, full string) (Tagged, bool) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return Tagged{}, false
	}
	canonical, pinned := named.(reference.Canonical)
	found, ok := Tagged{}, false
	for _, t := range all {
		if !pinned {
			if t.Name == full {
				return t, true
			}
			continue
		}
		if t.Descriptor.Digest != canonical.Digest() || repository(t.Name) != named.Name() {
			continue
		}
		if t.Name == full || !ok {
			found, ok = t, true
		}
	}
	return found, ok
}

func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// byDigest picks the image that match accepts. Several names of one digest are no ambiguity.
func byDigest(all []Tagged, ref string, match func(Tagged) bool) (Tagged, error) {
	var hits []Tagged
	for _, t := range all {
		if match(t) {
			hits = append(hits, t)
		}
	}
	if len(hits) == 0 {
		return Tagged{}, &NotFoundError{Ref: ref}
	}
	var names []string
	for _, t := range hits {
		if t.Descriptor.Digest != hits[0].Descriptor.Digest {
			names = append(names, t.Name)
		}
	}
	if len(names) > 0 {
		return Tagged{}, &AmbiguousError{Ref: ref, Names: append([]string{hits[0].Name}, names...)}
	}
	return hits[0], nil
}

// near picks the names that a mistyped one may have meant: the same in
// another tag or domain, or a few letters away.
func near(want string, names []string) []string {
	type scored struct {
		name string
		dist int
	}
	var out []scored
	short := lastPart(want)
	for _, name := range names {
		dist := min(levenshtein.Distance(want, name, nil), levenshtein.Distance(short, lastPart(name), nil)+1)
		if repository(name) != "" && repository(name) == repository(want) {
			dist = min(dist, 1)
		}
		if dist <= max(2, len(short)/4) {
			out = append(out, scored{name, dist})
		}
	}
	slices.SortStableFunc(out, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.dist, b.dist), cmp.Compare(a.name, b.name))
	})
	var best []string
	for _, s := range out[:min(3, len(out))] {
		best = append(best, s.name)
	}
	return best
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
