//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package builders

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What `docker buildx build` makes of a Kubefile that names the frontend, for two platforms and with the provenance that it
// adds by itself, is what sealer makes of the same folder. Its mistakes are shown with their line.
func TestBuildx(t *testing.T) {
	t.Setenv("BUILDX_CONFIG", t.TempDir()) // else it writes into the user's own
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r := newRegistry(t)
	pushRandom(t, r.Address+"/lib/multi:v1", true)
	run(t, "buildx", "create", "--name", "real", "--driver", "remote", startBuildKit(t))
	root := t.TempDir()
	frontend := r.Address + "/sealer-frontend:v1"
	run(t, "sealer", "--root", root, "builder", "frontend", "-t", frontend)
	run(t, "sealer", "--root", root, "push", frontend)
	dir := write(t, map[string]string{
		"Kubefile":  "# syntax=" + frontend + "\nFROM scratch\nARG WHO=nobody\nCOPY . .\nRUN echo $WHO >made\nLABEL who=$WHO\nCMD cat made\n",
		"imageList": r.Address + "/lib/multi:v1\n", ".sealerignore": "Kubefile\n.*\n",
	})
	platforms := []string{"--platform", "linux/amd64,linux/arm64", "--build-arg", "WHO=buildx"}
	tag := r.Address + "/team/app:v1"
	build := append([]string{"build", "--builder", "real", "--progress", "plain", "-f", filepath.Join(dir, "Kubefile")}, platforms...)
	run(t, "buildx", append(build, "--output", "type=image,name="+tag+",push=true,registry.insecure=true", dir)...)

	run(t, "sealer", "--root", root, "pull", tag)
	run(t, "sealer", append(append([]string{"--root", root, "build", "-t", "here:v1"}, platforms...), dir)...)
	got, want := inspect(t, root, tag), inspect(t, root, "here:v1")
	require.Len(t, got.Images, 2)
	require.Equal(t, want.Images, got.Images)
	require.Len(t, got.Rootfs, 2)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("# syntax="+frontend+"\nFROM scratch\nCOPI . .\n"), 0o600))
	_, log, err := try(t, "buildx", append(build, dir)...)
	require.Error(t, err)
	require.Contains(t, log, "Kubefile:3")
	require.Contains(t, log, "COPI")
}
