// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
)

func TestPackImages_Kinds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	am := image(t, "linux/amd64", layer(1, 10))
	v6, v7 := image(t, "linux/arm/v6", layer(2, 10)), image(t, "linux/arm/v7", layer(3, 10))
	arm := image(t, "linux/arm64", layer(4, 10))
	idx := index(t, map[string]v1Image{"linux/amd64": am, "linux/arm64/v8": arm, "linux/arm/v6": v6, "linux/arm/v7": v7}, true)
	multi := up.push(t, "a/multi:1", idx)
	list := up.push(t, "a/list:1", mutate.IndexMediaType(idx, types.DockerManifestList))
	single := up.push(t, "a/single:1", am)
	onlyV6 := up.push(t, "a/v6:1", index(t, map[string]v1Image{"linux/arm/v6": v6}, false))
	idxDigest, err := idx.Digest()
	require.NoError(t, err)
	amDigest, err := am.Digest()
	require.NoError(t, err)
	repo := strings.TrimSuffix(multi, ":1")

	for name, tc := range map[string]struct {
		ref, platform string
		want          v1Image
		index         bool
		have          []string // of the error
	}{
		"index":                    {ref: multi, platform: "linux/amd64", want: am, index: true},
		"arm64 is arm64/v8":        {ref: multi, platform: "linux/arm64", want: arm, index: true},
		"the best variant":         {ref: multi, platform: "linux/arm/v7", want: v7, index: true},
		"a lesser variant":         {ref: onlyV6, platform: "linux/arm/v7", want: v6, index: true},
		"a greater one is none":    {ref: onlyV6, platform: "linux/arm/v5", have: []string{"linux/arm/v6"}},
		"docker's list":            {ref: list, platform: "linux/amd64", want: am, index: true},
		"single":                   {ref: single, platform: "linux/amd64", want: am},
		"single of another":        {ref: single, platform: "linux/arm64", have: []string{"linux/amd64"}},
		"none":                     {ref: multi, platform: "linux/s390x", have: []string{"linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"}},
		"digest of the index":      {ref: repo + "@" + idxDigest.String(), platform: "linux/amd64", want: am, index: true},
		"digest of the manifest":   {ref: repo + "@" + amDigest.String(), platform: "linux/amd64", want: am},
		"the digest wins over tag": {ref: list + "@" + amDigest.String(), platform: "linux/amd64", want: am},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := parsePlatform(t, tc.platform)
			packed, err := newClient(t).PackImages(ctx, newStore(t), []registry.ImageRequest{{Name: tc.ref, Platform: p, App: "x"}})
			if tc.have != nil {
				var pe *clusterimage.PlatformError
				require.ErrorAs(t, err, &pe)
				require.Equal(t, tc.have, pe.Have)
				require.ErrorContains(t, err, tc.ref)
				return
			}
			require.NoError(t, err)
			d, err := tc.want.Digest()
			require.NoError(t, err)
			require.Equal(t, d.String(), packed[0].Manifest.Digest.String())
			require.Equal(t, tc.ref, packed[0].Name)
			require.Equal(t, tc.platform, packed[0].Platform)
			require.Equal(t, tc.index, packed[0].Index != nil)
		})
	}
}

func TestPackImages_SchemaOne(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
		_, _ = w.Write([]byte(`{"schemaVersion":1,"name":"a/b","fsLayers":[],"history":[]}`))
		return true
	})
	_, err := newClient(t).PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(up.host + "/a/b:1")})
	var old *registry.SchemaOneError
	require.ErrorAs(t, err, &old)
}
