// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const temporaryPrefix = "sealer-build-"

// temporaryFolder makes a folder for the temporary files of one build. Who has one holds its lock until it calls remove; the folders that nobody
// holds are of builds that were killed, and are removed.
func temporaryFolder() (dir string, remove func() error, err error) {
	sweepTemporary()
	for range 10 { // another build may just have taken the new folder for one that was left
		dir, err := os.MkdirTemp("", temporaryPrefix)
		if err != nil {
			return "", nil, fmt.Errorf("making a folder for temporary files: %w", err)
		}
		f, err := lockFolder(dir)
		if err == nil {
			return dir, func() error { return errors.Join(os.RemoveAll(dir), f.Close()) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist) {
			return "", nil, errors.Join(fmt.Errorf("locking a folder for temporary files: %w", err), os.Remove(dir))
		}
	}
	return "", nil, fmt.Errorf("making a folder for temporary files: those in %s are removed at once", os.TempDir())
}

// sweepTemporary does what it can: what is left behind is no more than empty mount points.
func sweepTemporary() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*")) // a folder whose name is a pattern is not swept
	for _, dir := range left {
		if f, err := lockFolder(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = f.Close()
		}
	}
}

// lockFolder locks a folder of this user's own, without waiting, and sees to it that it is still there.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := lockOwn(f, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lockOwn(f *os.File, dir string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return err
	}
	if int(stat.Uid) != os.Geteuid() {
		return os.ErrPermission
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	held, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !os.SameFile(held, there) {
		return os.ErrNotExist
	}
	return nil
}
