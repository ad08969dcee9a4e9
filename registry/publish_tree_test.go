// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/test/testregistry"
)

// The folder of a real docker-registry is taken over as it stands, beside what
// is packed, and answers for names of every domain.
func TestPublishTree(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	old, err := testregistry.Start(ctx, testregistry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	nginx := image(t, "linux/amd64", layer(1, 5000))
	pushImage(t, old.Address+"/library/nginx:1.27", nginx)
	pushImage(t, old.Address+"/pause:3.6", image(t, "linux/amd64", layer(2, 10)))
	pushImage(t, old.Address+"/a/b:1", image(t, "linux/amd64", layer(3, 10)))
	require.NoError(t, old.Close())

	up := newUpstream(t)
	up.push(t, "quay.io/a/b:1", image(t, "linux/amd64", layer(7, 10)))
	c := newClient(t, func(o *registry.Options) { o.Mirrors = map[string]string{"quay.io": up.URL + "/quay.io"} })
	dir := t.TempDir()
	_, img := publishedFrom(t, c, dir, "example.com/c:1", request("quay.io/a/b:1"))
	// What is foreign there does no harm: links to nothing, out of the folder, or with nonsense in them.
	repositories := filepath.Join(old.Dir, "docker/registry/v2/repositories")
	require.NoError(t, os.Symlink("/etc", filepath.Join(repositories, "etc")))
	for name, text := range map[string]string{
		"pause/_manifests/tags/nonsense/current/link": "hello",
		"pause/_manifests/tags/nothing/current/link":  "sha256:0000000000000000000000000000000000000000000000000000000000000000",
		"Not A Name/_manifests/tags/x/current/link":   "sha256:0000000000000000000000000000000000000000000000000000000000000000",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(repositories, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(repositories, name), []byte(text), 0o600))
	}
	require.NoError(t, registry.PublishTree(ctx, old.Dir, dir))
	require.NoError(t, registry.PublishTree(ctx, old.Dir, dir), "again")

	host, stop := serve(t, registry.ServerOptions{Dir: dir})
	defer stop()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	want, err := nginx.Digest()
	require.NoError(t, err)
	for _, path := range []string{
		"library/nginx/manifests/1.27?ns=docker.io", "library/nginx/manifests/1.27", "library/nginx/manifests/1.27?ns=mirror.example",
		"library/nginx/manifests/" + want.String() + "?ns=docker.io",
	} {
		resp, body := get(t, client, http.MethodGet, "http://"+host+"/v2/"+path)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", path, body)
		require.Equal(t, want.String(), resp.Header.Get("Docker-Content-Digest"))
	}
	resp, _ := get(t, client, http.MethodGet, "http://"+host+"/v2/pause/manifests/3.6?ns=registry.k8s.io")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	for _, tag := range []string{"nonsense", "nothing"} {
		resp, _ = get(t, client, http.MethodGet, "http://"+host+"/v2/pause/manifests/"+tag)
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	}
	// A packed image of the same path wins, for its domain.
	resp, _ = get(t, client, http.MethodGet, "http://"+host+"/v2/a/b/manifests/1?ns=quay.io")
	require.Equal(t, img.Images[0].Manifest.Digest.String(), resp.Header.Get("Docker-Content-Digest"))
}

// A blob that is not what its name says stops it.
func TestPublishTree_Damaged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	old, err := testregistry.Start(ctx, testregistry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	pushImage(t, old.Address+"/a:1", image(t, "linux/amd64", layer(1, 5000)))
	require.NoError(t, old.Close())
	blobs, err := filepath.Glob(filepath.Join(old.Dir, "docker/registry/v2/blobs/sha256/*/*/data"))
	require.NoError(t, err)
	require.NotEmpty(t, blobs)
	require.NoError(t, os.WriteFile(blobs[0], []byte("other"), 0o600))
	require.ErrorContains(t, registry.PublishTree(ctx, old.Dir, t.TempDir()), "has the digest")
}

func pushImage(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, img))
}
