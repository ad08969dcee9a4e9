// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

func TestOutput(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch\nCOPY a b etc/\nCOPY --chmod=700 --chown=7:7 b etc/a\nCOPY arch-$TARGETARCH arch\n", "a": "1", "b": "2",
		"arch-amd64": "amd", "arch-arm64": "arm",
	})
	one := b.mustBuild(func(o *build.Options) { o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "arm64"}} })
	folder := filepath.Join(t.TempDir(), "made")
	require.NoError(t, build.WriteFolder(t.Context(), b.store, one.Descriptor, folder))
	for name, want := range map[string]string{"etc/a": "2", "etc/b": "2", "arch": "arm"} {
		got, err := os.ReadFile(filepath.Join(folder, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got), name)
	}
	info, err := os.Stat(filepath.Join(folder, "etc", "a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode())
	var full *build.FolderError
	require.ErrorAs(t, build.WriteFolder(t.Context(), b.store, one.Descriptor, folder), &full)
	beside, err := os.ReadDir(filepath.Dir(folder))
	require.NoError(t, err)
	require.Len(t, beside, 1, "nothing else is left")

	two := b.mustBuild(func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}}
	})
	var first, again bytes.Buffer
	require.NoError(t, build.WriteTar(t.Context(), b.store, two.Descriptor, &first))
	require.NoError(t, build.WriteTar(t.Context(), b.store, two.Descriptor, &again))
	require.Equal(t, first.Bytes(), again.Bytes())
	got := map[string]string{}
	for tr := tar.NewReader(&first); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		require.NotContains(t, got, h.Name, "twice")
		got[h.Name] = string(data)
	}
	require.Equal(t, "amd", got["linux_amd64/arch"])
	require.Equal(t, "arm", got["linux_arm64/arch"])
	require.Contains(t, got, "linux_amd64/")

	require.NoError(t, os.Remove(b.store.BlobPath(two.Rootfs[0].Manifest.Layers[0].Digest)))
	require.Error(t, build.WriteFolder(t.Context(), b.store, two.Descriptor, filepath.Join(t.TempDir(), "none")))
}

func TestParseOutput(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]build.Output{
		"-": {Type: build.OutputTar, Dest: "-"}, "out": {Type: build.OutputLocal, Dest: "out"}, "type=oci": {Type: build.OutputOCI, Dest: "-"},
		"type=tar,dest=a.tar": {Type: build.OutputTar, Dest: "a.tar"}, "type=registry": {Type: build.OutputRegistry},
		"type=local,dest=out": {Type: build.OutputLocal, Dest: "out"},
	} {
		got, err := build.ParseOutput(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		"":                    "it is empty",
		"type=local":          "dest= is missing: a folder",
		"type=local,dest=-":   "dest= is missing: a folder",
		"type=docker":         `unknown type "docker"`,
		"dest=a":              `unknown type ""`,
		"type=oci,tar=false":  `unknown key "tar"`,
		"type=registry,dest=": "",
	} {
		_, err := build.ParseOutput(text)
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}
