// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
	"github.com/sealerio/sealer/store"
)

// adopted finds the ClusterImage that an earlier pull of the same document under the same name has made: its layers,
// which a store does not keep beside what was in them, are not asked for again.
func (p *puller) adopted(ctx context.Context, name string, doc document) (ocispec.Descriptor, bool) {
	tagged, err := p.st.Resolve(ctx, name)
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	index, err := clusterimage.ReadIndex(ctx, p.st.Content(), tagged.Descriptor)
	if err != nil || layout.Source(index) != doc.desc.Digest.String() {
		return ocispec.Descriptor{}, false
	}
	img, err := clusterimage.Read(ctx, p.st.Content(), tagged.Descriptor)
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	return tagged.Descriptor, whole(ctx, p.st, img, p.want)
}

// whole tells whether the store has everything that an image needs on some platforms.
func whole(ctx context.Context, st *store.Store, img *clusterimage.Image, want []ocispec.Platform) bool {
	blobs, err := img.Descriptors(ctx, st.Content(), want)
	if err != nil {
		return false
	}
	for _, b := range blobs {
		if info, err := st.Content().Info(ctx, b.Digest); err != nil || info.Size != b.Size {
			return false
		}
	}
	return true
}
