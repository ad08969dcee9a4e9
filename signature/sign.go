// SPDX-License-Identifier: Apache-2.0

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
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/sealerio/sealer/store"
)

// Sign signs the image desc under a name and keeps the signature in the store,
// beside what other signatures of the image there are. The annotations are
// signed with it.
func Sign(ctx context.Context, st *store.Store, name string, desc ocispec.Descriptor, key *PrivateKey, annotations map[string]any) (_ Signature, err error) {
	repo, err := repository(name)
	if err != nil {
		return Signature{}, err
	}
	if len(annotations) == 0 {
		annotations = nil // cosign writes null
	}
	data, err := json.Marshal(payload.SimpleContainerImage{
		Critical: payload.Critical{
			Identity: payload.Identity{DockerReference: repo.Name()},
			Image:    payload.Image{DockerManifestDigest: desc.Digest.String()},
			Type:     payload.CosignSignatureType,
		},
		Optional: annotations,
	})
	if err != nil {
		return Signature{}, fmt.Errorf("signing %s: %w", name, err)
	}
	raw, err := key.sign(data)
	if err != nil {
		return Signature{}, fmt.Errorf("signing %s: %w", name, err)
	}
	s := signed{payload: data, signature: base64.StdEncoding.EncodeToString(raw), layer: ocispec.Descriptor{
		MediaType: PayloadMediaType, Digest: digest.FromBytes(data), Size: int64(len(data)),
	}}
	s.layer.Annotations = map[string]string{AnnotationSignature: s.signature}
	if err := add(ctx, st, repo, desc.Digest, []signed{s}); err != nil {
		return Signature{}, fmt.Errorf("signing %s: %w", name, err)
	}
	return s.claims(desc.Digest)
}

// repository is the repository of an image's name.
func repository(name string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("reading the image name %q: %w", name, err)
	}
	return reference.TrimNamed(named), nil
}

// add gives an image more signatures, under the tag of a repository in the store.
func add(ctx context.Context, st *store.Store, repo reference.Named, image digest.Digest, more []signed) (err error) {
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	name := repo.Name() + ":" + store.SignatureTag(image)
	var all []signed
	tagged, err := st.Resolve(ctx, name)
	switch {
	case err == nil:
		if all, err = readManifest(ctx, st.Content(), tagged.Descriptor); err != nil {
			return err
		}
	case !errdefs.IsNotFound(err):
		return err
	}
	had := len(all)
	for _, s := range more {
		if !slices.ContainsFunc(all, s.same) {
			all = append(all, s)
		}
	}
	if len(all) == had && had > 0 {
		return nil
	}
	desc, err := write(ctx, st.Content(), all)
	if err != nil {
		return err
	}
	return st.Tag(ctx, name, desc)
}

// write makes the image that holds signatures, with a config as cosign has it.
func write(ctx context.Context, cs content.Store, all []signed) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	for _, s := range all {
		if _, err := put(ctx, cs, s.layer.MediaType, s.payload); err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, s.layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, s.layer.Digest)
	}
	data, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing signatures: %w", err)
	}
	if m.Config, err = put(ctx, cs, ocispec.MediaTypeImageConfig, data); err != nil {
		return ocispec.Descriptor{}, err
	}
	if data, err = json.Marshal(m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing signatures: %w", err)
	}
	return put(ctx, cs, ocispec.MediaTypeImageManifest, data)
}

func put(ctx context.Context, cs content.Store, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(ctx, cs, "signature-"+d.Digest.String(), bytes.NewReader(data), d); err != nil {
		return d, fmt.Errorf("writing %s: %w", d.Digest, err)
	}
	return d, nil
}
