// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTemporaryFolder(t *testing.T) {
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	killed := filepath.Join(base, temporaryPrefix+"1")
	require.NoError(t, os.MkdirAll(filepath.Join(killed, "buildkit-mount1"), 0o700))
	foreign := filepath.Join(base, "foreign")
	require.NoError(t, os.Mkdir(foreign, 0o700))
	require.NoError(t, os.Symlink(foreign, filepath.Join(base, temporaryPrefix+"2")))

	first, removeFirst, err := temporaryFolder()
	require.NoError(t, err)
	require.NoDirExists(t, killed)
	require.DirExists(t, foreign)
	second, removeSecond, err := temporaryFolder()
	require.NoError(t, err)
	require.DirExists(t, first, "it is in use")
	require.NoError(t, removeFirst())
	require.NoDirExists(t, first)
	require.DirExists(t, second)
	require.NoError(t, removeSecond())
	require.NoDirExists(t, second)
}

func TestTemporaryFolder_ManyAtOnce(t *testing.T) {
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				dir, remove, err := temporaryFolder()
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
					t.Error("somebody else has removed it:", err)
				}
				if err := remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, entries)
}
