// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/build/toolbox"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist/chart/helm"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

func TestMain(m *testing.M) {
	engine.Reexec()
	os.Exit(m.Run())
}

// bench is a folder with a context, a store and a builder's state.
type bench struct {
	t       *testing.T
	context string
	store   *store.Store
	state   string
	client  *registry.Client
	warned  []string
	mu      sync.Mutex
}

func newBench(t *testing.T, files map[string]string) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a build mounts file systems: needs root")
	}
	dir := t.TempDir()
	b := &bench{t: t, context: filepath.Join(dir, "context"), state: filepath.Join(dir, "state")}
	b.write(files)
	var err error
	b.store, err = store.Open(filepath.Join(dir, "store"))
	require.NoError(t, err)
	b.client, err = registry.NewClient(registry.Options{AuthDir: dir, Retries: -1})
	require.NoError(t, err)
	return b
}

func (b *bench) write(files map[string]string) {
	b.t.Helper()
	for name, text := range files {
		path := filepath.Join(b.context, name)
		require.NoError(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(b.t, os.WriteFile(path, []byte(text), 0o644))
	}
}

func (b *bench) options() build.Options {
	return build.Options{
		ContextDir: b.context, Tag: "test/cluster:v1", Store: b.store, Registry: b.client, StateDir: b.state, Version: "test", Charts: helm.Renderer{},
		RegistryOptions: registry.Options{AuthDir: b.state},
		Warn: func(line string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.warned = append(b.warned, line)
		},
	}
}

func (b *bench) build(change ...func(*build.Options)) (build.Result, error) {
	b.t.Helper()
	o := b.options()
	for _, f := range change {
		f(&o)
	}
	return build.Run(b.t.Context(), o)
}

func (b *bench) mustBuild(change ...func(*build.Options)) *clusterimage.Image {
	b.t.Helper()
	r, err := b.build(change...)
	require.NoError(b.t, err)
	return b.read(r)
}

func (b *bench) read(r build.Result) *clusterimage.Image {
	b.t.Helper()
	img, err := clusterimage.Read(b.t.Context(), b.store.Content(), r.Descriptor)
	require.NoError(b.t, err)
	return img
}

// file is one entry of a rootfs.
type file struct {
	text     string
	mode     fs.FileMode
	uid, gid int
	time     time.Time
}

// files unpacks the layers of a platform, by path.
func (b *bench) files(img *clusterimage.Image, i int) map[string]file {
	b.t.Helper()
	out := map[string]file{}
	for _, l := range img.Rootfs[i].Manifest.Layers {
		f, err := os.Open(b.store.BlobPath(l.Digest))
		require.NoError(b.t, err)
		var r io.Reader = f
		if strings.HasSuffix(l.MediaType, "+zstd") {
			z, err := zstd.NewReader(f)
			require.NoError(b.t, err)
			defer z.Close()
			r = z
		} else if strings.HasSuffix(l.MediaType, "gzip") {
			r, err = gzip.NewReader(f)
			require.NoError(b.t, err)
		}
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(b.t, err)
			data, err := io.ReadAll(tr)
			require.NoError(b.t, err)
			out[strings.TrimSuffix(h.Name, "/")] = file{text: string(data), mode: h.FileInfo().Mode(), uid: h.Uid, gid: h.Gid, time: h.ModTime}
		}
		require.NoError(b.t, f.Close())
	}
	return out
}

func names(files map[string]file) []string {
	var out []string
	for name, f := range files {
		if !f.mode.IsDir() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func needToolbox(t *testing.T) {
	t.Helper()
	if _, _, err := toolbox.Unpack(t.TempDir(), runtime.GOARCH); err != nil {
		t.Skip("this binary carries no toolbox: hack/toolbox.sh makes it")
	}
}

func TestCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile": `FROM scratch
COPY rootfs .
COPY a b etc/
COPY --chown=1:2 --chmod=750 a bin/tool
COPY a manifests
COPY *.txt docs/
COPY --exclude=*.bak tree tree
COPY --parents tree/./deep/x parents/
COPY --parents tree/dee*/x whole/
COPY <<greeting etc/
hello
greeting
ENV A=1 B="two words"
LABEL org.example=yes
MAINTAINER me
CMD kubectl get nodes
CMD ["kubectl", "apply", "-f", "a file"]
`,
		"rootfs/manifests/x.yaml": "kind: none\n",
		"a":                       "A", "b": "B", "one.txt": "1", "two.txt": "2", "tree/deep/x": "x", "tree/y.bak": "y", "ignored/z": "z",
		".dockerignore": "one.txt\n", ".sealerignore": "two.txt\n",
	})
	img := b.mustBuild()
	files := b.files(img, 0)
	require.Equal(t, []string{
		"Metadata", "bin/tool", "docs/one.txt", "etc/a", "etc/b", "etc/greeting", "manifests/a", "manifests/x.yaml", "parents/deep/x", "tree/deep/x", "whole/tree/deep/x",
	}, names(files))
	require.Equal(t, "A", files["manifests/a"].text, "manifests is a folder below: the file goes into it")
	require.Equal(t, "hello\n", files["etc/greeting"].text)
	require.Equal(t, file{"A", 0o750, 1, 2, time.Unix(0, 0)}, files["bin/tool"])
	for name, f := range files {
		require.True(t, f.time.Equal(time.Unix(0, 0)), "%s: %s", name, f.time)
	}
	r := img.Rootfs[0]
	require.Equal(t, clusterimage.AppInstaller, r.Extension.Type)
	require.Equal(t, []string{"kubectl get nodes", "kubectl apply -f 'a file'"}, r.Extension.Launch.Cmds)
	require.Equal(t, map[string]string{"A": "1", "B": "two words"}, r.Extension.Env)
	require.Equal(t, []string{"A=1", "B=two words"}, r.Config.Config.Env)
	require.Equal(t, "yes", r.Config.Config.Labels["org.example"])
	require.Equal(t, "test", r.Config.Config.Labels[clusterimage.LabelVersion])
	require.Equal(t, "me", r.Config.Author)
	require.Equal(t, runtime.GOARCH, r.Config.Architecture)
}

// A folder that is a symbolic link below stays one, and the files go where it leads.
func TestCopy_ThroughSymbolicLinks(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY rootfs .\nCOPY f lib64/deep/\n", "rootfs/lib/x": "x", "f": "f"})
	require.NoError(t, os.Symlink("lib", filepath.Join(b.context, "rootfs", "lib64")))
	files := b.files(b.mustBuild(), 0)
	require.Equal(t, "f", files["lib/deep/f"].text)
	require.NotZero(t, files["lib64"].mode&fs.ModeSymlink)
}
