// SPDX-License-Identifier: Apache-2.0

// Package attest writes what a build says of its result: in-toto statements, kept inside the image index in the shape
// that docker buildx and its readers know.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// Types of the documents.
const (
	// ManifestArtifactType is the artifactType of a manifest that holds statements.
	ManifestArtifactType = "application/vnd.docker.attestation.manifest.v1+json"
	// MediaType is that of a statement.
	MediaType = "application/vnd.in-toto+json"
	// PredicateSLSA is the predicate type of provenance, https://slsa.dev/spec/v1.0/provenance.
	PredicateSLSA = "https://slsa.dev/provenance/v1"
	// PredicateSPDX is the predicate type of a bill of materials.
	PredicateSPDX = "https://spdx.dev/Document"
	// AnnotationPredicate is the annotation of a layer that says what its statement speaks of.
	AnnotationPredicate = "in-toto.io/predicate-type"

	statementType = "https://in-toto.io/Statement/v1"
	subjectName   = "rootfs" // not the tag: another name must not change the digest
	maxStatement  = 256 << 20
)

// Statement is what is said of one rootfs.
type Statement struct {
	PredicateType string
	Predicate     any // becomes JSON
}

// statement is a Statement as it is stored, https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     any       `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Write stores statements about the manifest about, and returns the index entry that leads to them. The same statements
// give the same digest.
func Write(ctx context.Context, cs content.Ingester, about ocispec.Descriptor, statements []Statement) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ManifestArtifactType,
		Subject:      &ocispec.Descriptor{MediaType: about.MediaType, Digest: about.Digest, Size: about.Size},
	}
	for _, s := range statements {
		data, err := marshal(statement{
			Type: statementType, PredicateType: s.PredicateType, Predicate: s.Predicate,
			Subject: []subject{{Name: subjectName, Digest: map[string]string{about.Digest.Algorithm().String(): about.Digest.Encoded()}}},
		})
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("writing the attestation %s: %w", s.PredicateType, err)
		}
		layer, err := store(ctx, cs, MediaType, data)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layer.Annotations = map[string]string{AnnotationPredicate: s.PredicateType}
		m.Layers = append(m.Layers, layer)
	}
	var err error
	if m.Config, err = store(ctx, cs, ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing attestations: %w", err)
	}
	desc, err := store(ctx, cs, ocispec.MediaTypeImageManifest, data)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	desc.Annotations = map[string]string{
		clusterimage.AnnotationReferenceType:   clusterimage.ReferenceAttestation,
		clusterimage.AnnotationReferenceDigest: about.Digest.String(),
	}
	return desc, nil
}

// marshal leaves <, > and & as they are, so that URLs can be read.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

func store(ctx context.Context, cs content.Ingester, mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(ctx, cs, "attestation-"+desc.Digest.String(), bytes.NewReader(data), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, fmt.Errorf("writing attestation %s: %w", desc.Digest, err)
	}
	return desc, nil
}

// Predicates reads the predicates of one type that an index entry leads to, each as JSON. The statements must be in p.
func Predicates(ctx context.Context, p content.Provider, d ocispec.Descriptor, predicateType string) ([]json.RawMessage, error) {
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, p, d, &m); err != nil {
		return nil, fmt.Errorf("reading attestations: %w", err)
	}
	var out []json.RawMessage
	for _, l := range m.Layers {
		if l.MediaType != MediaType || l.Annotations[AnnotationPredicate] != predicateType {
			continue
		}
		data, err := read(ctx, p, l)
		if err != nil {
			return nil, fmt.Errorf("reading attestation %s: %w", l.Digest, err)
		}
		var s struct {
			Predicate json.RawMessage `json:"predicate"`
		}
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, fmt.Errorf("reading attestation %s: %w", l.Digest, err)
		}
		out = append(out, s.Predicate)
	}
	return slices.Clip(out), nil
}

// read is clusterimage.ReadBlob for documents that may be larger: a bill of materials names every file.
func read(ctx context.Context, p content.Provider, d ocispec.Descriptor) ([]byte, error) {
	ra, err := p.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	if ra.Size() > maxStatement {
		return nil, fmt.Errorf("it has %d bytes, more than %d", ra.Size(), maxStatement)
	}
	data, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return nil, &clusterimage.DigestError{Want: d.Digest, Got: got}
	}
	return data, nil
}
