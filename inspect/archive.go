// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/ship"
)

// InArchive is an image of an archive; see ship.Archive.Resolve for ref. The caller closes the archive.
func InArchive(a *ship.Archive, ref string) (*Subject, error) {
	t, err := a.Resolve(ref)
	if err != nil {
		return nil, err
	}
	if t.Name == "" {
		t.Name = t.Descriptor.Digest.String()
	}
	return &Subject{
		Name: t.Name, Descriptor: t.Descriptor, Content: a, Signatures: a, Local: true, Open: opener(a),
	}, nil
}

// opener streams the blobs of a provider.
func opener(p content.Provider) func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		ra, err := p.ReaderAt(ctx, desc)
		if err != nil {
			return nil, err
		}
		return blobReader{Reader: content.NewReader(ra), Closer: ra}, nil
	}
}
