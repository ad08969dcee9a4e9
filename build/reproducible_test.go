// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

// sample is a context with everything that could make two builds differ.
func sample(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"Kubefile": `FROM scratch
COPY rootfs .
COPY a etc/a
COPY a manifests
RUN mkdir made && echo x > made/x && cp etc/a made/b && touch bin
ADD z.tar unpacked/
CMD true
`,
		"rootfs/bin/x": "x", "rootfs/manifests/deep": "y", "a": "a", "z.tar": archive(t, "packed"),
	}
}

// archive is a tar with one file of the given name.
func archive(t *testing.T, name string) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 1, ModTime: time.Unix(1e9, 0)}))
	_, err := w.Write([]byte("p"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.String()
}

func TestReproducible(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	one := newBench(t, sample(t))
	first, err := one.build()
	require.NoError(t, err)
	again, err := one.build()
	require.NoError(t, err)
	require.Equal(t, first.Descriptor.Digest, again.Descriptor.Digest, "from the cache")
	fresh, err := one.build(func(o *build.Options) { o.NoCache = true })
	require.NoError(t, err)
	require.Equal(t, first.Descriptor.Digest, fresh.Descriptor.Digest, "made again")

	// Another folder, another time, another store, another kind of snapshot.
	other := newBench(t, sample(t))
	require.NoError(t, filepath.WalkDir(other.context, func(path string, _ fs.DirEntry, _ error) error {
		return os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0))
	}))
	require.NoError(t, os.MkdirAll(other.state, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(other.state, "snapshotter"), []byte("native\n"), 0o600))
	second, err := other.build(func(o *build.Options) { o.Isolation = "chroot" })
	require.NoError(t, err)
	require.Equal(t, one.files(one.read(first), 0), other.files(other.read(second), 0))
	require.Equal(t, first.Descriptor.Digest, second.Descriptor.Digest, "elsewhere")

	// The epoch is part of what is built, also beside a cache that knows another one.
	epoch := time.Unix(1_700_000_000, 0)
	later, err := one.build(func(o *build.Options) { o.Epoch = &epoch })
	require.NoError(t, err)
	require.NotEqual(t, first.Descriptor.Digest, later.Descriptor.Digest)
	for name, f := range one.files(one.read(later), 0) {
		want := epoch.Unix()
		if name == "unpacked/packed" {
			want = 1e9 // a time inside an archive is older, and part of the input
		}
		require.Equal(t, want, f.time.Unix(), name)
	}
	clean, err := other.build(func(o *build.Options) { o.Epoch = &epoch; o.StateDir = filepath.Join(other.state, "clean") })
	require.NoError(t, err)
	require.Equal(t, later.Descriptor.Digest, clean.Descriptor.Digest)
}

// What the cache knows from another Kubefile does not show.
func TestReproducible_BesideOthers(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	files := map[string]string{"Kubefile": "FROM scratch\nCOPY f .\nCOPY f .\nRUN cp f g\n", "f": "x"}
	clean := newBench(t, files)
	want, err := clean.build()
	require.NoError(t, err)
	used := newBench(t, files)
	used.write(map[string]string{"Kubefile": "FROM scratch AS other\nCOPY f .\nCOPY f .\nRUN cp f g\nFROM other\nCOPY f x/\n"})
	used.mustBuild()
	used.write(files)
	got, err := used.build()
	require.NoError(t, err)
	require.Equal(t, used.read(got).Rootfs[0].Config, clean.read(want).Rootfs[0].Config)
	require.Equal(t, want.Descriptor.Digest, got.Descriptor.Digest)
	var made []string
	for _, h := range clean.read(want).Rootfs[0].Config.History {
		made = append(made, h.CreatedBy)
	}
	require.Equal(t, []string{"COPY f .", "COPY f .", "RUN cp f g", "Metadata"}, made)
}

func TestReproducible_Config(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	img := b.mustBuild()
	require.Equal(t, time.Unix(0, 0).UTC(), img.Rootfs[0].Config.Created.UTC())
	for _, h := range img.Rootfs[0].Config.History {
		require.Equal(t, time.Unix(0, 0).UTC(), h.Created.UTC())
	}
}
