// SPDX-License-Identifier: Apache-2.0

// Package signature signs images and verifies them in cosign's formats, with
// keys and without a network: the keys are cosign's, and a signature is an
// image of its own that stands beside what it signs, under the tag
// sha256-<hex>.sig, where cosign finds it.
//
// See https://github.com/sigstore/cosign/blob/v2.6.1/specs/SIGNATURE_SPEC.md
package signature

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/sealerio/sealer/clusterimage"
)

const (
	// PayloadMediaType is the media type of a layer that holds what was signed.
	PayloadMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	// AnnotationSignature is, on such a layer, the signature over its bytes, in base64.
	AnnotationSignature = "dev.cosignproject.cosign/signature"
)

// Limits on what is read of signatures, which anybody can put beside an image.
const (
	maxPayload    = 1 << 20 // bytes
	maxSignatures = 256     // for one digest
)

// Signature is one signature of an image.
type Signature struct {
	// Key is the name that the key was read under; "" where nothing was verified.
	Key string `json:"key,omitempty"`
	// Repository is what the signer called the image, without tag. It is part
	// of what is signed, but says nothing of where the image was found.
	Repository string `json:"repository"`
	// Image is the digest of the image.
	Image digest.Digest `json:"image"`
	// Annotations are what the signer added.
	Annotations map[string]any `json:"annotations,omitempty"`
	// Payload is the digest of the bytes that were signed.
	Payload digest.Digest `json:"payload"`
}

// Source is where signatures are looked for: see InStore and InRegistry.
type Source interface {
	content.Provider
	// Signatures lists the manifests that hold signatures of a digest, of the
	// tag sha256-<hex>.sig. None is no error.
	Signatures(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// UnverifiedError says that no signature of an image fits any of the keys.
type UnverifiedError struct {
	Digest digest.Digest
	// Keys are the names of the keys that were tried.
	Keys []string
	// Found is how many signatures there were, by whatever key.
	Found int
	// Broken are those that could not be read, or that sign another image.
	Broken []error
}

func (e *UnverifiedError) Error() string {
	if e.Found == 0 {
		return fmt.Sprintf("%s has no signature", e.Digest)
	}
	text := fmt.Sprintf("none of the %d signatures of %s was made with %s", e.Found, e.Digest, joinNames(e.Keys))
	if e.Found == 1 {
		text = fmt.Sprintf("the signature of %s was not made with %s", e.Digest, joinNames(e.Keys))
	}
	if len(e.Broken) > 0 {
		text += ": " + errors.Join(e.Broken...).Error()
	}
	return text
}

// Hint tells the user what to do.
func (e *UnverifiedError) Hint() string {
	if e.Found == 0 {
		return "'sealer sign' makes signatures; 'sealer pull' brings those that the registry has"
	}
	return "do not use the image unless you know why it is signed by somebody else"
}

// Verify returns the signatures of desc that one of the keys has made. Where
// there is none the error is an *UnverifiedError; that of a signature which
// cannot be read counts as one that is not there.
func Verify(ctx context.Context, src Source, desc ocispec.Descriptor, keys []*PublicKey) ([]Signature, error) {
	if len(keys) == 0 {
		return nil, errors.New("verifying signatures: there is no key")
	}
	all, err := read(ctx, src, desc)
	if err != nil {
		return nil, fmt.Errorf("verifying signatures: %w", err)
	}
	failed := &UnverifiedError{Digest: desc.Digest, Found: len(all)}
	for _, k := range keys {
		failed.Keys = append(failed.Keys, k.Name)
	}
	var good []Signature
	for _, s := range all {
		key := s.madeBy(keys)
		if key == nil {
			continue
		}
		claims, err := s.claims(desc.Digest)
		if err != nil {
			failed.Broken = append(failed.Broken, err)
			continue
		}
		claims.Key = key.Name
		good = append(good, claims)
	}
	if len(good) == 0 {
		return nil, failed
	}
	return good, nil
}

// List returns what the signatures of desc claim, unverified. What cannot be
// read, or signs another image, is left out.
func List(ctx context.Context, src Source, desc ocispec.Descriptor) ([]Signature, error) {
	all, err := read(ctx, src, desc)
	if err != nil {
		return nil, fmt.Errorf("listing signatures: %w", err)
	}
	var out []Signature
	for _, s := range all {
		if claims, err := s.claims(desc.Digest); err == nil {
			out = append(out, claims)
		}
	}
	return out, nil
}

// signed is a signature with the bytes that it is over, as they were found.
type signed struct {
	payload   []byte
	signature string // base64
	layer     ocispec.Descriptor
}

// read reads every signature of an image, each once.
func read(ctx context.Context, src Source, desc ocispec.Descriptor) ([]signed, error) {
	manifests, err := src.Signatures(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	var out []signed
	for _, d := range manifests {
		found, err := readManifest(ctx, src, d)
		if err != nil {
			return nil, fmt.Errorf("signatures %s: %w", d.Digest, err)
		}
		for _, s := range found {
			if !slices.ContainsFunc(out, s.same) {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

func (s signed) same(other signed) bool {
	return s.layer.Digest == other.layer.Digest && s.signature == other.signature
}

// readManifest reads the signatures of one manifest.
func readManifest(ctx context.Context, p content.Provider, desc ocispec.Descriptor) ([]signed, error) {
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, p, desc, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) > maxSignatures {
		return nil, fmt.Errorf("there are %d, more than %d", len(m.Layers), maxSignatures)
	}
	var out []signed
	for _, l := range m.Layers {
		text, ok := l.Annotations[AnnotationSignature]
		if !ok || l.MediaType != PayloadMediaType {
			continue
		}
		if l.Size > maxPayload {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", l.Digest, l.Size, maxPayload)
		}
		data, err := clusterimage.ReadBlob(ctx, p, l)
		if err != nil {
			return nil, err
		}
		out = append(out, signed{payload: data, signature: text, layer: l})
	}
	return out, nil
}

// madeBy is the first key that the signature verifies with.
func (s signed) madeBy(keys []*PublicKey) *PublicKey {
	raw, err := base64.StdEncoding.DecodeString(s.signature)
	if err != nil {
		return nil
	}
	for _, k := range keys {
		if k.verifier.VerifySignature(bytes.NewReader(raw), bytes.NewReader(s.payload)) == nil {
			return k
		}
	}
	return nil
}

// claims reads the payload, which must be about the image.
func (s signed) claims(image digest.Digest) (Signature, error) {
	var p payload.SimpleContainerImage
	if err := json.Unmarshal(s.payload, &p); err != nil {
		return Signature{}, fmt.Errorf("reading what was signed: %w", err)
	}
	if p.Critical.Type != payload.CosignSignatureType {
		return Signature{}, fmt.Errorf("what was signed is of type %q, not %q", p.Critical.Type, payload.CosignSignatureType)
	}
	if p.Critical.Image.DockerManifestDigest != image.String() {
		return Signature{}, fmt.Errorf("what was signed is %q, another image", p.Critical.Image.DockerManifestDigest)
	}
	return Signature{
		Repository: p.Critical.Identity.DockerReference, Image: image,
		Annotations: p.Optional, Payload: s.layer.Digest,
	}, nil
}
