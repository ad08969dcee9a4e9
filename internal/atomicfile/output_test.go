// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/atomicfile"
)

func TestOutput_NamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	read := make(chan string, 1)
	go func() {
		data, err := os.ReadFile(path)
		if err != nil {
			data = []byte(err.Error())
		}
		read <- string(data)
	}()
	require.NoError(t, atomicfile.WriteOutput(path, []byte("through it"), 0o644))
	require.Equal(t, "through it", <-read)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeNamedPipe, info.Mode().Type())
	requireAlone(t, path)
}

func TestOutput_Device(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))); err != nil { // null(4)
		t.Skipf("devices cannot be made here: %v", err)
	}
	err := atomicfile.WriteOutput(path, []byte("x"), 0o644)
	if err != nil && os.IsPermission(err) {
		t.Skipf("devices cannot be opened here: %v", err)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeDevice|fs.ModeCharDevice, info.Mode().Type())
	requireAlone(t, path)
}

func TestOutput_LinksStay(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for _, link := range []struct{ name, to string }{{"a", "sub/b"}, {"sub/b", "c"}, {"loop", "loop"}} {
		require.NoError(t, os.Symlink(link.to, filepath.Join(dir, link.name)))
	}
	for _, text := range []string{"made", "replaced"} {
		require.NoError(t, atomicfile.WriteOutput(filepath.Join(dir, "a"), []byte(text), 0o600))
		got, err := os.ReadFile(filepath.Join(dir, "sub", "c"))
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		to, err := os.Readlink(filepath.Join(dir, "a"))
		require.NoError(t, err)
		require.Equal(t, "sub/b", to)
	}
	require.ErrorContains(t, atomicfile.WriteOutput(filepath.Join(dir, "loop"), nil, 0o600), "too many symbolic links")
}

func TestOutput_OpenFileOfThisProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, atomicfile.WriteOutput(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []byte("x"), 0o600))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}

func TestOutput_FolderIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	_, err := atomicfile.Output(dir, 0o600)
	require.EqualError(t, err, `writing "`+dir+`": it is a folder, name a file in it`)
}
