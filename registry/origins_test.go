// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
)

// Who asks for an image that cannot be had is told which files do, and what can be done about it.
func TestPackImages_FailuresNameTheirOrigins(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1000)))
	s390x := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	pack := func(reqs ...registry.ImageRequest) error {
		_, err := newClient(t).PackImages(t.Context(), newStore(t), reqs)
		require.Error(t, err)
		return err
	}
	hint := func(err error) string {
		var h interface{ Hint() string }
		require.ErrorAs(t, err, &h)
		return h.Hint()
	}

	err := pack(registry.ImageRequest{Name: up.host + "/a/b:1", Platform: s390x, Origins: []string{"manifests/all.yaml:9"}})
	require.EqualError(t, err, "manifests/all.yaml:9: "+up.host+"/a/b:1 has nothing for linux/s390x, it has linux/amd64")
	require.Contains(t, hint(err), "platform=linux/amd64")
	require.Contains(t, hint(err), "--ignored-image-list")

	// One name for two platforms is one question, and its answer belongs to two requests.
	err = pack(
		registry.ImageRequest{Name: up.host + "/no/such:1", Platform: amd64, Origins: []string{"imageList:1", "pod.yaml:2", "pod.yaml:3"}},
		registry.ImageRequest{Name: up.host + "/no/such:1", Platform: s390x, Origins: []string{"imageList:4"}},
	)
	require.ErrorContains(t, err, "imageList:1 and 2 more: "+up.host+"/no/such:1: GET ")
	require.ErrorContains(t, err, "\nimageList:4: "+up.host+"/no/such:1: GET ")
	require.Contains(t, hint(err), "check the name and the tag")

	err = pack(registry.ImageRequest{Name: "127.0.0.1:1/x:1", Platform: amd64, Origins: []string{"imageList:1"}})
	require.ErrorContains(t, err, "imageList:1: 127.0.0.1:1/x:1: contacting 127.0.0.1:1: ")
	require.Contains(t, hint(err), "check the name of the registry")

	err = pack(registry.ImageRequest{Name: "127.0.0.1:1/x:1", Platform: amd64})
	named, ok := errors.AsType[*registry.ImageError](err)
	require.True(t, ok)
	require.Empty(t, named.Origins)
}
