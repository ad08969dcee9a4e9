// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime/k0s"
)

// Drop-ins of another format are found before anything stops: the image's, and those that others have put on the host.
func TestUpgrade_DropIns(t *testing.T) {
	rootfs, host := t.TempDir(), t.TempDir()
	put := func(path, text string) string {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	earlier := put(filepath.Join(t.TempDir(), "drop-ins"), "gone.toml\n")
	put(filepath.Join(host, "gone.toml"), "version = 2\n") // the image's from before: it goes
	ours := put(filepath.Join(host, "sealer-registry.toml"), "version = 2\n")
	put(filepath.Join(host, "shared.toml"), "version = 2\n") // the new image brings another
	put(filepath.Join(rootfs, "etc/containerd.d/shared.toml"), "# x\nversion = 3\n")
	look := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", k0s.CheckDropIns, "sh", rootfs, host, "3", earlier, ours).CombinedOutput()
		return string(out), err
	}
	out, err := look()
	require.NoError(t, err, out)

	wrong := []string{put(filepath.Join(rootfs, "etc/containerd.d/own.toml"), "version = 2\n"), put(filepath.Join(host, "users.toml"), "[plugins]\n")}
	out, err = look()
	require.Error(t, err)
	for _, file := range wrong {
		require.Contains(t, out, file+" must begin with version = 3")
	}
}
