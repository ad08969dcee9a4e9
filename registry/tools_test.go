// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
)

// dockerRegistry runs Debian's docker-registry 2.8 and returns its host.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("the program docker-registry (Debian package docker-registry) is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host := ln.Addr().String()
	require.NoError(t, ln.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %s}
`, filepath.Join(dir, "data"), host), 0o600))
	cmd := exec.Command(bin, "serve", config)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + host + "/v2/")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 20*time.Second, 50*time.Millisecond)
	return host
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("the program %s is not installed", name)
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return string(out)
}

// mixed packs what is in the field: OCI and Docker images, indexes of both, a
// digest reference, two names of one image, two platforms.
func mixed(t *testing.T, up *upstream) []registry.ImageRequest {
	t.Helper()
	base := tarLayer(t, "base", randomBytes(1, 200<<10))
	docker := image(t, "linux/amd64", base, tarLayer(t, "a", randomBytes(2, 1000)))
	oci := func(platform string, seed uint64) v1.Image {
		img := image(t, platform, base, tarLayer(t, "b", randomBytes(seed, 1000)))
		return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	ociIndex := index(t, map[string]v1.Image{"linux/amd64": oci("linux/amd64", 3), "linux/arm64/v8": oci("linux/arm64/v8", 4)}, true)
	list := mutate.IndexMediaType(index(t, map[string]v1.Image{
		"linux/amd64": image(t, "linux/amd64", base, tarLayer(t, "c", randomBytes(5, 1000))),
		"linux/arm64": image(t, "linux/arm64", base, tarLayer(t, "c", randomBytes(6, 1000))),
	}, false), types.DockerManifestList)
	dockerName := up.push(t, "quay.io/a/docker:1", docker)
	ociName := up.push(t, "ghcr.io/a/oci:1", ociIndex)
	listName := up.push(t, "docker.io/library/list:1", list)
	again := up.push(t, "docker.io/library/again:1", docker)
	d, err := ociIndex.Digest()
	require.NoError(t, err)
	reqs := []registry.ImageRequest{
		request(dockerName), request(ociName), request(listName), request(again),
		request(strings.TrimSuffix(ociName, ":1") + "@" + d.String()),
		request(ociName + "@" + d.String()),
	}
	for _, n := range []string{ociName, listName} {
		r := request(n)
		r.Platform.Architecture = "arm64"
		reqs = append(reqs, r)
	}
	return reqs
}

func TestTools_DockerRegistry(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	c := newClient(t)
	st := newStore(t)
	reqs := mixed(t, up)
	// The validator unpacks gzip only; TestTools_Zstd has the default.
	desc := clusterImageOf(t, c, st, "example.com/cluster:v1", true, reqs...)
	host := dockerRegistry(t)

	_, err := c.Push(ctx, st, desc, host+"/cluster:v1")
	require.NoError(t, err)

	ref, err := name.ParseReference(host + "/cluster:v1")
	require.NoError(t, err)
	idx, err := remote.Index(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Index(idx))
	img, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
	require.NoError(t, err)
	read, err := clusterimage.Read(ctx, st.Content(), desc)
	require.NoError(t, err)
	root, err := read.Platform(amd64)
	require.NoError(t, err)
	got, err := img.Digest()
	require.NoError(t, err)
	require.Equal(t, root.Descriptor.Digest.String(), got.String())

	t.Run("skopeo inspect", func(t *testing.T) {
		out := tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+host+"/cluster:v1")
		require.Contains(t, out, clusterimage.LabelExtension)
	})
	t.Run("skopeo copy --all", func(t *testing.T) {
		tool(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
			"docker://"+host+"/cluster:v1", "docker://"+host+"/copy:v1")
		copied, err := name.ParseReference(host + "/copy:v1")
		require.NoError(t, err)
		d, err := remote.Head(copied)
		require.NoError(t, err)
		require.Equal(t, desc.Digest.String(), d.Digest.String())
		other := newStore(t)
		pulled, err := c.Pull(ctx, other, host+"/copy:v1", registry.PullOptions{})
		require.NoError(t, err)
		require.Equal(t, desc.Digest, pulled.Digest)
		complete(t, other, pulled)
	})
	t.Run("skopeo copy of the layout", func(t *testing.T) {
		tool(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--dest-tls-verify=false",
			"oci:"+st.Dir()+":example.com/cluster:v1", "docker://"+host+"/layout:v1")
	})
	t.Run("crane", func(t *testing.T) {
		require.Contains(t, tool(t, "crane", "validate", "--remote", host+"/cluster:v1"), "PASS")
		dir := t.TempDir()
		tool(t, "crane", "pull", "--platform", "linux/amd64", "--format", "oci", host+"/cluster:v1", dir)
		data, err := os.ReadFile(filepath.Join(dir, "index.json"))
		require.NoError(t, err)
		require.Contains(t, string(data), root.Descriptor.Digest.String())
	})
}

func TestTools_Zstd(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := newClient(t)
	for name, reqs := range map[string][]registry.ImageRequest{"packed": mixed(t, newUpstream(t)), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := dockerRegistry(t)
			st := newStore(t)
			desc := clusterImage(t, c, st, "example.com/cluster:v1", reqs...)
			_, err := c.Push(ctx, st, desc, host+"/cluster:v1")
			require.NoError(t, err)
			tool(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
				"docker://"+host+"/cluster:v1", "docker://"+host+"/copy:v1")
			require.Contains(t, tool(t, "crane", "validate", "--fast", "--remote", host+"/copy:v1"), "PASS")
			other := newStore(t)
			pulled, err := c.Pull(ctx, other, host+"/copy:v1", registry.PullOptions{})
			require.NoError(t, err)
			require.Equal(t, desc.Digest, pulled.Digest)
			complete(t, other, pulled)
		})
	}
}
