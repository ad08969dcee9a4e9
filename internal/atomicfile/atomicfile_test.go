// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/atomicfile"
)

func TestWrite_ReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, atomicfile.Write(path, []byte("old and longer"), 0o644))
	require.NoError(t, atomicfile.Write(path, []byte("new"), 0o600))

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestCreate_AbortKeepsTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	f, err := atomicfile.Create(path, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString("half")
	require.NoError(t, err)
	require.NoError(t, f.Abort())

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	requireAlone(t, path)
}

func TestCreate_AbortAfterCommitDoesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := atomicfile.Create(path, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString("x")
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	require.NoError(t, f.Abort())
	require.FileExists(t, path)
	requireAlone(t, path)
}

func TestWrite_FolderMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "f")
	require.ErrorIs(t, atomicfile.Write(path, nil, 0o600), fs.ErrNotExist)
}

func TestWrite_TargetIsAFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "full"), 0o755))
	require.ErrorContains(t, atomicfile.Write(path, []byte("x"), 0o600), path)
	requireAlone(t, path)
}

// requireAlone checks that no temporary file was left beside path.
func requireAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
