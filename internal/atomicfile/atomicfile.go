// SPDX-License-Identifier: Apache-2.0

// Package atomicfile writes files that appear whole or not at all, also when
// the machine loses power in the middle: temporary file in the same folder,
// fsync, rename, fsync of the folder.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path with data. The folder must exist. On any
// error the old file, if there was one, is still there and no temporary file is left.
func Write(path string, data []byte, mode fs.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, err), f.Abort())
	}
	return f.Commit()
}

// File is a file on its way to path. Exactly one of Commit and Abort ends it;
// Abort after Commit does nothing, so that it can be deferred.
type File struct {
	*os.File
	path   string
	direct bool // it is written in place: see Output
	done   bool
}

// Create opens a temporary file beside path, with the given mode.
func Create(path string, mode fs.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("creating a temporary file for %q: %w", path, err)
	}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the mode of %q: %w", f.Name(), err), f.Close(), os.Remove(f.Name()))
	}
	return &File{File: f, path: path}, nil
}

// Commit makes the file durable and gives it its name.
func (f *File) Commit() error {
	if f.done {
		return nil
	}
	if err := f.CommitUnlisted(); err != nil || f.direct {
		return err
	}
	return SyncFolder(filepath.Dir(f.path))
}

// CommitUnlisted is Commit without the last step: until SyncFolder was called, a machine that loses power may forget the
// file. It is never there in part. With it, many files need the folder to be synced once.
func (f *File) CommitUnlisted() error {
	if f.done {
		return nil
	}
	f.done = true
	if f.direct {
		return f.Close()
	}
	err := f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr // a full disk may show only here
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", f.path, err), removeIfThere(f.Name()))
	}
	return nil
}

// Abort throws the temporary file away.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	if f.direct {
		return f.Close()
	}
	return errors.Join(f.Close(), removeIfThere(f.Name()))
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncFolder makes the names in a folder durable.
func SyncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %q to sync it: %w", dir, err)
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
