// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

func locking(o *build.Options) { o.Lock = true }
func locked(o *build.Options)  { o.Locked = true }

// locks is a context with a base, images of a registry and an archive.
func locks(t *testing.T) (*bench, *upstream) {
	t.Helper()
	u := newUpstream(t)
	for _, repo := range []string{"base:1", "a:1", "b:1"} {
		u.push(repo)
	}
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM " + u.host + "/base:1\nCOPY . .\n",
		"imageList": u.host + "/a:1\n" + u.host + "/b:1 platform=linux/arm64\ndocker-archive:web.tar\n",
	})
	save(t, b.context+"/web.tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, "web")})
	return b, u
}

func (b *bench) lock() string {
	b.t.Helper()
	data, err := os.ReadFile(b.context + "/imageList.lock")
	require.NoError(b.t, err)
	return string(data)
}

// A locked build gives the same index on every store, whatever the tags stand for by then, and asks for none of them.
func TestLocked(t *testing.T) {
	t.Parallel()
	b, u := locks(t)
	img := b.mustBuild(locking)
	lock := b.lock()
	require.Contains(t, lock, "    source: docker-archive:web.tar\n")
	require.Contains(t, lock, "bases:\n  - name: "+u.host+"/base:1\n")
	require.NotContains(t, names(b.files(img, 0)), "imageList.lock")

	for _, repo := range []string{"base:1", "a:1", "b:1"} {
		u.push(repo) // all tags move
	}
	u.requests()
	again := b.mustBuild(locked)
	require.Equal(t, img.Descriptor.Digest, again.Descriptor.Digest)
	require.Empty(t, u.requests(), "everything is in the store")

	var err error
	b.store, err = store.Open(t.TempDir())
	require.NoError(t, err)
	other := b.mustBuild(locked)
	require.Equal(t, img.Descriptor.Digest, other.Descriptor.Digest)
	for _, r := range u.requests() {
		require.NotContains(t, r, "HEAD", r)
		require.NotContains(t, r, "/manifests/1", r)
	}
	require.Equal(t, lock, b.lock(), "obeying it changes nothing")

	moved := b.mustBuild(locking)
	require.NotEqual(t, img.Descriptor.Digest, moved.Descriptor.Digest)
	require.NotEqual(t, lock, b.lock())
}

func TestLocked_NotInTheLock(t *testing.T) {
	t.Parallel()
	b, u := locks(t)
	_, err := b.build(locked)
	var none *build.NoLockError
	require.ErrorAs(t, err, &none)
	b.mustBuild(locking)
	u.push("c:1")
	b.write(map[string]string{"imageList": u.host + "/a:1\n" + u.host + "/c:1\ndocker-archive:web.tar\n"})
	_, err = b.build(locked)
	require.EqualError(t, err, u.host+"/c:1 for linux/"+runtime.GOARCH+" (imageList:2) is not in "+b.context+"/imageList.lock")

	save(t, b.context+"/web.tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, "other")})
	b.write(map[string]string{"imageList": u.host + "/a:1\ndocker-archive:web.tar\n"})
	_, err = b.build(locked)
	var other *build.LockedElseError
	require.ErrorAs(t, err, &other)
	require.Equal(t, "docker-archive:web.tar", other.Source)

	b.write(map[string]string{"Kubefile": "FROM " + u.host + "/a:1\nCOPY imageList .\n", "imageList": ""})
	_, err = b.build(locked)
	require.ErrorContains(t, err, "Kubefile:1: "+u.host+"/a:1 for linux/"+runtime.GOARCH+" is not in ")
	_, err = b.build(locked, locking)
	var wrong *build.OptionsError
	require.ErrorAs(t, err, &wrong)
}

// A lock that is written without a build is the one that a build writes; no layer is fetched for it.
func TestResolveLock(t *testing.T) {
	t.Parallel()
	b, u := locks(t)
	both := func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	}
	b.write(map[string]string{"imageList": u.host + "/a:1\n"})
	o := b.options()
	both(&o)
	lock, err := build.ResolveLock(t.Context(), o)
	require.NoError(t, err)
	file, err := build.WriteLock(o, lock)
	require.NoError(t, err)
	require.Equal(t, b.context+"/imageList.lock", file)
	written := b.lock()
	require.NoError(t, os.Remove(file))
	tags, err := b.store.List(t.Context())
	require.NoError(t, err)
	require.Len(t, tags, 1, "the base alone")
	fetched := slices.DeleteFunc(u.requests(), func(r string) bool { return !strings.HasPrefix(r, "GET /v2/a/blobs/") })
	require.Len(t, fetched, 2, "the configs of two platforms: %v", fetched)

	b.mustBuild(locking, both)
	require.Equal(t, b.lock(), written)
}

func TestCheckLock(t *testing.T) {
	t.Parallel()
	b, u := locks(t)
	b.mustBuild(locking)
	check := func() []string {
		t.Helper()
		changes, err := build.CheckLock(t.Context(), b.options())
		require.NoError(t, err)
		out := []string{}
		for _, c := range changes {
			out = append(out, c.Kind+" "+strings.TrimPrefix(c.Name, u.host)+" "+strings.Join(c.Origins, ","))
		}
		return out
	}
	before := b.lock()
	require.Empty(t, check())
	b.write(map[string]string{"imageList": "# a line more\n" + u.host + "/a:1\n" + u.host + "/b:1 platform=linux/arm64\ndocker-archive:web.tar\n"})
	require.Empty(t, check(), "lines may move")

	u.push("a:1")
	u.push("base:1")
	u.push("c:1")
	ref, err := name.ParseReference(u.host + "/b:1")
	require.NoError(t, err)
	require.NoError(t, remote.Delete(ref))
	b.write(map[string]string{"imageList": u.host + "/a:1\n" + u.host + "/b:1 platform=linux/arm64\n" + u.host + "/c:1\n"})
	require.Equal(t, []string{"moved /base:1 ", "moved /a:1 imageList:1", "gone /b:1 imageList:2", "added /c:1 imageList:3", "removed registry.example.com/web:v1 imageList:3"}, check())
	require.Equal(t, before, b.lock())

	b.write(map[string]string{"imageList.lock": "version: 2\n"})
	_, err = build.CheckLock(t.Context(), b.options())
	var version *imagelist.LockVersionError
	require.ErrorAs(t, err, &version)
}

// A registry that cannot be asked says nothing of what it has: neither that an image is gone nor that a base is the same.
func TestCheckLock_NobodyAnswers(t *testing.T) {
	t.Parallel()
	var said []string
	check := func(t *testing.T, files map[string]string, status int) error {
		t.Helper()
		files = maps.Clone(files)
		u := newUpstream(t)
		u.push("base:1")
		u.push("a:1")
		for name, text := range files {
			files[name] = strings.ReplaceAll(text, "HOST", u.host)
		}
		b := newBench(t, files)
		b.mustBuild(locking)
		answers := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
		mirror := httptest.NewServer(http.HandlerFunc(answers))
		t.Cleanup(mirror.Close)
		if status == 0 {
			mirror.Close()
		}
		o := b.options()
		var err error
		o.Registry, err = registry.NewClient(registry.Options{AuthDir: t.TempDir(), Mirrors: map[string]string{u.host: mirror.URL}, Retries: -1})
		require.NoError(t, err)
		changes, err := build.CheckLock(t.Context(), o)
		require.Empty(t, changes)
		said = b.warned
		return err
	}
	image := map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": "HOST/a:1\n"}
	base := map[string]string{"Kubefile": "FROM HOST/base:1\n"}
	candidate := map[string]string{"Kubefile": "FROM scratch\nCOPY pod.yaml manifests/\n", "pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  containers:
  - name: x
    image: HOST/a:1
    env:
    - {name: RELATED_IMAGE_A, value: "HOST/base:1"}
`}
	require.ErrorContains(t, check(t, image, 0), "imageList:1: ")
	require.ErrorContains(t, check(t, base, 0), "Kubefile:1: ")
	require.ErrorContains(t, check(t, candidate, 0), "manifests/pod.yaml:9: ", "it was an image when the lock was written")
	require.ErrorContains(t, check(t, image, http.StatusForbidden), "imageList:1: ")
	require.NoError(t, check(t, base, http.StatusForbidden), "many registries answer so for what only this machine has")
	require.Len(t, said, 1)
	require.Contains(t, said[0], "/base:1 (Kubefile:1) is taken for unchanged; ")
}

// What only reads like an image, and was one when the lock was written, is gone when its registry no longer has it.
func TestCheckLock_CandidateGone(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("a:1")
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY pod.yaml manifests/\n", "pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: x}
spec: {containers: [{name: x, image: auto, env: [{name: RELATED_IMAGE_A, value: "` + u.host + `/a:1"}]}]}
`})
	b.mustBuild(locking)
	ref, err := name.ParseReference(u.host + "/a:1")
	require.NoError(t, err)
	require.NoError(t, remote.Delete(ref))
	changes, err := build.CheckLock(t.Context(), b.options())
	require.NoError(t, err)
	require.Len(t, changes, 1)
	require.Equal(t, "gone "+u.host+"/a:1", changes[0].Kind+" "+changes[0].Name)
	require.Contains(t, changes[0].Reason, "MANIFEST_UNKNOWN")
}

func TestIgnoredImages(t *testing.T) {
	t.Parallel()
	b, u := locks(t)
	b.write(map[string]string{"ignored": "**/b\nregistry.example.com/*\nnothing/*\n"})
	img := b.mustBuild(func(o *build.Options) { o.IgnoredLists = []string{b.context + "/ignored"} })
	require.Equal(t, []string{u.host + "/a:1 linux/" + runtime.GOARCH}, imageNames(img))
	require.Equal(t, []string{
		u.host + "/b:1 (imageList:2) is not packed: " + b.context + "/ignored:1 has the pattern **/b",
		"registry.example.com/web:v1 (imageList:3) is not packed: " + b.context + "/ignored:2 has the pattern registry.example.com/*",
		b.context + "/ignored:3: no image fits the pattern nothing/*",
	}, b.warned)
}

// What only reads like an image is packed where it is one, and reported where not.
func TestCandidates(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("real:1")
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY pod.yaml manifests/\n", "pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  containers:
  - name: x
    image: ` + u.host + `/real:1
    env:
    - {name: RELATED_IMAGE_A, value: "` + u.host + `/real:1"}
    - {name: RELATED_IMAGE_B, value: "` + u.host + `/none:1"}
`})
	img := b.mustBuild(locking)
	require.Equal(t, []string{u.host + "/real:1 linux/" + runtime.GOARCH}, imageNames(img))
	require.Len(t, b.warned, 1)
	require.Contains(t, b.warned[0], u.host+"/none:1 (manifests/pod.yaml:")
	require.Contains(t, b.warned[0], "reads like an image and is not packed: ")
	require.NotContains(t, b.warned[0], "could not be found out")
	b.warned = nil
	require.Equal(t, img.Descriptor.Digest, b.mustBuild(locked).Descriptor.Digest)
	require.Len(t, b.warned, 1)
}

// A registry that does not answer ends no build for what only reads like an image, but it is said that nobody was asked.
func TestCandidates_NobodyAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY pod.yaml manifests/\n", "pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  containers:
  - name: x
    image: auto
    env:
    - {name: RELATED_IMAGE_A, value: "127.0.0.1:1/shop:1"}
`})
	require.Empty(t, imageNames(b.mustBuild()))
	all := strings.Join(b.warned, "\n")
	require.Contains(t, all, "127.0.0.1:1/shop:1 (manifests/pod.yaml:9) reads like an image and is not packed; whether it exists could not be found out: ")
	require.Contains(t, all, "connection refused")
}

// What is said of the rootfs of one platform is said once, though it is true of all.
func TestWarnings_OnceForAllPlatforms(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY pod.yaml manifests/\n", "pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: x}
spec: {containers: [{name: x, image: auto}]}
`})
	both := func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	}
	b.mustBuild(both)
	require.Len(t, b.warned, 1)
	b.warned = nil
	o := b.options()
	both(&o)
	_, err := build.ResolveLock(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, b.warned, 1, "it looks into one platform after the other")
}
