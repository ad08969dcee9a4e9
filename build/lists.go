// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/sealerio/sealer/imagelist"
)

// readLists reads the lists that the command line names, and the lock where it is to be obeyed.
func (in *inputs) readLists(o Options) error {
	in.listed = slices.Clone(o.Images)
	for _, list := range o.ImageLists {
		data, err := readText(list)
		if err != nil {
			return fmt.Errorf("reading the image list: %w", err)
		}
		images, err := imagelist.ParseList(list, data)
		if err != nil {
			return err
		}
		in.listed = append(in.listed, images...)
	}
	for _, list := range o.IgnoredLists {
		data, err := readText(list)
		if err != nil {
			return fmt.Errorf("reading the list of ignored images: %w", err)
		}
		ignored, err := imagelist.ParseIgnored(list, data)
		if err != nil {
			return err
		}
		in.ignored = in.ignored.Join(ignored)
	}
	// The lock is no part of the rootfs: it would change what it describes.
	if rel, err := filepath.Rel(o.ContextDir, o.LockFile()); err == nil && filepath.IsLocal(rel) {
		in.ignore = append(in.ignore, filepath.ToSlash(rel))
	}
	if !o.Locked {
		return nil
	}
	lock, err := readLock(o)
	in.locks.obey = lock
	return err
}

func readLock(o Options) (*imagelist.Lock, error) {
	data, err := readText(o.LockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoLockError{File: o.LockFile()}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the lock: %w", err)
	}
	lock, err := imagelist.ParseLock(o.LockFile(), data)
	if err != nil {
		return nil, err
	}
	return &lock, nil
}

// LockFile is where the lock of a build lies: beside the Kubefile.
func (o Options) LockFile() string {
	return filepath.Join(filepath.Dir(o.Kubefile), imagelist.LockName)
}
