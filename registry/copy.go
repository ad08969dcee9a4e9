// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// CopyOptions narrow a copy.
type CopyOptions struct {
	// Platforms to copy; none means all that the image has, which keeps its
	// digest. With some of them the copy is another index.
	Platforms []ocispec.Platform
}

// Copy copies an image from one reference to another and returns its
// descriptor. Documents go through the store, without a tag; layers go from one
// registry to the other as they are read, verified on the way, or are mounted
// where both are one registry. A layer that the store has is sent from there.
// What the target has is not sent.
func (c *Client) Copy(ctx context.Context, st *store.Store, from, to string, o CopyOptions) (_ ocispec.Descriptor, err error) {
	src, err := c.parse(from)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dst, err := c.parse(to)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	s, err := c.session(ctx, src, transport.PullScope)
	if err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	doc, err := s.manifest(ctx, st, src.identifier())
	if err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	p := puller{s: s, st: st, want: o.Platforms, documentsOnly: true}
	desc, err := p.pull(ctx, doc)
	if err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	if desc, err = clusterimage.Select(ctx, st.Content(), desc, o.Platforms); err != nil {
		return ocispec.Descriptor{}, src.fail(err)
	}
	if d, ok := dst.digest(); ok && d != desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("copying %s to %s: the name has another digest", desc.Digest, dst.name())
	}
	return c.push(ctx, st, desc, dst.direct(), s)
}
