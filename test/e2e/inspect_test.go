//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeContext puts files into a folder.
func writeContext(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// What is inside, why, what differs, and whether it is whole.
func TestInspect(t *testing.T) {
	const root = "inspect"
	one, two := shared.Registry+"/inspect/base:v1", shared.Registry+"/inspect/shop:v1"
	sealer(t, root, "build", "-t", one, writeContext(t, map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList imageList\nCOPY f etc/\nENV GREETING=hello\nCMD echo one\n",
		"imageList": "docker.io/sealer-test/hello:v1\n", "f": "1",
	}))
	sealer(t, root, "build", "-t", two, writeContext(t, map[string]string{
		"Kubefile": "FROM " + one + "\nCOPY f etc/\nCOPY pod.yaml manifests/\nCMD echo two\n", "f": "2",
		"pod.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: x, image: quay.io/sealer-test/hello:v1}]}\n",
	}))
	require.Equal(t, "docker.io/sealer-test/hello:v1 quay.io/sealer-test/hello:v1",
		strings.TrimSpace(sealer(t, root, "inspect", two, "--format", "{{range .Images}}{{.Name}} {{end}}")))
	for _, text := range []string{"ClusterImage", one, "echo two", "GREETING=hello", "manifests/pod.yaml:4"} {
		require.Contains(t, sealer(t, root, "inspect", two), text)
	}
	sealer(t, root, "push", two)
	var here, there map[string]any
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "inspect", two, "-o", "json")), &here))
	require.NoError(t, json.Unmarshal([]byte(sealer(t, "inspect-empty", "inspect", "--remote", two, "-o", "json")), &there))
	require.Equal(t, here, there, "nothing has to be pulled to see the same")

	var reasons []struct {
		Name    string
		Origins []string
		Base    *struct{ Name string }
	}
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "why", two, "sealer-test/hello", "-o", "json")), &reasons))
	require.Len(t, reasons, 1)
	require.Equal(t, []string{"imageList:1"}, reasons[0].Origins)
	require.Equal(t, one, reasons[0].Base.Name)
	_, stderr, code := runAny(t, root, "why", two, "sealer-test/hallo:v1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "did you mean docker.io/sealer-test/hello:v1")

	require.Contains(t, sealer(t, root, "tree", two, "--layers"), "also in "+one)
	out, _, code := runAny(t, root, "diff", "--exit-code", one, two)
	require.Equal(t, 1, code)
	for _, text := range []string{"+ image", "quay.io/sealer-test/hello:v1", "~ file", "/etc/f", "content", "+ file", "/manifests/pod.yaml", "blobs to ship"} {
		require.Contains(t, out, text)
	}
	sealer(t, root, "diff", "--exit-code", "--remote-from", two, two)

	require.Contains(t, sealer(t, root, "search", shared.Registry+"/inspect/shop"), two)
	require.Contains(t, sealer(t, root, "search", shared.Registry+"/inspect"), shared.Registry+"/inspect/shop")

	dir := filepath.Join(t.TempDir(), "look")
	require.Equal(t, dir, sealer(t, root, "mount", two, dir))
	data, err := os.ReadFile(filepath.Join(dir, "etc/f"))
	require.NoError(t, err)
	require.Equal(t, "2", string(data))
	require.Error(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	require.Contains(t, sealer(t, root, "mount"), dir)
	require.Equal(t, dir, sealer(t, root, "umount", two))
	require.NoDirExists(t, dir)
}

// A store with a damaged blob says which, and for whom; a name of it goes, its content goes with the next prune.
func TestInspect_Damage(t *testing.T) {
	const root = "damage"
	image := shared.Registry + "/inspect/damage:v1"
	digest := sealer(t, root, "build", "-t", image, writeContext(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f f\n", "f": "x"}))
	sealer(t, root, "tag", image, "other:v1")
	sealer(t, root, "push", image)
	sealer(t, root, "verify")
	sealer(t, root, "verify", "--remote", image)
	var d struct {
		Rootfs []struct{ Layers []struct{ Digest string } }
	}
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "inspect", image, "-o", "json")), &d))
	layer := d.Rootfs[0].Layers[0].Digest
	file := filepath.Join(shared.Dir, root, "store", "blobs", strings.Replace(layer, ":", "/", 1))
	require.NoError(t, os.WriteFile(file, []byte("other"), 0o600))
	out, stderr, code := runAny(t, root, "verify")
	require.Equal(t, 1, code)
	require.Contains(t, out, "bad: "+layer)
	require.Contains(t, out, image)
	require.Contains(t, stderr, "one blob is not what it should be")

	id := strings.TrimPrefix(digest, "sha256:")[:8]
	_, stderr, code = runAny(t, root, "rmi", id)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "has 2 names")
	sealer(t, root, "rmi", "--force", id)
	var pruned struct {
		Bytes   int64
		Removed []struct{ Digest string }
	}
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "prune", "-o", "json")), &pruned))
	require.NotEmpty(t, pruned.Removed)
	require.Positive(t, pruned.Bytes)
	require.Contains(t, sealer(t, root, "verify"), "0 bad")
}
