// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// Media types that OCI's specification does not name.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	schemaOne          = "application/vnd.docker.distribution.manifest.v1+json"
	schemaOneSigned    = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// maxManifest bounds a manifest, in bytes. Registries refuse more than 4 MiB.
const maxManifest = 32 << 20

// acceptManifests is what the client can read.
func acceptManifests() http.Header {
	return http.Header{"Accept": {strings.Join([]string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerManifestList, dockerManifest,
	}, ", ")}}
}

// document is a manifest or an index, verified, with its bytes.
type document struct {
	desc ocispec.Descriptor
	data []byte
}

// manifest gets a manifest or index by tag or digest. A document that the
// store has under the digest is not asked for.
func (s *session) manifest(ctx context.Context, st *store.Store, id string) (document, error) {
	if d, err := digest.Parse(id); err == nil {
		doc, err := storedManifest(ctx, st, d)
		if err == nil || !errdefs.IsNotFound(err) {
			return doc, err
		}
	}
	if s.offline {
		return document{}, errOffline
	}
	var doc document
	err := s.c.retry(ctx, s.src.label(), func(ctx context.Context) error {
		var err error
		doc, err = s.getManifest(ctx, id)
		return err
	})
	if err != nil {
		return document{}, err
	}
	return doc, storeDocument(ctx, st, doc.desc, doc.data)
}

// storedManifest reads a manifest that is in the store; its type is told by its content.
func storedManifest(ctx context.Context, st *store.Store, d digest.Digest) (document, error) {
	info, err := st.Content().Info(ctx, d)
	if err != nil {
		return document{}, err
	}
	desc := ocispec.Descriptor{Digest: d, Size: info.Size}
	data, err := readDocument(ctx, st, desc)
	if err != nil {
		return document{}, err
	}
	if desc.MediaType, err = manifestType("", data); err != nil {
		return document{}, fmt.Errorf("reading %s: %w", d, err)
	}
	return document{desc: desc, data: data}, nil
}

func (s *session) getManifest(ctx context.Context, id string) (document, error) {
	ctx, dog := watch(ctx, s.c.o.StallTimeout)
	defer dog.end()
	resp, err := s.do(ctx, http.MethodGet, s.url("manifests", id), acceptManifests())
	if err != nil {
		return document{}, dog.cause(ctx, err)
	}
	defer drain(resp)
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return document{}, dog.cause(ctx, err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return document{}, dog.cause(ctx, err)
	}
	if len(data) > maxManifest {
		return document{}, &permanentError{fmt.Errorf("the manifest is larger than %d bytes", maxManifest)}
	}
	want, err := digest.Parse(id)
	if err != nil {
		// By tag, the registry says which digest it means to send.
		want, _ = digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	}
	kind, kindErr := manifestType(resp.Header.Get("Content-Type"), data)
	if kind == schemaOne {
		return document{}, &SchemaOneError{Image: s.src.label()}
	}
	got := digest.FromBytes(data)
	if want != "" {
		if got = want.Algorithm().FromBytes(data); got != want {
			return document{}, &DigestError{Image: s.src.label(), Want: want, Got: got}
		}
	}
	if kindErr != nil {
		return document{}, &permanentError{kindErr}
	}
	return document{
		desc: ocispec.Descriptor{MediaType: kind, Digest: got, Size: int64(len(data))},
		data: data,
	}, nil
}

// headManifest asks for a tag's digest only; "" where the registry does not
// have it, or does not say.
func (s *session) headManifest(ctx context.Context, id string) (digest.Digest, error) {
	var out digest.Digest
	err := s.c.retry(ctx, s.src.label(), func(ctx context.Context) error {
		ctx, dog := watch(ctx, s.c.o.StallTimeout)
		defer dog.end()
		resp, err := s.do(ctx, http.MethodHead, s.url("manifests", id), acceptManifests())
		if err != nil {
			return dog.cause(ctx, err)
		}
		defer drain(resp)
		if err := checkStatus(resp, http.StatusOK, http.StatusNotFound); err != nil {
			return err
		}
		out = ""
		if resp.StatusCode == http.StatusOK {
			out, _ = digest.Parse(resp.Header.Get("Docker-Content-Digest"))
		}
		return nil
	})
	return out, err
}

// manifestType tells what a document is: by its own mediaType and, where it
// has none, by its shape. The header tells only Docker's old format: a
// document is the same thing whether it comes from a registry or the store.
func manifestType(header string, data []byte) (string, error) {
	var m struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Config        json.RawMessage   `json:"config"`
		Layers        []json.RawMessage `json:"layers"`
		FSLayers      []json.RawMessage `json:"fsLayers"`
	}
	header, _, _ = mime.ParseMediaType(header)
	if header == schemaOne || header == schemaOneSigned {
		return schemaOne, nil
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", fmt.Errorf("the manifest is not JSON: %w", err)
	}
	if m.SchemaVersion == 1 || len(m.FSLayers) > 0 {
		return schemaOne, nil
	}
	// A document that could be read as both could be signed as one and used as the other.
	if m.Manifests != nil && (m.Layers != nil || m.Config != nil) {
		return "", errors.New("the manifest is an index and an image at once")
	}
	switch {
	case clusterimage.IsIndex(m.MediaType) && m.Layers == nil && m.Config == nil,
		clusterimage.IsManifest(m.MediaType) && m.Manifests == nil:
		return m.MediaType, nil
	case m.MediaType == "" && m.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case m.MediaType == "" && m.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("the manifest is of no kind that sealer knows (media type %q)", m.MediaType)
}

func parseManifest(doc document) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(doc.data, &m); err != nil {
		return m, fmt.Errorf("reading manifest %s: %w", doc.desc.Digest, err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return m, fmt.Errorf("reading manifest %s: blob %q: %w", doc.desc.Digest, d.Digest, err)
		}
	}
	return m, nil
}

func parseIndex(doc document) (ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(doc.data, &index); err != nil {
		return index, fmt.Errorf("reading index %s: %w", doc.desc.Digest, err)
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return index, fmt.Errorf("reading index %s: entry %q: %w", doc.desc.Digest, d.Digest, err)
		}
	}
	return index, nil
}
