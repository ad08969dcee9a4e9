// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

type (
	v1Image       = v1.Image
	ociPlatform   = ocispec.Platform
	ociDescriptor = ocispec.Descriptor
)

func desc(d digest.Digest, size int) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: d, Size: int64(size)}
}

func parsePlatform(t testing.TB, s string) ocispec.Platform {
	t.Helper()
	p, err := platforms.Parse(s)
	require.NoError(t, err)
	return p
}

func newTarLayer(data []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
}

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}

func readJSON(t testing.TB, st *store.Store, d ocispec.Descriptor, v any) {
	t.Helper()
	require.NoError(t, clusterimage.ReadJSON(context.Background(), st.Content(), d, v))
}
