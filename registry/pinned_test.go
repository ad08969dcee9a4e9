// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
)

// noNetwork fails a test that asks for anything.
type noNetwork struct{ t *testing.T }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s", r.Method, r.URL)
	return nil, http.ErrUseLastResponse
}

// An image whose digest is known and that the store has costs no request; in an empty store it costs no question for the tag.
func TestPackImages_Pinned(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	up.push(t, "a/b:1", index(t, map[string]v1.Image{
		"linux/amd64": image(t, "linux/amd64", layer(1, 1000)), "linux/arm64": image(t, "linux/arm64", layer(2, 1000)),
	}, false))
	req := request(up.host + "/a/b:1")
	st := newStore(t)
	want, err := newClient(t).PackImages(ctx, st, []registry.ImageRequest{req})
	require.NoError(t, err)

	req.Digest = want[0].Index.Digest
	offline := newClient(t, func(o *registry.Options) { o.Transport = noNetwork{t} })
	got, err := offline.PackImages(ctx, st, []registry.ImageRequest{req})
	require.NoError(t, err)
	require.Equal(t, want, got)

	up.push(t, "a/b:1", image(t, "linux/amd64", layer(9, 1000))) // the tag has moved: nobody asks
	other := newStore(t)
	up.forget()
	got, err = newClient(t).PackImages(ctx, other, []registry.ImageRequest{req})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Empty(t, up.requests("manifests/1"))

	req.Digest = want[0].Manifest.Digest // as where a tag stands for one manifest
	got, err = offline.PackImages(ctx, st, []registry.ImageRequest{req})
	require.NoError(t, err)
	require.Nil(t, got[0].Index)
	req.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	_, err = newClient(t).PackImages(ctx, st, []registry.ImageRequest{req})
	require.ErrorContains(t, err, "has nothing for linux/arm64, it has linux/amd64")
}

func TestResolveImages(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1000)))
	st := newStore(t)
	got, err := newClient(t).ResolveImages(ctx, st, []registry.ImageRequest{request(up.host + "/a/b:1")})
	require.NoError(t, err)
	require.Greater(t, got[0].Size, int64(1000))
	want, err := newClient(t).PackImages(ctx, newStore(t), []registry.ImageRequest{request(up.host + "/a/b:1")})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestPackImages_Absent(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1000)))
	var mu sync.Mutex
	told := map[string]string{}
	absent := func(req registry.ImageRequest, err error) bool {
		mu.Lock()
		defer mu.Unlock()
		told[req.Name] = err.Error()
		return true
	}
	reqs := []registry.ImageRequest{
		{Name: up.host + "/a/b:1", Platform: amd64, Absent: absent},
		{Name: up.host + "/no/such:1", Platform: amd64, Absent: absent},
		{Name: "127.0.0.1:1/x:1", Platform: amd64, Absent: absent},
		{Name: up.host + "/a/b:1", Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}, Absent: absent},
	}
	got, err := newClient(t).PackImages(ctx, newStore(t), reqs)
	require.NoError(t, err)
	require.NotEmpty(t, got[0].Manifest.Digest)
	for _, none := range got[1:] {
		require.Equal(t, digest.Digest(""), none.Manifest.Digest)
	}
	require.Len(t, told, 3)
	require.Contains(t, told["127.0.0.1:1/x:1"], "connection refused")
	require.Contains(t, told[up.host+"/a/b:1"], "has nothing for linux/s390x")
}

// That an image is not there is another thing than that nobody could say so.
func TestPackImages_AbsentOrNotAsked(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1000)))
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/secret/") {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	other := httptest.NewServer(http.NotFoundHandler()) // answers, and is no registry
	t.Cleanup(other.Close)
	for _, test := range []struct {
		name            string
		platform        ocispec.Platform
		absent, refused bool
	}{
		{name: up.host + "/no/such:1", platform: amd64, absent: true},
		{name: up.host + "/a/b:1", platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}, absent: true},
		{name: up.host + "/secret/b:1", platform: amd64, refused: true},
		{name: "127.0.0.1:1/x:1", platform: amd64},
		{name: strings.TrimPrefix(other.URL, "http://") + "/x:1", platform: amd64},
	} {
		asked := false
		_, err := newClient(t).PackImages(t.Context(), newStore(t), []registry.ImageRequest{{
			Name: test.name, Platform: test.platform, Absent: func(_ registry.ImageRequest, err error) bool {
				asked = true
				require.Equal(t, test.absent, registry.IsAbsent(err), "%s: %v", test.name, err)
				require.Equal(t, test.refused, registry.IsRefused(err), "%s: %v", test.name, err)
				require.False(t, registry.MayPass(err), "%s: %v", test.name, err)
				return false
			},
		}})
		require.Error(t, err)
		require.True(t, asked, test.name)
	}
}
