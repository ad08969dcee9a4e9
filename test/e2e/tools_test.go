//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

// Tools that know nothing of sealer take its images from a registry as they
// take any other: they validate, pull and copy them, and the digest stays.
func TestTools(t *testing.T) {
	crane := buildCrane(t)
	for _, test := range []struct {
		name, list string
	}{
		{"small", ""},
		{"packed", "docker.io/sealer-test/multi:v1\ndocker.io/sealer-test/hello:v1\nquay.io/sealer-test/hello:v1\n"},
	} {
		for _, kind := range []string{"zstd", "gzip"} {
			t.Run(test.name+" "+kind, func(t *testing.T) {
				image := shared.Registry + "/tools/" + test.name + ":" + kind
				want := pushSample(t, image, kind, test.list)
				testCrane(t, crane, image, kind, want)
				testSkopeo(t, image, want)
			})
		}
	}
}

// buildCrane compiles crane, at the version that the tools module holds.
func buildCrane(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(shared.Dir, "crane") // the next test finds it there: go build sees that it is what it would make
	cmd := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", bin, "github.com/google/go-containerregistry/cmd/crane")
	cmd.Dir = shared.Source
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return bin
}

// pushSample builds a ClusterImage that packs the images of list, pushes it and returns its digest.
func pushSample(t *testing.T, image, kind, list string) string {
	t.Helper()
	const root = "tools"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList imageList\nCOPY greeting etc/\nRUN sha256sum etc/greeting > etc/greeting.sha256\n",
		"imageList": list,
		"greeting":  "hello\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	built := sealer(t, root, "build", "--compression", kind, "-t", image, dir)
	require.Equal(t, built, sealer(t, root, "push", image))
	return built
}

func testCrane(t *testing.T, crane, image, kind, want string) {
	t.Helper()
	validate := []string{"validate", "--remote", image}
	if kind == "zstd" { // what unpacks layers knows gzip only
		validate = append(validate, "--fast")
	}
	require.Contains(t, command(t, crane, validate...), "PASS")

	pulled := filepath.Join(t.TempDir(), "pulled.tar")
	command(t, crane, "pull", "--platform", "linux/"+runtime.GOARCH, image, pulled)
	rootfs := savedFiles(t, pulled)
	require.Equal(t, "hello\n", rootfs["etc/greeting"])
	require.Contains(t, rootfs, "etc/greeting.sha256")
	require.Contains(t, rootfs, "Metadata")

	other := strings.Replace(image, "/tools/", "/crane/", 1)
	command(t, crane, "copy", image, other)
	require.Equal(t, want, strings.TrimSpace(command(t, crane, "digest", other)))
}

func testSkopeo(t *testing.T, image, want string) {
	t.Helper()
	raw := command(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+image)
	require.Equal(t, want, digest.FromString(raw).String())

	layout := "oci:" + filepath.Join(t.TempDir(), "layout") + ":v1"
	other := strings.Replace(image, "/tools/", "/skopeo/", 1)
	command(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "docker://"+image, layout)
	command(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--dest-tls-verify=false", layout, "docker://"+other)
	require.Equal(t, raw, command(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+other))

	// What went through other hands is whole.
	require.Equal(t, want, sealer(t, "tools-copy", "pull", other))
}

// command runs a program and returns what it prints on stdout.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s: %s%s", filepath.Base(name), strings.Join(args, " "), out, stderr.String())
	return string(out)
}

// savedFiles are the files of the one image in an archive as docker save makes them.
func savedFiles(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	saved := tarFiles(t, f)
	var images []struct{ Layers []string }
	require.NoError(t, json.Unmarshal([]byte(saved["manifest.json"]), &images))
	require.Len(t, images, 1)
	files := map[string]string{}
	for _, layer := range images[0].Layers {
		r, err := compression.DecompressStream(strings.NewReader(saved[layer]))
		require.NoError(t, err)
		maps.Copy(files, tarFiles(t, r))
		require.NoError(t, r.Close())
	}
	return files
}

// tarFiles are the files of a tar, by name.
func tarFiles(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		data, err := io.ReadAll(io.LimitReader(tr, 1<<20))
		require.NoError(t, err)
		files[hdr.Name] = string(data)
	}
}
