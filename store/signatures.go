// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const signatureSuffix = ".sig"

// SignatureTag is the tag, in the image's repository, under which its signatures stand:
// sha256-<hex>.sig.
// See https://github.com/sigstore/cosign/blob/v2.6.1/specs/SIGNATURE_SPEC.md
func SignatureTag(image digest.Digest) string {
	return image.Algorithm().String() + "-" + image.Encoded() + signatureSuffix
}

// Signed tells whether a name is that of signatures, and of which image.
func Signed(name string) (image digest.Digest, ok bool) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", false
	}
	tagged, ok := named.(reference.Tagged)
	if !ok {
		return "", false
	}
	text, ok := strings.CutSuffix(tagged.Tag(), signatureSuffix)
	if !ok {
		return "", false
	}
	algorithm, hex, _ := strings.Cut(text, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return d, d.Validate() == nil
}

// Signatures lists the names under which the store has signatures of an image,
// sorted. Their manifests are ordinary images, which are saved and pushed like any.
func (s *Store) Signatures(ctx context.Context, image digest.Digest) ([]Tagged, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []Tagged
	for _, t := range all {
		if d, ok := Signed(t.Name); ok && d == image {
			out = append(out, t)
		}
	}
	return out, nil
}
