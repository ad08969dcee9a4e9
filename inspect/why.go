// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/clusterimage"
)

// Reason is why a container image is in a ClusterImage.
type Reason struct {
	Packed
	// Base is the image it was inherited from, where that is known.
	Base *clusterimage.Base `json:"base,omitempty"`
}

// NotPackedError says that a ClusterImage does not hold a container image.
type NotPackedError struct {
	Image, Packed string
	// Near are names that come close.
	Near []string
}

func (e *NotPackedError) Error() string {
	text := fmt.Sprintf("%s does not hold %q", e.Image, e.Packed)
	if len(e.Near) > 0 {
		text += fmt.Sprintf(" (did you mean %s?)", strings.Join(e.Near, ", "))
	}
	return text
}

// Hint tells the user what to do.
func (e *NotPackedError) Hint() string { return "'sealer inspect " + e.Image + "' lists what it holds" }

// Why says why a container image is inside: who asked for it, in which file and
// line, for which application, and from which base it came. what is a
// reference, a repository without tag (all its tags), or a digest. find
// looks a base up by its name and digest; an errdefs.ErrNotFound means that it is not at hand.
func Why(ctx context.Context, s *Subject, what string, find func(clusterimage.Base) (*Subject, error)) ([]Reason, error) {
	d, err := Describe(ctx, s)
	if err != nil {
		return nil, err
	}
	match, err := matcher(what)
	if err != nil {
		return nil, err
	}
	var out []Reason
	for _, p := range d.Images {
		if !match(p) {
			continue
		}
		r := Reason{Packed: p}
		if r.Base, err = inheritedFrom(ctx, s, p, find); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, &NotPackedError{Image: s.Name, Packed: what, Near: nearNames(what, d.Images)}
	}
	return out, nil
}

// matcher tells which packed images are meant.
func matcher(what string) (func(Packed) bool, error) {
	if d, err := digest.Parse(what); err == nil {
		return func(p Packed) bool { return p.Digest == d.String() || p.Index == d.String() }, nil
	}
	named, err := reference.ParseNormalizedNamed(what)
	if err != nil {
		return nil, fmt.Errorf("reading the image name %q: %w", what, err)
	}
	return func(p Packed) bool {
		if p.Name == named.String() || p.Name == what {
			return true
		}
		if !reference.IsNameOnly(named) {
			return false
		}
		other, err := reference.ParseNormalizedNamed(p.Name)
		return err == nil && other.Name() == named.Name()
	}, nil
}

// maxBases bounds how many bases are looked through.
const maxBases = 32

// inheritedFrom is the lowest base that has the image, as far as bases are at hand.
func inheritedFrom(ctx context.Context, s *Subject, p Packed, find func(clusterimage.Base) (*Subject, error)) (*clusterimage.Base, error) {
	var lowest *clusterimage.Base
	at := s
	for range maxBases {
		img, err := at.Image(ctx)
		if err != nil {
			return nil, err
		}
		base := baseOf(img)
		if base == nil {
			return lowest, nil
		}
		below, err := find(*base)
		if errdefs.IsNotFound(err) {
			return lowest, nil
		}
		if err != nil {
			return nil, err
		}
		has, err := holds(ctx, below, p)
		if err != nil || !has {
			return lowest, err
		}
		lowest, at = base, below
	}
	return lowest, nil
}

func baseOf(img *clusterimage.Image) *clusterimage.Base {
	for _, r := range img.Rootfs {
		if r.Extension.Base != nil {
			return r.Extension.Base
		}
	}
	return nil
}

// holds tells whether an image packs the same manifest under the same name.
func holds(ctx context.Context, s *Subject, p Packed) (bool, error) {
	img, err := s.Image(ctx)
	if errors.Is(err, clusterimage.ErrNotClusterImage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, i := range img.Images {
		if i.Name == p.Name && i.Platform == p.Platform && i.Manifest.Digest.String() == p.Digest {
			return true, nil
		}
	}
	for _, r := range img.Rootfs {
		if p.Tree && r.Extension.RegistryTree != nil {
			return true, nil
		}
	}
	return false, nil
}

// nearNames are the names that a mistyped one may have meant, at most three.
func nearNames(what string, images []Packed) []string {
	last := func(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
	repository := func(name string) string { r, _, _ := strings.Cut(last(name), ":"); return r }
	var out []string
	for _, p := range images {
		near := repository(p.Name) == repository(what) || levenshtein.Distance(last(what), last(p.Name), nil) <= 2
		if near && len(out) < 3 && (len(out) == 0 || out[len(out)-1] != p.Name) {
			out = append(out, p.Name)
		}
	}
	return out
}
