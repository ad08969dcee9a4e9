//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A lock is written, obeyed on another store without a question for a tag, and found wrong when the list changes; an archive
// that skopeo saved is packed without a registry.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	const image, saved = "docker.io/sealer-test/multi:v1", "docker.io/sealer-test/hello:v1"
	write("Kubefile", "FROM scratch\nCOPY imageList manifests/\n")
	write("imageList", image+"\ndocker-archive:hello.tar\n")
	command(t, "skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "docker://"+shared.Registry+"/docker.io/sealer-test/hello:v1", "docker-archive:"+dir+"/hello.tar:"+saved)

	name := shared.Registry + "/lock/test:v1"
	first := sealer(t, "lock-one", "build", "-t", name, "--lock", dir)
	lock, err := os.ReadFile(filepath.Join(dir, "imageList.lock"))
	require.NoError(t, err)
	require.Contains(t, string(lock), "source: docker-archive:hello.tar")

	log, err := shared.AccessLog()
	require.NoError(t, err)
	before := len(log)
	require.Equal(t, first, sealer(t, "lock-one", "build", "-t", name, "--locked", dir))
	require.Equal(t, first, sealer(t, "lock-two", "build", "-t", name, "--locked", dir))
	log, err = shared.AccessLog()
	require.NoError(t, err)
	require.NotContains(t, string(log[before:]), "HEAD /v2/")
	require.NotContains(t, string(log[before:]), "/manifests/v1")

	sealer(t, "lock-one", "lock", "--check", dir)
	require.NoError(t, os.Remove(filepath.Join(dir, "imageList.lock")))
	sealer(t, "lock-one", "lock", dir)
	again, err := os.ReadFile(filepath.Join(dir, "imageList.lock"))
	require.NoError(t, err)
	require.Equal(t, string(lock), string(again))

	write("imageList", saved+"\n"+image+" platform=linux/arm64\n")
	cmd := shared.Command(t.Context(), "lock-one", "lock", "--check", "-o", "json", dir)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	require.Error(t, cmd.Run())
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
	var changes []struct{ Kind, Name string }
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &changes))
	require.NotEmpty(t, changes)

	cmd = shared.Command(t.Context(), "lock-one", "build", "-t", name, "--locked", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.Error(t, cmd.Run())
	require.Contains(t, stderr.String(), "(manifests/imageList:")
	require.Contains(t, stderr.String(), "is not in")
}
