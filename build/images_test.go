// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
)

// upstream is a registry that counts requests.
type upstream struct {
	t    *testing.T
	host string
	mu   sync.Mutex
	log  []string

	pushed int // makes what is pushed under a name again another image
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{t: t}
	inner := ggcr.New(ggcr.Logger(log.New(testWriter{}, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.log = append(u.log, r.Method+" "+r.URL.Path)
		u.mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	u.host = strings.TrimPrefix(srv.URL, "http://")
	return u
}

type testWriter struct{}

func (testWriter) Write(p []byte) (int, error) { return len(p), nil }

// push puts an image of two platforms under a name.
func (u *upstream) push(repo string) v1.ImageIndex {
	u.t.Helper()
	u.pushed++
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		shared, err := tarball.LayerFromOpener(opener(u.t, "shared"))
		require.NoError(u.t, err)
		own, err := tarball.LayerFromOpener(opener(u.t, fmt.Sprint(repo, arch, u.pushed)))
		require.NoError(u.t, err)
		img, err := mutate.AppendLayers(empty.Image, shared, own)
		require.NoError(u.t, err)
		cfg, err := img.ConfigFile()
		require.NoError(u.t, err)
		cfg.OS, cfg.Architecture = "linux", arch
		img, err = mutate.ConfigFile(mutate.MediaType(img, types.OCIManifestSchema1), cfg)
		require.NoError(u.t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref, err := name.NewTag(u.host + "/" + repo)
	require.NoError(u.t, err)
	require.NoError(u.t, remote.WriteIndex(ref, index))
	return index
}

func opener(t *testing.T, name string) tarball.Opener {
	t.Helper()
	data := archive(t, name)
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
}

// requests returns and forgets what was asked since the last call.
func (u *upstream) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.log
	u.log = nil
	return out
}

func imageNames(img *clusterimage.Image) []string {
	var out []string
	for _, pi := range img.Images {
		out = append(out, pi.Name+" "+pi.Platform)
	}
	return out
}

func TestImages(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	for _, repo := range []string{"a:1", "b:1", "c:1", "d:1"} {
		u.push(repo)
	}
	manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - image: " + u.host + "/b:1\n"
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList manifests/\nCOPY pod.yaml manifests/\n",
		"imageList": u.host + "/a:1\n" + u.host + "/d:1 platform=linux/arm64\n", "pod.yaml": manifest, "more": u.host + "/c:1\n",
	})
	u.requests()
	img := b.mustBuild(func(o *build.Options) { o.ImageLists = []string{b.context + "/more"} })
	want := []string{u.host + "/a:1 linux/amd64", u.host + "/b:1 linux/amd64", u.host + "/c:1 linux/amd64", u.host + "/d:1 linux/arm64"}
	if runtime.GOARCH == "arm64" {
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "amd64", "arm64")
		}
	}
	require.Equal(t, want, imageNames(img))
	require.Equal(t, []string{"manifests/imageList:1"}, img.Images[0].Origins)
	all, err := img.Descriptors(t.Context(), b.store.Content(), nil)
	require.NoError(t, err)
	for _, d := range all {
		require.FileExists(t, b.store.BlobPath(d.Digest))
	}
	seen := map[string]bool{}
	for _, r := range u.requests() {
		require.False(t, seen[r] && strings.Contains(r, "/blobs/"), "%s was asked twice", r)
		seen[r] = true
	}

	// Nothing changed: one question for each tag, no content.
	same := b.mustBuild(func(o *build.Options) { o.ImageLists = []string{b.context + "/more"} })
	require.Equal(t, img.Descriptor.Digest, same.Descriptor.Digest)
	asked := slices.DeleteFunc(u.requests(), func(r string) bool { return r == "GET /v2/" })
	slices.Sort(asked)
	require.Equal(t, []string{"HEAD /v2/a/manifests/1", "HEAD /v2/b/manifests/1", "HEAD /v2/c/manifests/1", "HEAD /v2/d/manifests/1"}, asked)
}

func TestImages_MissingNamesItsOrigin(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("a:1")
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": u.host + "/a:1\n" + u.host + "/nothere:1\n"})
	_, err := b.build()
	require.ErrorContains(t, err, "imageList:2: "+u.host+"/nothere:1: ")
	tags, err := b.store.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, tags)
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("a:1")
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch\nCOPY bin-$ARCH bin\nCOPY imageList .\nRUN echo $TARGETARCH > made\n", "bin-amd64/x": "amd", "bin-arm64/x": "arm", "imageList": u.host + "/a:1\n",
	})
	img := b.mustBuild(func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}}
	})
	require.Len(t, img.Rootfs, 2)
	for i, want := range []string{"amd64", "arm64"} {
		require.Equal(t, want, img.Rootfs[i].Platform.Architecture)
		require.Equal(t, want, img.Rootfs[i].Config.Architecture)
		files := b.files(img, i)
		require.Equal(t, want[:3], files["bin/x"].text)
		require.Equal(t, want+"\n", files["made"].text)
		require.Contains(t, files["Metadata"].text, `"arch":"`+want+`"`)
	}
	require.Equal(t, []string{u.host + "/a:1 linux/amd64", u.host + "/a:1 linux/arm64"}, imageNames(img))
}

func TestFromClusterImage(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("a:1")
	u.push("b:1")
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM scratch\nCOPY f bin/kubeadm\nCOPY imageList manifests/\nENV A=1 B=1\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3\nCMD first\n",
		"imageList": u.host + "/a:1\n" + u.host + "/b:1\n", "f": "x",
	})
	base := b.mustBuild(func(o *build.Options) { o.Tag = "test/base:v1" })
	u.push("b:1") // moved since: the base keeps what it was built with, the child asks for it again
	b.write(map[string]string{
		"Kubefile":  "FROM test/base:v1\nCOPY app charts/\nCOPY imageList manifests/\nENV B=2\nCMD second\n",
		"imageList": u.host + "/b:1\n", "app": "x",
	})
	u.requests()
	img := b.mustBuild()
	for _, r := range u.requests() {
		require.NotContains(t, r, "/v2/a/", "the base has it")
	}
	r := img.Rootfs[0]
	require.Equal(t, []string{"first", "second"}, r.Extension.Launch.Cmds)
	require.Equal(t, map[string]string{"A": "1", "B": "2"}, r.Extension.Env)
	require.Equal(t, &clusterimage.Base{Name: "test/base:v1", Digest: base.Descriptor.Digest.String()}, r.Extension.Base)
	require.Equal(t, clusterimage.KubeInstaller, r.Extension.Type)
	require.Equal(t, "v1.36.3", r.Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion])
	require.Equal(t, base.Rootfs[0].Manifest.Layers, r.Manifest.Layers[:len(base.Rootfs[0].Manifest.Layers)], "the base's layers as they are")
	require.Equal(t, []string{"Metadata", "bin/kubeadm", "charts/app", "manifests/imageList"}, names(b.files(img, 0)))
	require.Len(t, img.Images, 2)
	require.Equal(t, base.Images[0], img.Images[0])
	require.NotEqual(t, base.Images[1].Manifest.Digest, img.Images[1].Manifest.Digest, "the later one wins")
	snapshots, err := os.ReadDir(b.state + "/worker-overlayfs/snapshots/snapshots")
	require.NoError(t, err)
	before := len(snapshots)

	// RUN and COPY whose result depends on what is below see the base's files.
	b.write(map[string]string{"Kubefile": "FROM test/base:v1\nRUN test -f bin/kubeadm && echo yes > seen\nCOPY app bin\n"})
	again := b.mustBuild()
	require.Equal(t, []string{"Metadata", "bin/app", "bin/kubeadm", "manifests/imageList", "seen"}, names(b.files(again, 0)))
	require.Equal(t, imageNames(base), imageNames(again))
	require.Equal(t, base.Images[1], again.Images[1], "an inherited list is not looked up again")
	snapshots, err = os.ReadDir(b.state + "/worker-overlayfs/snapshots/snapshots")
	require.NoError(t, err)
	require.Greater(t, len(snapshots), before)
}

func TestFromOtherImages(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("os:1")
	b := newBench(t, map[string]string{
		"Kubefile": "FROM " + u.host + "/os:1\nCOPY f f\nCOPY --from=" + u.host + "/os:1 / copied/\nRUN ls copied > list\n", "f": "x",
	})
	img := b.mustBuild()
	require.Contains(t, names(b.files(img, 0)), "f")
	require.NotEmpty(t, b.files(img, 0)["list"].text)
	u.requests()
	same := b.mustBuild()
	require.Equal(t, img.Descriptor.Digest, same.Descriptor.Digest)
	require.Empty(t, u.requests(), "what the store has is not asked for")
}

func TestToolboxImage(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nRUN cp -r /bin /lib* . && echo own > mark\n"})
	b.mustBuild(func(o *build.Options) { o.Tag = "test/tools:v1" })
	b.write(map[string]string{"Kubefile": "# toolbox=test/tools:v1\nFROM scratch\nRUN [\"/bin/busybox\", \"cp\", \"/mark\", \"found\"]\n"})
	img := b.mustBuild()
	require.Equal(t, "own\n", b.files(img, 0)["found"].text)
	_, err := b.build(func(o *build.Options) { o.Toolbox = "127.0.0.1:1/no/such:v1" })
	require.ErrorContains(t, err, "toolbox: ")
}
