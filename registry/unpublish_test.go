// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// blobsIn are the blobs of a registry's folder.
func blobsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "docker/registry/v2/blobs"), func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "data" {
			found["sha256:"+filepath.Base(filepath.Dir(name))] = true
		}
		return err
	}))
	return found
}

// What one ClusterImage packs goes, and what another packs as well, was pushed, or shares its layers stays.
func TestUnpublish(t *testing.T) {
	t.Parallel()
	shared := layer(9, 3000)
	up := newUpstream(t)
	up.push(t, "quay.io/a/web:1", image(t, "linux/amd64", shared, layer(1, 1000)))
	up.push(t, "quay.io/a/web:2", image(t, "linux/amd64", shared, layer(2, 1000)))
	up.push(t, "quay.io/a/both:1", image(t, "linux/amd64", layer(3, 1000)))
	up.push(t, "quay.io/a/alone:1", image(t, "linux/amd64", layer(4, 1000)))
	up.push(t, "quay.io/a/pushed:1", image(t, "linux/amd64", layer(5, 1000)))
	c := newClient(t, func(o *registry.Options) { o.Mirrors = map[string]string{"quay.io": up.URL + "/quay.io"} })
	dir := t.TempDir()
	st, old := publishedFrom(t, c, dir, "example.com/app:1",
		request("quay.io/a/web:1"), request("quay.io/a/both:1"), request("quay.io/a/alone:1"), request("quay.io/a/pushed:1"))
	_, other := publishedFrom(t, c, dir, "example.com/app:2", request("quay.io/a/web:2"), request("quay.io/a/both:1"))

	host, stop := serve(t, registry.ServerOptions{Dir: dir})
	defer stop()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	status := func(path string) int {
		resp, _ := get(t, client, http.MethodGet, "http://"+host+"/v2/"+path)
		return resp.StatusCode
	}
	pushImage(t, host+"/quay.io/a/pushed:1", image(t, "linux/amd64", layer(6, 1000))) // over the packed one
	before := blobsIn(t, dir)
	names := []string{"quay.io/a/web:1", "quay.io/a/alone:1", "quay.io/a/web:2", "quay.io/a/both", "quay.io/a/both:1"}
	lacks, err := registry.Lacks(dir, names)
	require.NoError(t, err)
	require.Equal(t, []string{"quay.io/a/both"}, lacks, "its tag is latest")

	for range 2 {
		require.NoError(t, registry.Unpublish(t.Context(), st, old, []*clusterimage.Image{other}, dir))
		for path, want := range map[string]int{
			"a/web/manifests/1?ns=quay.io": http.StatusNotFound, "a/alone/manifests/1?ns=quay.io": http.StatusNotFound,
			"a/web/manifests/2?ns=quay.io": http.StatusOK, "a/both/manifests/1?ns=quay.io": http.StatusOK, "a/pushed/manifests/1?ns=quay.io": http.StatusOK,
		} {
			require.Equal(t, want, status(path), path)
		}
	}
	after := blobsIn(t, dir)
	require.Len(t, after, len(before)-9, "of web:1, alone:1 and the packed pushed:1 manifest, config and a layer each")
	for _, p := range other.Images {
		require.True(t, after[p.Manifest.Digest.String()], p.Name)
	}
	lacks, err = registry.Lacks(dir, names)
	require.NoError(t, err)
	require.Equal(t, []string{"quay.io/a/web:1", "quay.io/a/alone:1", "quay.io/a/both"}, lacks)

	// It comes back as it was.
	require.NoError(t, registry.Publish(t.Context(), st, old, dir))
	require.Equal(t, http.StatusOK, status("a/alone/manifests/1?ns=quay.io"))
}

// A peer that still has an image does not bring it back, until it is pushed anew.
func TestUnpublish_Peers(t *testing.T) {
	b := newPeerBed(t)
	up := newUpstream(t)
	up.push(t, "quay.io/a/app:1", image(t, "linux/amd64", layer(1, 1000)))
	c := newClient(t, func(o *registry.Options) { o.Mirrors = map[string]string{"quay.io": up.URL + "/quay.io"} })
	st, img := publishedFrom(t, c, b.dirs[0], "example.com/app:1", request("quay.io/a/app:1"))
	b.start(t, 0)
	b.start(t, 1)
	id := img.Images[0].Manifest.Digest.String()
	eventually := func(i int, image, want string) {
		require.Eventually(t, func() bool { return b.digestAt(t, i, image) == want }, 30*time.Second, 20*time.Millisecond)
	}
	eventually(1, "quay.io/a/app:1", id)
	require.NoError(t, registry.Unpublish(t.Context(), st, img, nil, b.dirs[0]))
	require.Empty(t, b.digestAt(t, 0, "quay.io/a/app:1"))
	// What is pushed now comes with the next look at the peer: then the other one would have come, too.
	mark, markID := newImage(t)
	b.stops[0]()
	require.NoError(t, remote.Write(b.ref(t, 1, "mark:1"), mark))
	b.start(t, 0)
	eventually(0, "mark:1", markID.String())
	require.Empty(t, b.digestAt(t, 0, "quay.io/a/app:1"))
	again, againID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 1, "quay.io/a/app:1"), again))
	eventually(0, "quay.io/a/app:1", againID.String())
	_, err := os.Stat(filepath.Join(b.dirs[0], "docker/registry/v2/removed"))
	require.NoError(t, err)
}

// newAppOnBoth is two peers that serve a packed image, both of them away.
func newAppOnBoth(t *testing.T) (b *peerBed, st *store.Store, img *clusterimage.Image) {
	t.Helper()
	b = newPeerBed(t)
	up := newUpstream(t)
	up.push(t, "quay.io/a/app:1", image(t, "linux/amd64", layer(1, 1000)))
	c := newClient(t, func(o *registry.Options) { o.Mirrors = map[string]string{"quay.io": up.URL + "/quay.io"} })
	st, img = publishedFrom(t, c, b.dirs[0], "example.com/app:1", request("quay.io/a/app:1"))
	for i := range 2 {
		b.start(t, i)
	}
	b.eventually(t, 1, "quay.io/a/app:1", img.Images[0].Manifest.Digest.String())
	for i := range 2 {
		b.stops[i]()
	}
	return b, st, img
}

func (b *peerBed) eventually(t *testing.T, i int, image, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return b.digestAt(t, i, image) == want }, 30*time.Second, 20*time.Millisecond)
}

// stays looks for a while, in which the registries ask one another many times.
func (b *peerBed) stays(t *testing.T, image, want string) {
	t.Helper()
	for range 20 {
		for i := range 2 {
			require.Equal(t, want, b.digestAt(t, i, image))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// What was taken away while a peer was away goes there, too, with its blobs, and comes back to nobody; what was pushed there by another name
// or digest stays, and so does the same one when it is pushed again, or published, after that.
func TestUnpublish_PeerThatWasAway(t *testing.T) {
	b, st, img := newAppOnBoth(t)
	id := img.Images[0].Manifest.Digest.String()
	b.start(t, 1)
	other, otherID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 1, "quay.io/a/app:2"), other))
	require.Len(t, blobsIn(t, b.dirs[1]), 3+5)
	require.NoError(t, registry.Unpublish(t.Context(), st, img, nil, b.dirs[0]))
	b.start(t, 0)
	b.eventually(t, 1, "quay.io/a/app:1", "")
	require.Eventually(t, func() bool { return len(blobsIn(t, b.dirs[1])) == 5 }, 30*time.Second, 20*time.Millisecond)
	b.eventually(t, 0, "quay.io/a/app:2", otherID.String())
	b.stays(t, "quay.io/a/app:1", "")
	require.Empty(t, b.digestAt(t, 1, "quay.io/a/app@"+id))

	require.NoError(t, remote.Write(b.ref(t, 1, "quay.io/a/app:1"), image(t, "linux/amd64", layer(1, 1000))))
	b.eventually(t, 0, "quay.io/a/app:1", id)
	b.stays(t, "quay.io/a/app:1", id)
	require.NoError(t, registry.Unpublish(t.Context(), st, img, nil, b.dirs[1]))
	require.Eventually(t, func() bool { return len(blobsIn(t, b.dirs[0])) == 5 }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, registry.Publish(t.Context(), st, img, b.dirs[0]))
	b.eventually(t, 1, "quay.io/a/app:1", id)
	b.stays(t, "quay.io/a/app:1", id)
}

// A push after a removal is kept, also where the clock of the host that took it away is ahead, and where the one with the push was the only
// one that there was.
func TestUnpublish_Skew(t *testing.T) {
	b, st, img := newAppOnBoth(t)
	id := img.Images[0].Manifest.Digest.String()
	ahead := time.Now().Add(time.Hour)
	require.NoError(t, filepath.WalkDir(filepath.Join(b.dirs[0], "docker/registry/v2/repositories"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(name, ahead, ahead)
	}))
	require.NoError(t, registry.Unpublish(t.Context(), st, img, nil, b.dirs[0]))
	b.start(t, 0)
	b.start(t, 1)
	require.Eventually(t, func() bool { return len(blobsIn(t, b.dirs[1])) == 0 }, 30*time.Second, 20*time.Millisecond)
	b.stops[0]()
	require.NoError(t, remote.Write(b.ref(t, 1, "quay.io/a/app:1"), image(t, "linux/amd64", layer(1, 1000))))
	b.start(t, 0)
	b.eventually(t, 0, "quay.io/a/app:1", id)
	b.stays(t, "quay.io/a/app:1", id)
}

// A manifest that was taken away elsewhere stays as long as an index that is here leads to it.
func TestUnpublish_IndexKeepsItsManifests(t *testing.T) {
	b, st, img := newAppOnBoth(t)
	id := img.Images[0].Manifest.Digest.String()
	b.start(t, 1)
	packed, err := remote.Image(b.ref(t, 1, "quay.io/a/app:1"))
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(b.ref(t, 1, "quay.io/a/app:all"), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: packed})))
	require.NoError(t, registry.Unpublish(t.Context(), st, img, nil, b.dirs[0]))
	b.start(t, 0)
	b.eventually(t, 1, "quay.io/a/app:1", "")
	b.eventually(t, 0, "quay.io/a/app@"+id, id)
	b.stays(t, "quay.io/a/app@"+id, id)
}

// What was taken away is kept for a time, and of so many at most, the last ones.
func TestRemovals_Bounds(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	d := digest.FromString("x")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "removed"), 0o755))
	require.NoError(t, registry.WriteMark(dir, "a", d, now.Add(-181*24*time.Hour)))
	for i := range registry.MaxRemoved + 1 {
		require.NoError(t, registry.WriteMark(dir, "b/"+strconv.Itoa(i), d, now.Add(-time.Duration(i)*time.Second)))
	}
	repos, err := registry.Removals(dir)
	require.NoError(t, err)
	require.Len(t, repos, registry.MaxRemoved)
	require.Equal(t, "b/0", repos[0])
	require.NotContains(t, repos, "a")
	require.NotContains(t, repos, "b/"+strconv.Itoa(registry.MaxRemoved))
	left, err := os.ReadDir(filepath.Join(dir, "removed"))
	require.NoError(t, err)
	require.Len(t, left, registry.MaxRemoved)
}
