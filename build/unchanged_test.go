// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/store"
)

// unchanged builds as far as that goes without BuildKit.
func (b *bench) unchanged(change ...func(*build.Options)) (build.Result, bool) {
	b.t.Helper()
	o := b.options()
	for _, f := range change {
		f(&o)
	}
	result, done, err := build.RunUnchanged(b.t.Context(), o)
	require.NoError(b.t, err)
	return result, done
}

// What BuildKit made once is taken from the store, with the same digest, under another name too; images are asked for.
func TestRunUnchanged(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("base:1")
	u.push("a:1")
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM " + u.host + "/base:1\nCOPY . .\nRUN echo made > made\nAPP web local://web\nCMD echo\n",
		"imageList": u.host + "/a:1\n", "web/web.yaml": "kind: none\n",
	})
	_, done := b.unchanged()
	require.False(t, done, "nothing was built")
	sbom := func(o *build.Options) { o.SBOM = true }
	first, err := b.build(sbom)
	require.NoError(t, err)
	u.requests()
	again, done := b.unchanged(sbom, func(o *build.Options) { o.Tags = []string{"test/other:v1"} })
	require.True(t, done)
	require.Equal(t, first.Descriptor, again.Descriptor)
	require.Equal(t, []string{"HEAD /v2/a/manifests/1"}, u.requests())
	other, err := b.store.Resolve(t.Context(), "test/other:v1")
	require.NoError(t, err)
	require.Equal(t, first.Descriptor, other.Descriptor)

	u.push("a:1")
	moved, done := b.unchanged()
	require.True(t, done, "the rootfs is the same")
	whole, err := b.build()
	require.NoError(t, err)
	require.Equal(t, whole.Descriptor, moved.Descriptor)
	require.NotEqual(t, first.Descriptor, moved.Descriptor)
	require.Empty(t, b.warned)
}

// What a lock would hold is known without BuildKit, too.
func TestResolveLockUnchanged(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("base:1")
	u.push("a:1")
	b := newBench(t, map[string]string{
		"Kubefile": "FROM " + u.host + "/base:1\nCOPY . .\n", "imageList": u.host + "/a:1\n", ".sealerignore": "imageList.lock\n",
	})
	_, done, err := build.ResolveLockUnchanged(t.Context(), b.options())
	require.NoError(t, err)
	require.False(t, done)
	b.mustBuild(locking)
	want, err := build.ResolveLock(t.Context(), b.options())
	require.NoError(t, err)
	u.requests()
	lock, done, err := build.ResolveLockUnchanged(t.Context(), b.options())
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, want, lock)
	require.Equal(t, []string{"HEAD /v2/a/manifests/1"}, u.requests())
	changes, done, err := build.CheckLockUnchanged(t.Context(), b.options())
	require.NoError(t, err)
	require.True(t, done)
	require.Empty(t, changes)
	u.push("a:1")
	changes, done, err = build.CheckLockUnchanged(t.Context(), b.options())
	require.NoError(t, err)
	require.True(t, done)
	require.Len(t, changes, 1)
	require.Equal(t, "moved", changes[0].Kind)
	b.write(map[string]string{"imageList": "# longer\n" + u.host + "/a:1\n"})
	_, done, err = build.CheckLockUnchanged(t.Context(), b.options())
	require.NoError(t, err)
	require.False(t, done)
}

// Everything that goes into a rootfs makes it another one.
func TestRunUnchanged_Changed(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch\nARG A=1\nARG B=1\nCOPY . .\nLABEL a=$A b=$B\n", "f": "x", "run.sh": "exit\n", "ignored/z": "z", ".sealerignore": "ignored\n",
	})
	require.NoError(t, os.Symlink("f", filepath.Join(b.context, "link")))
	b.mustBuild()
	for _, same := range []func(){
		func() { b.write(map[string]string{"ignored/z": "another"}) },
		func() { b.write(map[string]string{"ignored/y": "new"}) },
	} {
		same()
		_, done := b.unchanged()
		require.True(t, done)
	}
	file := func(name string) string { return filepath.Join(b.context, name) }
	for _, c := range []struct {
		what   string
		change func() error
	}{
		{"content", func() error { return os.WriteFile(file("f"), []byte("longer"), 0o644) }},
		{"time", func() error { return os.Chtimes(file("f"), time.Time{}, time.Unix(1, 0)) }},
		{"mode", func() error { return os.Chmod(file("run.sh"), 0o755) }},
		{"a new file", func() error { return os.WriteFile(file("new"), nil, 0o644) }},
		{"a new name", func() error { return os.Rename(file("new"), file("newer")) }},
		{"a link less", func() error { return os.Remove(file("link")) }},
		{"ignore file", func() error { return os.WriteFile(file(".sealerignore"), []byte("f\n"), 0o644) }},
		{"Kubefile", func() error {
			return os.WriteFile(file("Kubefile"), []byte("FROM scratch\nARG A\nARG B\nCOPY . .\n"), 0o644)
		}},
	} {
		require.NoError(t, c.change(), c.what)
		_, done := b.unchanged()
		require.False(t, done, c.what)
		built := b.mustBuild()
		again, done := b.unchanged()
		require.True(t, done, c.what)
		require.Equal(t, built.Descriptor, again.Descriptor)
	}
	epoch := time.Unix(1_000_000, 0)
	for what, change := range map[string]func(*build.Options){
		"build argument": func(o *build.Options) { o.BuildArgs = map[string]string{"A": "2"} },
		"label":          func(o *build.Options) { o.Labels = map[string]string{"c": "3"} },
		"annotation":     func(o *build.Options) { o.Annotations = []build.Annotation{{Key: "a", Value: "b", Manifest: true}} },
		"time":           func(o *build.Options) { o.Epoch = &epoch },
		"type":           func(o *build.Options) { o.Type = "app-installer" },
		"compression":    func(o *build.Options) { o.Compression = build.Gzip },
		"version":        func(o *build.Options) { o.Version = "other" },
		"platforms": func(o *build.Options) {
			o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
		},
		"no cache": func(o *build.Options) { o.NoCache = true },
		"pull":     func(o *build.Options) { o.Pull = build.Always },
	} {
		_, done := b.unchanged(change)
		require.False(t, done, what)
	}
	_, done := b.unchanged()
	require.True(t, done)
	require.NoError(t, build.Forget(b.state))
	_, done = b.unchanged()
	require.False(t, done, "it is forgotten")
	require.Empty(t, b.warned)
}

// The base is another one, or the store has lost what was made.
func TestRunUnchanged_Base(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "1"})
	base := func(o *build.Options) { o.Tag = "test/base:v1" }
	b.mustBuild(base)
	b.write(map[string]string{"over/Kubefile": "FROM test/base:v1\nCOPY g .\n", "over/g": "g"})
	over := func(o *build.Options) { o.ContextDir, o.Tag = filepath.Join(b.context, "over"), "test/over:v1" }
	img := b.mustBuild(over)
	_, done := b.unchanged(over)
	require.True(t, done)
	b.write(map[string]string{"f": "22"})
	b.mustBuild(base)
	_, done = b.unchanged(over)
	require.False(t, done, "its base has moved")
	require.NotEqual(t, img.Descriptor, b.mustBuild(over).Descriptor)
	again, done := b.unchanged(over)
	require.True(t, done)
	layers := b.read(again).Rootfs[0].Manifest.Layers
	require.NoError(t, os.Remove(b.store.BlobPath(layers[len(layers)-1].Digest)))
	_, done = b.unchanged(over)
	require.False(t, done, "a layer is gone")
}

// What others answer, what is secret and what was warned about is not remembered.
func TestRunUnchanged_Never(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "kind: none\n") }))
	t.Cleanup(site.Close)
	for name, kubefile := range map[string]string{
		"add":     "FROM scratch\nADD " + site.URL + "/f.yaml etc/\n",
		"app":     "FROM scratch\nAPP web " + site.URL + "/f.yaml\n",
		"warning": "FROM scratch\nCOPY f .\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{"Kubefile": kubefile, "f": "x"})
			change := func(*build.Options) {}
			if name == "warning" {
				change = func(o *build.Options) { o.BuildArgs = map[string]string{"UNUSED": "1"} }
			}
			b.mustBuild(change)
			_, done := b.unchanged(change)
			require.False(t, done)
		})
	}
}

// Memories that nobody uses any more do not gather, and a broken one is none.
func TestRunUnchanged_Memories(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	b.mustBuild()
	dir := filepath.Join(b.state, "rootfs")
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, found, 1)
	path := filepath.Join(dir, found[0].Name())
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, broken := range []string{"", "{}", "null", `{"made":"x","rootfs":[{}]}`, string(good[:len(good)/2])} {
		require.NoError(t, os.WriteFile(path, []byte(broken), 0o600))
		_, done := b.unchanged()
		require.False(t, done, broken)
	}
	old := time.Now().Add(-time.Hour)
	for i := range 100 {
		other := filepath.Join(dir, fmt.Sprint(i))
		require.NoError(t, os.WriteFile(other, nil, 0o600))
		require.NoError(t, os.Chtimes(other, old, old))
	}
	b.mustBuild()
	found, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, found, 64)
	_, done := b.unchanged()
	require.True(t, done)
	_, err = b.store.Prune(t.Context(), store.PruneOptions{})
	require.NoError(t, err)
	_, done = b.unchanged()
	require.True(t, done, "what has a name stays")
}
