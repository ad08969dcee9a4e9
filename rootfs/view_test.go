// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/rootfs"
)

func TestShow(t *testing.T) {
	needRoot(t)
	bothDrivers(t, func(t *testing.T, driver string) {
		dir := t.TempDir()
		s := open(t, filepath.Join(dir, "storage"), driver)
		st := newStore(t)
		img := image(t, st, layer(t, file("a", "one")))
		look := must(s.Show(t.Context(), st.Content(), img, rootfs.View{Dir: filepath.Join(dir, "look"), Image: "x:1", Digest: img.Digest.String()}))
		t.Cleanup(func() { _ = s.Hide(t.Context(), look) })
		require.True(t, look.Mounted)
		require.Equal(t, "one", read(t, look.Dir, "a"))
		require.ErrorIs(t, os.WriteFile(filepath.Join(look.Dir, "b"), nil, 0o600), unix.EROFS)

		change := must(s.Show(t.Context(), st.Content(), img, rootfs.View{Dir: filepath.Join(dir, "change"), Writable: true}))
		require.NoError(t, os.WriteFile(filepath.Join(change.Dir, "a"), []byte("two"), 0o600))
		require.Equal(t, "one", read(t, look.Dir, "a"), "each has what was written to itself")
		views := must(s.Views(t.Context()))
		require.Len(t, views, 2)
		require.Equal(t, change, views[0])
		require.Equal(t, look, views[1])

		// A folder with something in it is left alone.
		used := filepath.Join(dir, "used")
		require.NoError(t, os.MkdirAll(filepath.Join(used, "x"), 0o755))
		_, err := s.Show(t.Context(), st.Content(), img, rootfs.View{Dir: used})
		require.ErrorIs(t, err, fs.ErrExist)

		// A reboot takes mounts away, and not their records.
		require.NoError(t, unix.Unmount(change.Dir, 0))
		require.False(t, must(s.Views(t.Context()))[0].Mounted)
		require.Equal(t, 1, must(s.Sweep(t.Context())))
		require.NoError(t, s.Hide(t.Context(), look))
		require.NoError(t, s.Hide(t.Context(), look), "twice")
		require.NoDirExists(t, look.Dir)
		require.Empty(t, must(s.Views(t.Context())))
		require.Empty(t, must(s.Names(t.Context())))
	})
}
