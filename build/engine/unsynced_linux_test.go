// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/engine"
)

// Databases that the machine left in the middle of a build are not looked into, those of a killed process are.
func TestOpen_AfterTheMachineStopped(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	note, db := filepath.Join(root, "running"), filepath.Join(root, "worker-overlayfs", "metadata_v2.db")
	var notices []string
	build := func() {
		t.Helper()
		e, err := engine.Open(t.Context(), engine.Options{
			Root: root, Snapshotter: "overlayfs", Notice: func(line string) { notices = append(notices, line) },
		})
		require.NoError(t, err)
		require.FileExists(t, note)
		out, err := export(t, e, llb.Scratch().File(llb.Mkfile("/a", 0o644, []byte("made"))))
		require.NoError(t, err)
		made, err := os.ReadFile(filepath.Join(out, "a"))
		require.NoError(t, err)
		require.Equal(t, "made", string(made))
		require.NoError(t, e.Close())
		require.NoFileExists(t, note)
	}
	build()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(note, boot[:len(boot)-1], 0o600))
	before, err := os.Stat(db)
	require.NoError(t, err)
	build()
	after, err := os.Stat(db)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "a killed process' cache is kept")
	require.Empty(t, notices)

	require.NoError(t, os.WriteFile(note, []byte("an earlier start"), 0o600))
	require.NoError(t, os.WriteFile(db, []byte("half a database"), 0o600))
	build()
	require.Len(t, notices, 1)
	require.Contains(t, notices[0], "this machine stopped in the middle of a build")
}
