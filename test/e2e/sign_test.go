//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// An image is signed here, and its signature verified there: after a push and
// a pull, in the registry, and after an archive.
func TestSign(t *testing.T) {
	const root, site = "sign", "sign-site"
	t.Setenv("COSIGN_PASSWORD", "open sesame")
	keys := t.TempDir()
	key, other := filepath.Join(keys, "cosign"), filepath.Join(keys, "other")
	sealer(t, root, "sign", "--generate-key", "--output-key-prefix", key)
	sealer(t, root, "sign", "--generate-key", "--output-key-prefix", other)
	_, stderr, code := runAny(t, root, "sign", "--generate-key", "--output-key-prefix", key)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "file already exists")

	image := shared.Registry + "/sign/shop:v1"
	sealer(t, root, "build", "-t", image, writeContext(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f f\n", "f": "x"}))
	_, stderr, code = runAny(t, root, "verify", "--key", key+".pub", image)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "has no signature")
	sealer(t, root, "sign", "--key", key+".key", "-a", "release=1", image)
	require.NotContains(t, sealer(t, root, "images"), ".sig")
	require.Contains(t, sealer(t, root, "inspect", image), "not verified")
	sealer(t, root, "push", image)
	sealer(t, root, "verify", "--remote", "--key", key+".pub", image)

	sealer(t, site, "pull", image)
	require.Contains(t, sealer(t, site, "verify", "--key", other+".pub", "--key", key+".pub", "-a", "release=1", image), "release=1")
	_, stderr, code = runAny(t, site, "verify", "--key", key+".pub", "-a", "release=2", image)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "release=2")
	_, stderr, code = runAny(t, site, "verify", "--key", other+".pub", image)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "was not made with")

	// Somebody signs what is in the registry; both signatures are there.
	sealer(t, "sign-third", "sign", "--remote", "--key", other+".key", image)
	sealer(t, root, "verify", "--remote", "--key", other+".pub", image)
	sealer(t, root, "verify", "--remote", "--key", key+".pub", image)

	archive := filepath.Join(t.TempDir(), "shop.tar")
	sealer(t, root, "save", image, "-o", archive)
	sealer(t, "sign-disk", "load", "-i", archive)
	sealer(t, "sign-disk", "verify", "--key", key+".pub", image)

	// A wrong password, and one that is asked for where nobody can answer.
	t.Setenv("COSIGN_PASSWORD", "wrong")
	_, stderr, code = runAny(t, root, "sign", "--key", key+".key", image)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the password is wrong")
	cmd := exec.CommandContext(t.Context(), "env", "-u", "COSIGN_PASSWORD", shared.Sealer(), "sign", "--root", filepath.Join(shared.Dir, root), "--key", key+".key", image)
	var text bytes.Buffer
	cmd.Stderr = &text
	require.Error(t, cmd.Run())
	require.Equal(t, 2, cmd.ProcessState.ExitCode())
	require.Contains(t, text.String(), "COSIGN_PASSWORD")
}
