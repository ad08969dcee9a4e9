// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/test/testregistry"
)

// pushedCluster is a ClusterImage of several images and two platforms in a registry.
func pushedCluster(t *testing.T, up *upstream) (ref string, desc ocispec.Descriptor) {
	t.Helper()
	st := newStore(t)
	desc = clusterImage(t, newClient(t), st, "example.com/c:1", mixed(t, up)...)
	_, err := newClient(t).Push(context.Background(), st, desc, up.host+"/c:1")
	require.NoError(t, err)
	up.forget()
	return up.host + "/c:1", desc
}

func TestCopy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up, target := newUpstream(t), newUpstream(t)
	ref, desc := pushedCluster(t, up)
	st := newStore(t)
	copied, err := newClient(t).Copy(ctx, st, ref, target.host+"/other/c:2", registry.CopyOptions{})
	require.NoError(t, err)
	require.Equal(t, desc.Digest, copied.Digest)
	to := newStore(t)
	_, err = newClient(t).Pull(ctx, to, target.host+"/other/c:2", registry.PullOptions{})
	require.NoError(t, err)
	blobs := complete(t, to, copied)
	for _, b := range blobs {
		if strings.Contains(b.MediaType, "layer") || strings.Contains(b.MediaType, "rootfs.diff") {
			_, err := st.Content().Info(ctx, b.Digest)
			require.Error(t, err, "layers do not land in the store")
		}
	}
	all, err := st.List(ctx)
	require.NoError(t, err)
	require.Empty(t, all)
	for _, b := range blobs {
		require.LessOrEqual(t, len(up.requests("GET /v2/c/blobs/"+b.Digest.String())), 1)
	}

	t.Run("again", func(t *testing.T) {
		target.forget()
		_, err := newClient(t).Copy(ctx, newStore(t), ref, target.host+"/other/c:2", registry.CopyOptions{})
		require.NoError(t, err)
		require.Empty(t, target.requests("POST "))
	})
	t.Run("one registry", func(t *testing.T) {
		up.forget()
		_, err := newClient(t).Copy(ctx, newStore(t), ref, up.host+"/renamed:1", registry.CopyOptions{})
		require.NoError(t, err)
		require.Empty(t, up.requests("PUT /v2/renamed/blobs/"), "every blob is mounted")
		_, err = newClient(t).Pull(ctx, newStore(t), up.host+"/renamed:1", registry.PullOptions{})
		require.NoError(t, err)
	})
	t.Run("one platform", func(t *testing.T) {
		some, err := newClient(t).Copy(ctx, newStore(t), ref, target.host+"/some:1", registry.CopyOptions{Platforms: []ocispec.Platform{amd64}})
		require.NoError(t, err)
		require.NotEqual(t, desc.Digest, some.Digest)
		to := newStore(t)
		pulled, err := newClient(t).Pull(ctx, to, target.host+"/some:1", registry.PullOptions{})
		require.NoError(t, err)
		complete(t, to, pulled)
		img, err := clusterimage.Read(ctx, to.Content(), pulled)
		require.NoError(t, err)
		require.Len(t, img.Rootfs, 1)
		require.NotEmpty(t, img.Images)
	})
	t.Run("another digest in the name", func(t *testing.T) {
		_, err := newClient(t).Copy(ctx, newStore(t), ref, target.host+"/x@sha256:"+strings.Repeat("0", 64), registry.CopyOptions{})
		require.ErrorContains(t, err, "another digest")
	})
}

// Whatever happens to a connection on the way, a copy is right or it is not there.
func TestCopy_Faults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, tc := range map[string]struct {
		from, to *testregistry.Fault
		fails    bool
	}{
		"source cut":    {from: &testregistry.Fault{Method: "GET", Path: regexp.MustCompile("/blobs/"), Times: 6, Effect: testregistry.CutAfter(300_000)}},
		"source lies":   {from: &testregistry.Fault{Method: "GET", Path: regexp.MustCompile("/a/b/blobs/"), Effect: testregistry.FlipByte(700_000)}, fails: true},
		"target cut":    {to: &testregistry.Fault{Method: "PUT", Path: regexp.MustCompile("/blobs/"), Times: 2, Effect: testregistry.CutUploadAfter(400_000)}},
		"target busy":   {to: &testregistry.Fault{Method: "PUT", Path: regexp.MustCompile("/blobs/"), Times: 2, Effect: testregistry.Status(http.StatusServiceUnavailable)}},
		"target denies": {to: &testregistry.Fault{Method: "PUT", Path: regexp.MustCompile("/blobs/"), Effect: testregistry.Status(http.StatusForbidden)}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, target := newUpstream(t), newUpstream(t)
			up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1<<20), layer(2, 3<<20)))
			a, err := testregistry.NewProxy(ctx, up.URL, testregistry.ProxyOptions{})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, a.Close()) })
			b, err := testregistry.NewProxy(ctx, target.URL, testregistry.ProxyOptions{})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, b.Close()) })
			if tc.from != nil {
				a.Inject(*tc.from)
			}
			if tc.to != nil {
				b.Inject(*tc.to)
			}
			_, err = newClient(t).Copy(ctx, newStore(t), a.Address+"/a/b:1", b.Address+"/c/d:1", registry.CopyOptions{})
			if tc.fails {
				require.Error(t, err)
				require.Empty(t, target.requests("PUT /v2/c/d/manifests"))
				return
			}
			require.NoError(t, err)
			_, err = newClient(t).Pull(ctx, newStore(t), target.host+"/c/d:1", registry.PullOptions{})
			require.NoError(t, err)
		})
	}
}

// distribution runs the registry that most registries are made of, in this process.
func distribution(t *testing.T) *httptest.Server {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"filesystem": configuration.Parameters{"rootdirectory": t.TempDir()}}}
	config.HTTP.Secret = "test"
	config.HTTP.RelativeURLs = true
	app := handlers.NewApp(context.Background(), config)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		app.ServeHTTP(w, r.WithContext(registry.WithDistributionLog(r.Context(), io.Discard)))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	return server
}

// An upload that was cut goes on where the registry says that it is.
func TestPush_ResumesUpload(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	server := distribution(t)
	proxy, err := testregistry.NewProxy(ctx, server.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, proxy.Close()) })
	up := newUpstream(t)
	const large = 16 << 20
	st := newStore(t)
	desc, err := newClient(t).Pull(ctx, st, up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, large))), registry.PullOptions{})
	require.NoError(t, err)
	proxy.Inject(testregistry.Fault{Method: "PUT", Path: regexp.MustCompile("/blobs/uploads/"), Times: 2, Effect: testregistry.CutUploadAfter(7 << 20)})
	_, err = newClient(t, func(o *registry.Options) { o.Backoff = 100 * time.Millisecond }).Push(ctx, st, desc, proxy.Address+"/c:1")
	require.NoError(t, err)
	require.Less(t, proxy.Received(), int64(large+large/4), "what had arrived was not sent again")
	require.GreaterOrEqual(t, proxy.Count("PUT", "/blobs/uploads/"), 2)
	_, err = newClient(t).Pull(ctx, newStore(t), strings.TrimPrefix(server.URL, "http://")+"/c:1", registry.PullOptions{})
	require.NoError(t, err)
}

// A registry may send an upload elsewhere once it has seen it: all of it goes there.
func TestPush_RedirectedUpload(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up, target := newUpstream(t), newUpstream(t)
	st := newStore(t)
	desc, err := newClient(t).Pull(ctx, st, up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 4<<20))), registry.PullOptions{})
	require.NoError(t, err)
	elsewhere := httptest.NewServer(target.Config.Handler)
	t.Cleanup(elsewhere.Close)
	var redirected atomic.Int32
	target.step(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/uploads/") || r.Host != target.host {
			return false
		}
		redirected.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return true
	})
	_, err = newClient(t).Push(ctx, st, desc, target.host+"/c:1")
	require.NoError(t, err)
	require.EqualValues(t, 2, redirected.Load(), "the configuration and the layer")
	_, err = newClient(t).Pull(ctx, newStore(t), target.host+"/c:1", registry.PullOptions{})
	require.NoError(t, err)
}

// What other repositories of the registry have is taken over from there: of an
// image that stands there by the store's knowledge, and of packed images whose
// mirror it is.
func TestPush_Mounts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	server := distribution(t)
	proxy, err := testregistry.NewProxy(ctx, server.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, proxy.Close()) })
	base := layer(1, 2<<20)
	st := newStore(t)
	pull := func(name string, what remote.Taggable) ocispec.Descriptor {
		desc, err := newClient(t).Pull(ctx, st, up.push(t, name, what), registry.PullOptions{})
		require.NoError(t, err)
		return desc
	}
	one := pull("x/one:1", image(t, "linux/amd64", base))
	two := pull("x/two:1", image(t, "linux/amd64", base, layer(2, 1000)))
	_, err = newClient(t).Push(ctx, st, one, proxy.Address+"/team/one:1")
	require.NoError(t, err)
	require.NoError(t, st.Tag(ctx, proxy.Address+"/team/one:1", one))
	proxy.Reset()
	_, err = newClient(t).Push(ctx, st, two, proxy.Address+"/team/two:1")
	require.NoError(t, err)
	require.Less(t, proxy.Received(), int64(10_000), "the shared layer is mounted")

	// docker.io's images come from the registry itself, which has them under a prefix.
	_, err = newClient(t).Push(ctx, st, one, proxy.Address+"/hub/library/base:1")
	require.NoError(t, err)
	mirrored := newClient(t, func(o *registry.Options) {
		o.Mirrors = map[string]string{"docker.io": "http://" + proxy.Address + "/hub"}
	})
	cluster := newStore(t)
	desc := clusterImage(t, mirrored, cluster, "example.com/c:1", request("docker.io/library/base:1"))
	proxy.Reset()
	_, err = mirrored.Push(ctx, cluster, desc, proxy.Address+"/team/cluster:1")
	require.NoError(t, err)
	require.Less(t, proxy.Received(), int64(50_000), "the packed image's layer is mounted")
}

// Selected platforms keep what is attested of them, and nothing else.
func TestSelect(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	st := newStore(t)
	idx := index(t, map[string]v1.Image{"linux/amd64": image(t, "linux/amd64", layer(1, 10)), "linux/arm64": image(t, "linux/arm64", layer(2, 10))}, false)
	desc, err := newClient(t).Pull(ctx, st, up.push(t, "a/b:1", idx), registry.PullOptions{})
	require.NoError(t, err)
	some, err := clusterimage.Select(ctx, st.Content(), desc, []ocispec.Platform{amd64})
	require.NoError(t, err)
	var got ocispec.Index
	readJSON(t, st, some, &got)
	require.Len(t, got.Manifests, 1)
	both, err := clusterimage.Select(ctx, st.Content(), desc, []ocispec.Platform{amd64, {OS: "linux", Architecture: "arm64"}})
	require.NoError(t, err)
	require.Equal(t, desc.Digest, both.Digest)
	_, err = clusterimage.Select(ctx, st.Content(), desc, []ocispec.Platform{{OS: "linux", Architecture: "s390x"}})
	_, ok := errors.AsType[*clusterimage.PlatformError](err)
	require.True(t, ok, "%v", err)
}
