// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxDocument bounds a manifest, a config or an image list, in bytes.
const maxDocument = 32 << 20

// Docker's media types, which registries serve beside OCI's.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// blob is a file that the builder fetched, verified against its digest, or that we made.
type blob struct {
	digest digest.Digest
	state  llb.State // has the blob as its only file, named by the digest's hex digits
	data   []byte    // instead of state
}

// fetched is a blob of a repository. The builder fetches it with its own credentials and mirrors, once.
func fetched(repository string, d digest.Digest) blob {
	return blob{digest: d, state: llb.ImageBlob(repository+"@"+d.String(), llb.Filename(d.Encoded()), llb.Chmod(0o644),
		llb.WithCustomName("[images] "+repository+"@"+short(d)))}
}

func short(d digest.Digest) string {
	return d.Algorithm().String() + ":" + d.Encoded()[:min(12, len(d.Encoded()))]
}

// document fetches a manifest or an index and reads it. BuildKit asks for blobs without saying which media types it
// takes, and registries made of distribution 2 then deny to have manifests of OCI's: for those the builder is told to
// fetch the document's URL.
func (b *builder) document(ctx context.Context, repository string, d digest.Digest) (blob, []byte, error) {
	host, address, err := manifestURL(repository, d)
	if err != nil {
		return blob{}, nil, err
	}
	doc := fetched(repository, d)
	if _, refuses := b.byURL.Load(host); !refuses {
		var data []byte
		if data, err = b.readBlob(ctx, doc); err == nil || ctx.Err() != nil {
			return doc, data, err
		}
	}
	other := blob{digest: d, state: llb.HTTP(address, llb.Checksum(d), llb.Filename(d.Encoded()), llb.Chmod(0o644),
		llb.Header(llb.HTTPHeader{Accept: strings.Join([]string{
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerManifestList,
		}, ", ")}),
		llb.WithCustomName("[images] "+repository+"@"+short(d)+" by its URL"))}
	data, urlErr := b.readBlob(ctx, other)
	if urlErr == nil {
		b.byURL.Store(host, true)
		return other, data, nil
	}
	if err == nil {
		err = urlErr
	}
	return doc, nil, fmt.Errorf("fetching %s@%s: %w", repository, d, err)
}

// manifestURL is https, but for the builder's own machine, as BuildKit itself has it.
func manifestURL(repository string, d digest.Digest) (host, address string, err error) {
	named, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return "", "", err
	}
	scheme := "https"
	host = reference.Domain(named)
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if ip := net.ParseIP(strings.Trim(name, "[]")); name == "localhost" || ip != nil && ip.IsLoopback() {
		scheme = "http"
	}
	return host, scheme + "://" + host + "/v2/" + reference.Path(named) + "/manifests/" + d.String(), nil
}

// readBlob has the builder make a blob, and reads it. It is verified again: what crosses the gateway is foreign.
func (b *builder) readBlob(ctx context.Context, one blob) ([]byte, error) {
	if one.data != nil {
		return one.data, nil
	}
	ref, err := b.solve(ctx, one.state, true)
	if err != nil {
		return nil, err
	}
	data, err := readFile(ctx, ref, "/"+one.digest.Encoded())
	if err != nil {
		return nil, err
	}
	if got := one.digest.Algorithm().FromBytes(data); got != one.digest {
		return nil, &clusterimage.DigestError{Want: one.digest, Got: got}
	}
	return data, nil
}

func readFile(ctx context.Context, ref client.Reference, name string) ([]byte, error) {
	info, err := ref.StatFile(ctx, client.StatRequest{Path: name})
	if err != nil {
		return nil, err
	}
	if info.Size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path.Base(name), info.Size, maxDocument)
	}
	data := make([]byte, 0, info.Size)
	for int64(len(data)) < info.Size {
		part, err := ref.ReadFile(ctx, client.ReadRequest{Filename: name, Range: &client.FileRange{Offset: len(data), Length: readChunk}})
		if err != nil {
			return nil, err
		}
		if len(part) == 0 {
			return nil, fmt.Errorf("%s ends after %d of %d bytes", path.Base(name), len(data), info.Size)
		}
		data = append(data, part...)
	}
	return data, nil
}

// mediaTypeOf reads what a document says of itself; documents of OCI may leave it out.
func mediaTypeOf(data []byte) (string, error) {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", err
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType, nil
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case doc.Layers != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("it is neither a manifest nor an index")
}

// canFetchBlobs says whether the builder is one that can.
func (b *builder) canFetchBlobs() error {
	caps := b.ui.BuildOpts().LLBCaps
	if err := caps.Supports(pb.CapSourceImageBlob); err != nil {
		return &OldBuilderError{Err: err}
	}
	return nil
}

// OldBuilderError is returned where a Kubefile asks for images, and the builder cannot fetch them as they are.
type OldBuilderError struct{ Err error }

func (e *OldBuilderError) Error() string {
	return "this builder cannot fetch container images as they are: " + e.Err.Error()
}
func (e *OldBuilderError) Unwrap() error { return e.Err }

// Hint says which one can.
func (*OldBuilderError) Hint() string {
	return "it needs BuildKit 0.28 or later; `sealer build` needs none"
}
