// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/signature"
)

// PredicateType is that of a Decision in an attestation.
const PredicateType = "https://github.com/sealerio/sealer/blob/main/docs/build.md#policy"

// Image is one that goes into a ClusterImage, or that it starts from.
type Image struct {
	Name    string // full reference
	Origins []string
	// Digests are what a signature may be of: the index that the name stands for, the manifest. None: not fetched.
	Digests []ocispec.Descriptor
	License string // of its label
	Base    bool   // a rootfs is made of it: licences are asked of packed images alone
}

// Violation is a rule that an image breaks.
type Violation struct {
	Image   string
	Origins []string
	Reason  string
}

func (v Violation) String() string {
	if len(v.Origins) == 0 {
		return v.Image + ": " + v.Reason
	}
	return fmt.Sprintf("%s (%s): %s", v.Image, strings.Join(v.Origins, ", "), v.Reason)
}

// ViolationsError lists every violation, by image.
type ViolationsError struct {
	Policy     string
	Violations []Violation
}

func (e *ViolationsError) Error() string {
	lines := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		lines[i] = "  " + v.String()
	}
	noun := "violations"
	if len(lines) == 1 {
		noun = "violation"
	}
	return fmt.Sprintf("the policy %s refuses the image, %d %s:\n%s", e.Policy, len(lines), noun, strings.Join(lines, "\n"))
}

// Error is what violations are; nil where there are none.
func (p *Policy) Error(all []Violation) error {
	if len(all) == 0 {
		return nil
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	sorted = slices.CompactFunc(sorted, func(a, b Violation) bool { return a.String() == b.String() })
	return &ViolationsError{Policy: p.Name, Violations: sorted}
}

// Names checks what can be said without asking anybody.
func (p *Policy) Names(img Image) []Violation {
	named, err := reference.ParseNormalizedNamed(img.Name)
	if err != nil {
		return []Violation{{Image: img.Name, Origins: img.Origins, Reason: err.Error()}}
	}
	if _, ok := p.exception(named); ok {
		return nil
	}
	var out []Violation
	fail := func(format string, args ...any) {
		out = append(out, Violation{Image: img.Name, Origins: img.Origins, Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case p.denied.match(named.Name()):
		fail("its registry or repository is denied")
	case len(p.allowed) > 0 && !p.allowed.match(named.Name()):
		fail("its registry or repository is not among those that are allowed")
	}
	_, pinned := named.(reference.Digested)
	tagged, ok := named.(reference.Tagged)
	if p.Rules.Latest == deny && !pinned && (!ok || tagged.Tag() == "latest") {
		fail("the tag latest is denied: it stands for something else tomorrow")
	}
	if p.Rules.Digest == required && !pinned {
		fail("its name has no digest (@sha256:…)")
	}
	return out
}

func (p *Policy) exception(named reference.Named) (string, bool) {
	for _, e := range p.exceptions {
		if e.images.match(named.Name(), named.String()) {
			return e.reason, true
		}
	}
	return "", false
}

// Decision is what a policy said of the images, for an attestation. The same images give the same decision.
type Decision struct {
	Policy struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"policy"`
	Rules  Rules             `json:"rules"`
	Keys   map[string]string `json:"keys,omitempty"` // the digest of each public key's file
	Result string            `json:"result"`         // passed
	Images []Allowed         `json:"images"`
}

// Allowed says why an image may go in.
type Allowed struct {
	Name      string            `json:"name"`
	Digest    map[string]string `json:"digest,omitempty"`
	License   string            `json:"license,omitempty"`
	SignedBy  []string          `json:"signedBy,omitempty"`  // keys, as the policy names them
	Exception string            `json:"exception,omitempty"` // the reason for it
}

// Lookup finds where the signatures of an image may be.
type Lookup func(ctx context.Context, name string) ([]signature.Source, error)

// Check checks everything. A violation is not an error.
func (p *Policy) Check(ctx context.Context, images []Image, sources Lookup) (Decision, []Violation, error) {
	d := Decision{Rules: p.Rules, Keys: p.keys, Result: "passed", Images: []Allowed{}}
	d.Policy.Name, d.Policy.Digest = p.Name, map[string]string{p.Digest.Algorithm().String(): p.Digest.Encoded()}
	var all []Violation
	for _, img := range images {
		a, violations, err := p.check(ctx, img, sources)
		if err != nil {
			return Decision{}, nil, fmt.Errorf("checking %s: %w", img.Name, err)
		}
		all = append(all, violations...)
		d.Images = append(d.Images, a)
	}
	slices.SortStableFunc(d.Images, func(a, b Allowed) int {
		return strings.Compare(a.Name+fmt.Sprint(a.Digest), b.Name+fmt.Sprint(b.Digest))
	})
	return d, all, nil
}

func (p *Policy) check(ctx context.Context, img Image, sources Lookup) (Allowed, []Violation, error) {
	a := Allowed{Name: img.Name, License: img.License}
	if len(img.Digests) > 0 {
		last := img.Digests[len(img.Digests)-1].Digest
		a.Digest = map[string]string{last.Algorithm().String(): last.Encoded()}
	}
	out := p.Names(img)
	named, err := reference.ParseNormalizedNamed(img.Name)
	if err != nil {
		return a, out, nil
	}
	if reason, ok := p.exception(named); ok {
		a.Exception = reason
		return a, nil, nil
	}
	if reason := p.license(img); reason != "" {
		out = append(out, Violation{img.Name, img.Origins, reason})
	}
	for _, rule := range p.signatures {
		if !rule.images.match(named.Name(), named.String()) {
			continue
		}
		keys, err := verify(ctx, img, rule.keys, sources)
		if unverified, ok := errors.AsType[*signature.UnverifiedError](err); ok {
			out = append(out, Violation{img.Name, img.Origins, unverified.Error()})
			continue
		}
		if err != nil {
			return a, nil, err
		}
		a.SignedBy = append(a.SignedBy, keys...)
	}
	slices.Sort(a.SignedBy)
	a.SignedBy = slices.Compact(a.SignedBy)
	return a, out, nil
}

// verify returns the keys that have signed the image: its index, or its manifest.
func verify(ctx context.Context, img Image, keys []*signature.PublicKey, sources Lookup) ([]string, error) {
	list, err := sources(ctx, img.Name)
	if err != nil {
		return nil, err
	}
	var failed *signature.UnverifiedError
	for _, src := range list {
		for _, d := range img.Digests {
			found, err := signature.Verify(ctx, src, d, keys)
			if err == nil {
				var names []string
				for _, s := range found {
					names = append(names, s.Key)
				}
				return names, nil
			}
			unverified, ok := errors.AsType[*signature.UnverifiedError](err)
			if !ok {
				return nil, err
			}
			if failed == nil || unverified.Found > failed.Found {
				failed = unverified
			}
		}
	}
	if failed == nil {
		return nil, errors.New("there is nothing that a signature could be of")
	}
	return nil, failed
}

func (p *Policy) license(img Image) string {
	l := p.Rules.Licenses
	switch {
	case img.Base:
		return ""
	case img.License == "":
		if l.Unknown == deny {
			return "it does not say its licences (label " + ocispec.AnnotationLicenses + ")"
		}
		return ""
	case len(l.Allow) == 0 || licensed(img.License, l.Allow):
		return ""
	}
	return fmt.Sprintf("its licence %s is not among those that are allowed", img.License)
}

// licensed tells whether an SPDX expression can be met with the licences of list. Where it has parentheses, all of its
// licences have to be there.
func licensed(expression string, list []string) bool {
	choices := strings.Split(expression, " OR ")
	if strings.ContainsAny(expression, "()") {
		choices = []string{strings.NewReplacer("(", " ", ")", " ", " OR ", " AND ").Replace(expression)}
	}
	return slices.ContainsFunc(choices, func(choice string) bool {
		for part := range strings.SplitSeq(choice, " AND ") {
			one, _, _ := strings.Cut(strings.TrimSpace(part), " WITH ")
			if !slices.ContainsFunc(list, func(have string) bool { return strings.EqualFold(have, one) }) {
				return false
			}
		}
		return true
	})
}
