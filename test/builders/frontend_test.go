//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package builders

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// inspected is what is looked at of `sealer inspect -o json`.
type inspected struct {
	Rootfs []struct {
		Platform string `json:"platform"`
	} `json:"rootfs"`
	Images []packed `json:"images"`
}

type packed struct {
	Name     string `json:"name"`
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
}

func inspect(t *testing.T, root, ref string) inspected {
	t.Helper()
	var out inspected
	require.NoError(t, json.Unmarshal([]byte(run(t, "sealer", "--root", root, "inspect", "-o", "json", ref)), &out))
	return out
}

// A Kubefile that names the frontend builds under buildctl and the real buildkitd. What comes out is pulled, inspected,
// pushed, built on and published as what `sealer build` makes of the same folder.
func TestFrontend(t *testing.T) {
	r := newRegistry(t)
	pushRandom(t, r.Address+"/lib/docker:v1", false)
	pushRandom(t, r.Address+"/lib/multi:v1", true)
	address := startBuildKit(t)
	root := t.TempDir()
	frontend := r.Address + "/sealer-frontend:v1"
	made := run(t, "sealer", "--root", root, "builder", "frontend", "-t", frontend)
	require.Equal(t, made, run(t, "sealer", "--root", root, "push", frontend))
	archive := filepath.Join(t.TempDir(), "frontend.tar")
	require.Equal(t, made, run(t, "sealer", "--root", root, "builder", "frontend", "-t", frontend, "--output", archive))
	require.Contains(t, run(t, "skopeo", "inspect", "oci-archive:"+archive), made)

	images := r.Address + "/lib/docker:v1\n" + r.Address + "/lib/multi:v1\n"
	dir := write(t, map[string]string{
		"Kubefile":  "# syntax=" + frontend + "\nFROM scratch\nCOPY . .\nRUN mkdir etc && echo made >etc/made\nCMD cat etc/made\n",
		"imageList": images, ".sealerignore": "Kubefile\n.*\n",
	})
	buildctl := func(dir string, args ...string) string {
		t.Helper()
		_, log, err := try(t, "buildctl", append([]string{"--addr", address, "build", "--progress=plain", "--local", "context=" + dir, "--local", "dockerfile=" + dir}, args...)...)
		require.NoError(t, err, log)
		return log
	}
	under := func(dir, tag string, args ...string) {
		t.Helper()
		buildctl(dir, append([]string{
			"--frontend=dockerfile.v0", "--opt=filename=Kubefile", "--output=type=image,name=" + tag + ",push=true,registry.insecure=true",
		}, args...)...)
	}
	app := r.Address + "/team/app:v1"
	under(dir, app)

	t.Run("pulled and inspected", func(t *testing.T) {
		digest := run(t, "sealer", "--root", root, "pull", app)
		require.Equal(t, digest, run(t, "sealer", "--root", root, "pull", app), "a second pull")
		run(t, "sealer", "--root", root, "build", "-t", "here:v1", dir)
		require.Len(t, inspect(t, root, app).Images, 2)
		require.Equal(t, inspect(t, root, "here:v1").Images, inspect(t, root, app).Images)
	})
	t.Run("pushed as a ClusterImage", func(t *testing.T) {
		moved := r.Address + "/team/moved:v1"
		run(t, "sealer", "--root", root, "tag", app, moved)
		digest := run(t, "sealer", "--root", root, "push", moved)
		other := t.TempDir()
		require.Equal(t, digest, run(t, "sealer", "--root", other, "pull", moved))
		require.Equal(t, inspect(t, root, app), inspect(t, other, moved))
	})
	t.Run("loaded from an archive", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "app.tar")
		buildctl(dir, "--frontend=dockerfile.v0", "--opt=filename=Kubefile", "--output=type=oci,dest="+file+",name="+app)
		other := t.TempDir()
		run(t, "sealer", "--root", other, "load", "-i", file)
		require.Equal(t, inspect(t, root, app).Images, inspect(t, other, app).Images)
	})
	t.Run("published and mounted by a host's program", func(t *testing.T) {
		host := t.TempDir()
		digest := run(t, "sealer", "--root", host, "pull", app) // a host's store is one like ours
		run(t, "sealer-node", "--root", host, "registry", "publish", "--image", digest)
		served, err := filepath.Glob(filepath.Join(host, "registry", "docker", "registry", "v2", "repositories", "*", "lib", "*"))
		require.NoError(t, err)
		require.Len(t, served, 2)
		var mounted struct{ Path string }
		require.NoError(t, json.Unmarshal([]byte(run(t, "sealer-node", "--root", host, "rootfs", "mount", "--image", digest)), &mounted))
		defer run(t, "sealer-node", "--root", host, "rootfs", "umount", "--image", digest)
		require.FileExists(t, filepath.Join(mounted.Path, "etc", "made"))
		require.NoDirExists(t, filepath.Join(mounted.Path, ".clusterimage"), "the packed images are no part of the rootfs")
	})
	t.Run("FROM it, and FROM a ClusterImage", func(t *testing.T) {
		pushRandom(t, r.Address+"/lib/more:v1", false)
		for _, base := range []string{app, r.Address + "/team/moved:v1"} {
			child := write(t, map[string]string{
				"Kubefile":  "# syntax=" + frontend + "\nFROM " + base + "\nCOPY imageList .\n",
				"imageList": r.Address + "/lib/more:v1\n",
			})
			tag := r.Address + "/team/child-" + strings.TrimSuffix(filepath.Base(base), ":v1") + ":v1"
			under(child, tag)
			run(t, "sealer", "--root", root, "pull", tag)
			require.Len(t, inspect(t, root, tag).Images, 3, base)
			require.Subset(t, inspect(t, root, tag).Images, inspect(t, root, app).Images)
		}
	})
	t.Run("two platforms, with provenance", func(t *testing.T) {
		two := write(t, map[string]string{"Kubefile": "# syntax=" + frontend + "\nFROM scratch\nCOPY imageList .\nRUN echo $(cat imageList) >x\n", "imageList": r.Address + "/lib/multi:v1\n"})
		tag := r.Address + "/team/two:v1"
		under(two, tag, "--opt=platform=linux/amd64,linux/arm64", "--opt=attest:provenance=mode=min")
		run(t, "sealer", "--root", root, "pull", tag)
		got := inspect(t, root, tag)
		require.Len(t, got.Rootfs, 2)
		require.Len(t, got.Images, 2)
		require.NotEqual(t, got.Images[0].Digest, got.Images[1].Digest)
		only := t.TempDir()
		run(t, "sealer", "--root", only, "pull", "--platform", "linux/arm64", tag)
		require.Len(t, inspect(t, only, tag).Images, 1)
		require.Equal(t, "linux/arm64", inspect(t, only, tag).Images[0].Platform)
	})
	t.Run("gateway.v0 and an image that is not there", func(t *testing.T) {
		bad := write(t, map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": r.Address + "/lib/none:v1\n"})
		_, log, err := try(t, "buildctl", "--addr", address, "build", "--progress=plain", "--local", "context="+bad, "--local", "dockerfile="+bad,
			"--frontend=gateway.v0", "--opt=source="+frontend)
		require.Error(t, err)
		require.Contains(t, log, "image "+r.Address+"/lib/none:v1 (imageList:1)")
		require.NoError(t, os.WriteFile(filepath.Join(bad, "Kubefile"), []byte("FROM scratch\nCOPI imageList .\n"), 0o600))
		_, log, err = try(t, "buildctl", "--addr", address, "build", "--progress=plain", "--local", "context="+bad, "--local", "dockerfile="+bad,
			"--frontend=gateway.v0", "--opt=source="+frontend)
		require.Error(t, err)
		require.Contains(t, log, "Kubefile:2", "the line is shown by BuildKit's client")
		require.Contains(t, log, "COPI")
	})
}
