//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// writeOptionsContext makes a context whose image has two platforms, a real
// program and a packed image.
func writeOptionsContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kubefile": "FROM scratch\nARG VERSION\nCOPY hello-$TARGETARCH etc/hello\nCOPY crictl bin/crictl\nCOPY imageList imageList\n" +
			"RUN --mount=type=secret,id=token sha256sum etc/hello > etc/sum && test $(cat /run/secrets/token) = hunter2 && echo $VERSION > etc/version\n",
		"imageList": "docker.io/sealer-test/multi:v1\n", "hello-amd64": "amd\n", "hello-arm64": "arm\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	data, err := os.ReadFile(filepath.Join(shared.Components, "bin", "crictl"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "crictl"), data, 0o700))
	return dir
}

// One build of two platforms, with everything that is said of it, is pushed
// under two names; it is built again under them, elsewhere it is the same, and
// other tools take it as it is.
func TestOptions_PlatformsAndAttestations(t *testing.T) {
	crane := buildCrane(t)
	dir := writeOptionsContext(t)
	one, two := shared.Registry+"/options/both:1", shared.Registry+"/options/both:latest"
	metadata := filepath.Join(t.TempDir(), "metadata.json")
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("hunter2"), 0o600))
	args := []string{
		"build", "-t", one, "-t", two, "--platform", "linux/amd64,linux/arm64", "--provenance", "max", "--sbom", "--push", "--build-arg", "VERSION=7",
		"--secret", "id=token,src=" + token, "--label", "org.example.team=a", "--annotation", "org.example.of=index", "--metadata-file", metadata, dir,
	}
	want := sealer(t, "options", args...)
	require.Equal(t, want, sealer(t, "options", args...), "again")
	require.Equal(t, want, sealer(t, "options-clean", args...), "on a clean store")

	var written map[string]any
	data, err := os.ReadFile(metadata)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &written))
	require.Equal(t, want, written["containerimage.digest"])
	require.Equal(t, one+","+two, written["image.name"])

	for _, image := range []string{one, two} {
		require.Equal(t, want, strings.TrimSpace(command(t, crane, "digest", image)))
	}
	require.Contains(t, command(t, crane, "validate", "--remote", one, "--fast"), "PASS")
	testSkopeo(t, strings.Replace(one, "/options/", "/tools/", 1), craneCopy(t, crane, one, strings.Replace(one, "/options/", "/tools/", 1)))

	var index ocispec.Index
	require.NoError(t, json.Unmarshal([]byte(command(t, crane, "manifest", one)), &index))
	require.Equal(t, "index", index.Annotations["org.example.of"])
	attested := 0
	for _, entry := range index.Manifests {
		about := entry.Annotations["vnd.docker.reference.digest"]
		if about == "" {
			continue
		}
		attested++
		var m ocispec.Manifest
		require.NoError(t, json.Unmarshal([]byte(command(t, crane, "manifest", shared.Registry+"/options/both@"+entry.Digest.String())), &m))
		require.Len(t, m.Layers, 2)
		provenance := command(t, crane, "blob", shared.Registry+"/options/both@"+m.Layers[0].Digest.String())
		require.Contains(t, provenance, strings.TrimPrefix(about, "sha256:"))
		require.Contains(t, provenance, "sealer-test/multi@v1")
		require.NotContains(t, provenance, "hunter2")
		require.NotContains(t, provenance, dir)
		bill := command(t, crane, "blob", shared.Registry+"/options/both@"+m.Layers[1].Digest.String())
		require.Contains(t, bill, "pkg:golang/k8s.io/client-go@", "the modules of a Go program")
		require.Contains(t, bill, "docker.io/sealer-test/multi:v1")
	}
	require.Equal(t, 2, attested)

	// A site of one architecture pulls its platform, with what is said of it.
	require.Equal(t, want, sealer(t, "options-arm64", "pull", "--platform", "linux/arm64", one))
	require.Equal(t, want, sealer(t, "options-all", "pull", one))
}

// craneCopy copies an image within the registry, and returns its digest.
func craneCopy(t *testing.T, crane, from, to string) string {
	t.Helper()
	command(t, crane, "copy", from, to)
	return strings.TrimSpace(command(t, crane, "digest", to))
}

// What --output writes is what others read.
func TestOptions_Output(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch AS base\nCOPY a etc/a\nFROM base\nCOPY a etc/b\nCOPY imageList imageList\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("a\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte("docker.io/sealer-test/hello:v1\n"), 0o600))
	out := t.TempDir()
	const root = "options-output"
	digest := sealer(t, root, "build", "-t", "x.example/out:1", "-o", "type=oci,dest="+filepath.Join(out, "oci.tar"),
		"-o", filepath.Join(out, "folder"), "--iidfile", filepath.Join(out, "id"), dir)
	id, err := os.ReadFile(filepath.Join(out, "id"))
	require.NoError(t, err)
	require.Equal(t, digest, string(id))
	data, err := os.ReadFile(filepath.Join(out, "folder", "etc", "b"))
	require.NoError(t, err)
	require.Equal(t, "a\n", string(data))
	require.Contains(t, command(t, "skopeo", "inspect", "--raw", "oci-archive:"+filepath.Join(out, "oci.tar")), "vnd.sealer.clusterimage")
	sealer(t, "options-load", "load", "-i", filepath.Join(out, "oci.tar"))
	require.Contains(t, sealer(t, "options-load", "images", "-o", "json"), digest)

	stdout, err := shared.Command(t.Context(), root, "build", "-t", "x.example/out:1", "--target", "base", "-o", "-", dir).Output()
	require.NoError(t, err)
	files := tarFiles(t, strings.NewReader(string(stdout)))
	require.Equal(t, "a\n", files["etc/a"])
	require.NotContains(t, files, "etc/b")
}

// What cannot be meant is refused as a mistake of the command line; what a
// policy refuses fails the build, and leaves no image.
func TestOptions_Refused(t *testing.T) {
	const root = "options-refused"
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPY imageList imageList\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte("docker.io/sealer-test/hello:v1\nquay.io/sealer-test/hello:v1\n"), 0o600))
	for _, args := range [][]string{
		{"--build-mode", "some"}, {"--type", "installer"}, {"--pull=now"}, {"--builder", "kube-pod://"}, {"--builder", "tcp://host"}, {"--secret", "src=x"},
		{"--cache-from", "ref=x,ref=y"}, {"--output", "type=docker"}, {"--output", "-", "--output", "type=oci"}, {"--provenance", "all"}, {"--annotation", "x"}, {"--label", "=x"},
	} {
		_, stderr, code := runAny(t, root, append(append([]string{"build", "-t", "x.example/y:1"}, args...), dir)...)
		require.Equal(t, 2, code, "%s: %s", args, stderr)
		require.Contains(t, stderr, strings.SplitN(args[0], "=", 2)[0])
	}
	policy := filepath.Join(dir, "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte("registries:\n  deny: [quay.io]\ndigest: required\n"), 0o600))
	_, stderr, code := runAny(t, root, "build", "-t", "x.example/y:1", "--policy", policy, dir)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "3 violations")
	require.Contains(t, stderr, "quay.io/sealer-test/hello:v1 (imageList:2): its registry or repository is denied")
	require.Equal(t, "[]", sealer(t, root, "images", "-o", "json"))
	require.NoError(t, os.WriteFile(policy, []byte("registries:\n  deny: [ghcr.io]\n"), 0o600))
	require.Regexp(t, "^sha256:", sealer(t, root, "build", "-t", "x.example/y:1", "--policy", policy, dir))
}
