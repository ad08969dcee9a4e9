//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/testregistry"
)

// registryBehindProxy is an empty registry, and a proxy before it that counts.
func registryBehindProxy(t *testing.T) (*testregistry.Registry, *testregistry.Proxy) {
	t.Helper()
	reg, err := testregistry.Start(t.Context(), testregistry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	proxy, err := testregistry.NewProxy(t.Context(), reg.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	return reg, proxy
}

func put(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	require.NoError(t, err)
	require.NoError(t, remote.Write(parsed, img))
}

// grown is an image with another layer.
func grown(t *testing.T, img v1.Image, size int64) v1.Image {
	t.Helper()
	layer, err := random.Layer(size, types.DockerLayer)
	require.NoError(t, err)
	img, err = mutate.AppendLayers(img, layer)
	require.NoError(t, err)
	return img
}

// imagesContext is a build context that packs images.
func imagesContext(t *testing.T, refs ...string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPY imageList ./\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte(strings.Join(refs, "\n")+"\n"), 0o600))
	return dir
}

// One of several images grows by 1 MiB: no more than that is fetched, written and pushed.
func TestShip_OneImageGrows(t *testing.T) {
	const (
		root  = "grow"
		extra = 1 << 20
		limit = extra + extra/10
	)
	_, proxy := registryBehindProxy(t)
	var refs []string
	var images []v1.Image
	for i := range 5 {
		ref := fmt.Sprintf("%s/grow/i%d:v1", proxy.Address, i)
		img, err := random.Image(2<<20, 2)
		require.NoError(t, err)
		put(t, ref, img)
		refs, images = append(refs, ref), append(images, img)
	}
	dir, image := imagesContext(t, refs...), proxy.Address+"/grow/cluster:v1"
	sealer(t, root, "build", "-t", image, dir)
	sealer(t, root, "push", image)

	put(t, refs[2], grown(t, images[2], extra))
	before := size(t, filepath.Join(shared.Dir, root, "store", "blobs"))
	proxy.Reset()
	digest := sealer(t, root, "build", "-t", image, dir)
	fetched, written := proxy.Sent(), size(t, filepath.Join(shared.Dir, root, "store", "blobs"))-before
	proxy.Reset()
	require.Equal(t, digest, sealer(t, root, "push", image))
	pushed := proxy.Received()
	t.Logf("fetched %d, written %d, pushed %d bytes for %d", fetched, written, pushed, extra)
	require.LessOrEqual(t, fetched, int64(limit))
	require.LessOrEqual(t, written, int64(limit))
	require.LessOrEqual(t, pushed, int64(limit))

	// Another repository of the registry gets it for nothing.
	proxy.Reset()
	sealer(t, root, "tag", image, proxy.Address+"/released/cluster:v1")
	sealer(t, root, "push", proxy.Address+"/released/cluster:v1")
	require.Less(t, proxy.Received(), int64(extra/10), "blobs are mounted")
	// And what comes down is no more, either.
	sealer(t, "grow-site", "pull", image)
	put(t, refs[1], grown(t, images[1], extra))
	sealer(t, root, "build", "-t", image, dir)
	sealer(t, root, "push", image)
	proxy.Reset()
	sealer(t, "grow-site", "pull", image)
	require.LessOrEqual(t, proxy.Sent(), int64(limit))
}

// A copy keeps the digest, lands no layer on this machine, and survives cuts on both sides.
func TestShip_Copy(t *testing.T) {
	const root = "copy"
	_, from := registryBehindProxy(t)
	_, to := registryBehindProxy(t)
	img, err := random.Image(4<<20, 3)
	require.NoError(t, err)
	put(t, from.Address+"/app:v1", img)
	image := from.Address + "/cluster:v1"
	want := sealer(t, "copy-build", "build", "-t", image, imagesContext(t, from.Address+"/app:v1"))
	sealer(t, "copy-build", "push", image)

	blobPath := regexp.MustCompile("/blobs/")
	from.Inject(testregistry.Fault{Method: http.MethodGet, Path: blobPath, Times: 3, Effect: testregistry.CutAfter(1 << 20)})
	to.Inject(testregistry.Fault{Method: http.MethodPut, Path: blobPath, Times: 2, Effect: testregistry.CutUploadAfter(2 << 20)})
	target := to.Address + "/site/cluster:v1"
	require.Equal(t, want, sealer(t, root, "copy", image, target))
	require.Less(t, size(t, filepath.Join(shared.Dir, root)), int64(1<<20))
	require.Equal(t, want, sealer(t, "copy-site", "pull", target))

	to.Reset()
	require.Equal(t, want, sealer(t, root, "copy", target, to.Address+"/released/cluster:v1"))
	require.Less(t, to.Sent()+to.Received(), int64(1<<20), "one registry takes the layers over")
	to.Reset()
	require.Equal(t, want, sealer(t, root, "copy", image, target))
	require.Zero(t, to.Count(http.MethodPost, "/blobs/"), "all of it is there")
}

// Pushes that are killed are repeated; what had arrived is not sent again, and the tag is right or not there.
func TestShip_PushKilled(t *testing.T) {
	const root = "push-killed"
	reg, proxy := registryBehindProxy(t)
	img, err := random.Image(1<<20, 24)
	require.NoError(t, err)
	put(t, reg.Address+"/app:v1", img)
	image := proxy.Address + "/cluster:v1"
	want := sealer(t, root, "build", "-t", image, imagesContext(t, reg.Address+"/app:v1"))
	for i := range 6 {
		cmd := shared.Command(t.Context(), root, "push", image)
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(100+60*i)*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			break
		}
	}
	require.Equal(t, want, sealer(t, root, "push", image))
	proxy.Reset()
	require.Equal(t, want, sealer(t, root, "push", image))
	require.Less(t, proxy.Received(), int64(64<<10))
	require.Equal(t, want, sealer(t, "push-killed-site", "pull", image))
}

// Part of an image is pulled, said to be part, and sent on as what it is.
func TestShip_Platforms(t *testing.T) {
	const root = "platforms"
	_, proxy := registryBehindProxy(t)
	dir := imagesContext(t)
	var parts []string
	for _, arch := range []string{"amd64", "arm64"} {
		part := proxy.Address + "/part:" + arch
		sealer(t, root, "build", "--platform", "linux/"+arch, "-t", part, dir)
		parts = append(parts, part)
	}
	image := proxy.Address + "/both:v1"
	want := sealer(t, root, append([]string{"manifest", "create", image}, parts...)...)
	require.Equal(t, want, sealer(t, root, "manifest", "push", image))
	require.Contains(t, sealer(t, "platforms-other", "manifest", "inspect", image), `"architecture": "arm64"`)

	const site = "platforms-site"
	require.Equal(t, want, sealer(t, site, "pull", image, "--platform", "linux/amd64"))
	_, stderr, code := runAny(t, site, "push", image, "--as", proxy.Address+"/again:v1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "linux/amd64 only, it also has linux/arm64")
	require.Contains(t, stderr, "--platform linux/amd64")
	some := sealer(t, site, "push", image, "--platform", "linux/amd64", "--as", proxy.Address+"/again:v1")
	require.Equal(t, digestOf(t, root, parts[0]), some, "the half is what it was made of")
	out, stderr, code := runAny(t, site, "save", image)
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, stderr, "--platform linux/amd64")

	sealer(t, root, "manifest", "annotate", image, "linux/arm64", "--annotation", "com.example.tested=yes")
	require.Contains(t, sealer(t, root, "manifest", "inspect", image), `"com.example.tested": "yes"`)
	require.Equal(t, digestOf(t, root, parts[0]), sealer(t, root, "manifest", "remove", image, "linux/arm64"))
	sealer(t, root, "manifest", "rm", image)
	_, _, code = runAny(t, root, "inspect", image)
	require.Equal(t, 1, code)
}

// Several ClusterImages become one; in what they disagree is listed.
func TestShip_Merge(t *testing.T) {
	const root = "merge"
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		return dir
	}
	hello, multi := "docker.io/sealer-test/hello:v1", "docker.io/sealer-test/multi:v1"
	one := write(map[string]string{"Kubefile": "FROM scratch\nCOPY . .\nENV A=1\nCMD echo one\n", "imageList": hello + "\n", "etc/one": "one", "etc/both": "x"})
	two := write(map[string]string{"Kubefile": "FROM scratch\nCOPY . .\nENV B=2\nCMD echo two\n", "imageList": multi + "\n", "etc/two": "two", "etc/both": "x"})
	other := write(map[string]string{"Kubefile": "FROM scratch\nCOPY . .\nENV A=3\nCMD echo three\n", "etc/both": "y"})
	for name, dir := range map[string]string{"one": one, "two": two, "other": other} {
		sealer(t, root, "build", "-t", "r.example/"+name+":v1", dir)
	}
	digest := sealer(t, root, "merge", "r.example/one:v1", "r.example/two:v1", "-t", "r.example/all:v1")
	require.Equal(t, digest, digestOf(t, root, "r.example/all:v1"))
	text := sealer(t, root, "inspect", "r.example/all:v1", "-o", "json")
	for _, want := range []string{hello, multi, "echo one", "echo two", "A=1", "B=2"} {
		require.Contains(t, text, want)
	}
	var value struct{ Images []json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(text), &value))
	require.Len(t, value.Images, 2)

	docker := filepath.Join(t.TempDir(), "all.tar")
	sealer(t, root, "save", "r.example/all:v1", "--format", "docker-archive", "-o", docker)
	files := savedFiles(t, docker)
	require.Equal(t, "one", files["etc/one"])
	require.Equal(t, "two", files["etc/two"])
	require.Contains(t, files["imageList"], hello)
	require.Contains(t, files["imageList"], multi)

	_, stderr, code := runAny(t, root, "merge", "r.example/one:v1", "r.example/other:v1", "-t", "r.example/wrong:v1")
	require.Equal(t, 1, code)
	for _, want := range []string{"file etc/both", "env A", "r.example/one:v1", "r.example/other:v1", "--on-conflict last"} {
		require.Contains(t, stderr, want)
	}
	sealer(t, root, "merge", "r.example/one:v1", "r.example/other:v1", "-t", "r.example/settled:v1", "--on-conflict", "last")
	require.Contains(t, sealer(t, root, "inspect", "r.example/settled:v1", "-o", "json"), "A=3")
}
