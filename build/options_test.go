// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
)

func TestLabelsAnnotationsTypeAndNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nLABEL a=line b=line\nCOPY f bin/kubeadm\n", "f": "x"})
	var annotations []build.Annotation
	for _, text := range []string{"org.example/of=index", "manifest:org.example/of=rootfs", "index,manifest[linux/s390x]:none=of: these"} {
		a, err := build.ParseAnnotation(text)
		require.NoError(t, err)
		annotations = append(annotations, a)
	}
	var warned []string
	r, err := b.build(func(o *build.Options) {
		o.Warn = func(text string) { warned = append(warned, text) }
		o.Labels = map[string]string{"b": "flag", clusterimage.LabelClusterRuntimeVersion: "v1.30.1"}
		o.Annotations, o.Type = annotations, clusterimage.AppInstaller
		o.Tags = []string{"other.example/name:2", "test/cluster:v1"}
	})
	require.NoError(t, err)
	require.Contains(t, warned, "the annotation manifest[linux/s390x]:none is of no effect: only linux/"+runtime.GOARCH+" is built")
	img := b.read(r)
	require.Equal(t, "line", img.Rootfs[0].Config.Config.Labels["a"])
	require.Equal(t, "flag", img.Rootfs[0].Config.Config.Labels["b"])
	require.Contains(t, b.files(img, 0)["Metadata"].text, "v1.30.1", "a label of the command line is as good as a LABEL line")
	require.Equal(t, map[string]string{"org.example/of": "index", "none": "of: these"}, img.Index.Annotations)
	require.Equal(t, map[string]string{"org.example/of": "rootfs"}, img.Rootfs[0].Manifest.Annotations)
	require.Equal(t, clusterimage.AppInstaller, img.Rootfs[0].Extension.Type)
	require.Equal(t, []string{"docker.io/test/cluster:v1", "other.example/name:2"}, r.Names)
	for _, name := range r.Names {
		tagged, err := b.store.Resolve(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, r.Descriptor.Digest, tagged.Descriptor.Digest)
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch AS One\nCOPY f one\nFROM one AS two\nCOPY f two\nFROM no/such/image:v1\nCOPY f three\n", "f": "x",
	})
	img := b.mustBuild(func(o *build.Options) { o.Target = "two" })
	require.Equal(t, []string{"Metadata", "one", "two"}, names(b.files(img, 0)))
	img = b.mustBuild(func(o *build.Options) { o.Target = "0" })
	require.Equal(t, []string{"Metadata", "one"}, names(b.files(img, 0)))
	_, err := b.build(func(o *build.Options) { o.Target = "four" })
	require.EqualError(t, err, `Kubefile has no stage "four": it has one (line 1), two (line 3), 2 (line 5, without a name)`)
	var hint interface{ Hint() string }
	require.ErrorAs(t, err, &hint)
	require.Contains(t, hint.Hint(), "FROM … AS NAME")
}

func TestLite(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("a:1")
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": u.host + "/a:1\n"})
	require.Len(t, b.mustBuild(func(o *build.Options) { o.Tag = "test/base:v1" }).Images, 1)
	u.requests()
	b.write(map[string]string{"Kubefile": "FROM test/base:v1\nCOPY imageList manifests/\n"})
	img := b.mustBuild(func(o *build.Options) { o.Mode = build.Lite })
	require.Empty(t, img.Images)
	require.Contains(t, names(b.files(img, 0)), "manifests/imageList", "the list itself stays")
	require.Empty(t, u.requests())
}

func TestPull(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("os:1")
	b := newBench(t, map[string]string{"Kubefile": "FROM " + u.host + "/os:1\nCOPY f f\n", "f": "x"})
	_, err := b.build(func(o *build.Options) { o.Pull = build.Never })
	require.ErrorContains(t, err, "Kubefile:1: ")
	require.Empty(t, slicesWithout(u.requests(), "PUT", "POST", "PATCH", "/v2/", "HEAD"))
	first := b.mustBuild()
	u.push("os:1") // moved
	require.Equal(t, first.Descriptor.Digest, b.mustBuild().Descriptor.Digest)
	require.NotEqual(t, first.Descriptor.Digest, b.mustBuild(func(o *build.Options) { o.Pull = build.Always }).Descriptor.Digest)
}

// slicesWithout leaves out the requests that begin or end with one of words: those of a push.
func slicesWithout(requests []string, words ...string) []string {
	var out []string
next:
	for _, r := range requests {
		for _, w := range words {
			if strings.HasPrefix(r, w) || strings.HasSuffix(r, w) {
				continue next
			}
		}
		out = append(out, r)
	}
	return out
}

// A second machine that reads the first one's cache runs nothing again, and makes the same image.
func TestCache(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	dir := filepath.Join(t.TempDir(), "cache")
	for _, c := range []struct{ name, to, from string }{
		{"local", "type=local,mode=max,dest=" + dir, "type=local,src=" + dir},
		{"registry", "type=registry,mode=max,ref=" + u.host + "/cache:1", u.host + "/cache:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"Kubefile": "FROM scratch\nCOPY f f\nRUN cat /proc/sys/kernel/random/uuid > made\n", "f": "x"}
			one, two := newBench(t, files), newBench(t, files)
			to, err := build.ParseCache(c.to)
			require.NoError(t, err)
			from, err := build.ParseCache(c.from)
			require.NoError(t, err)
			want := one.mustBuild(func(o *build.Options) { o.CacheTo = []build.Cache{to} })
			got := two.mustBuild(func(o *build.Options) { o.CacheFrom = []build.Cache{from} })
			require.Equal(t, one.files(want, 0)["made"], two.files(got, 0)["made"])
			require.Equal(t, want.Descriptor.Digest, got.Descriptor.Digest)
		})
	}
}

func TestCache_Inline(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("a:1")
	files := map[string]string{
		"Kubefile": "FROM scratch\nCOPY imageList imageList\nRUN cat /proc/sys/kernel/random/uuid > made\n", "imageList": u.host + "/a:1\n",
	}
	one, two := newBench(t, files), newBench(t, files)
	name := u.host + "/built:1"
	img := one.mustBuild(func(o *build.Options) { o.Tag, o.CacheTo = name, []build.Cache{{Type: "inline"}} })
	_, err := one.client.Push(t.Context(), one.store, img.Descriptor, name)
	require.NoError(t, err)
	got := two.mustBuild(func(o *build.Options) {
		o.CacheFrom = []build.Cache{{Type: "registry", Attrs: map[string]string{"ref": name}}}
	})
	require.Equal(t, one.files(img, 0)["made"], two.files(got, 0)["made"])
}

func TestSecrets(t *testing.T) {
	needToolbox(t)
	t.Setenv("SEALER_TEST_TOKEN", "from-the-environment")
	b := newBench(t, map[string]string{
		"Kubefile": `FROM scratch
RUN --mount=type=secret,id=file --mount=type=secret,id=env,target=/token wc -c < /run/secrets/file > sizes && wc -c < /token >> sizes
`,
	})
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("from-a-file"), 0o600))
	img := b.mustBuild(func(o *build.Options) {
		o.Secrets = []build.Secret{{ID: "file", File: file}, {ID: "env", Env: "SEALER_TEST_TOKEN"}}
	})
	require.Equal(t, "11\n20\n", b.files(img, 0)["sizes"].text)
	_, err := b.build(func(o *build.Options) { o.Secrets = []build.Secret{{ID: "env", Env: "SEALER_TEST_NONE"}} })
	require.EqualError(t, err, `secret "env": the variable SEALER_TEST_NONE is not set`)
}

func TestOptions_Mistakes(t *testing.T) {
	t.Parallel()
	certs := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(certs, "cert.pem"), nil, 0o600))
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\n"})
	_, err := b.build(func(o *build.Options) {
		o.Tags = []string{"UPPER:1", "a@sha256:" + strings.Repeat("0", 64)}
		o.Mode, o.Type, o.Pull = "some", "installer", "sometimes"
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "amd64"}}
		o.CacheFrom = []build.Cache{{Type: "inline"}, {}, {Type: "s3"}, {Type: "local", Attrs: map[string]string{"dest": "x"}}}
		o.Builder, o.BuilderCerts = "tcp://localhost:1", certs
	})
	var options *build.OptionsError
	require.ErrorAs(t, err, &options)
	for _, want := range []string{
		"name of the image: ", `"a@sha256:`, `unknown build mode "some"`, `unknown type "installer"`, `unknown value "sometimes"`,
		"platform linux/amd64 is named twice", "type=inline is written only", "type= is missing", `unknown type "s3"`, "type=local needs src=",
		"has no ca.pem", "one of cert.pem and key.pem",
	} {
		require.ErrorContains(t, err, want)
	}
}
