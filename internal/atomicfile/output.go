// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links are followed, as by the kernel (path_resolution(7)).
const maxLinks = 40

// Output is Create for a path that a user named, which may be more than a file to be: a symbolic link stays one, and the
// file behind it is replaced; a named pipe or a device is opened (a pipe waits for its reader) and written in place. A
// folder is refused.
func Output(path string, mode fs.FileMode) (*File, error) {
	target, err := follow(path)
	if err != nil {
		return nil, fmt.Errorf("writing %q: %w", path, err)
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && !inProc(target):
		return Create(target, mode)
	case err != nil:
		return nil, fmt.Errorf("writing %q: %w", path, err)
	case info.IsDir():
		return nil, fmt.Errorf("writing %q: it is a folder, name a file in it", path)
	}
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path, direct: true}, nil
}

// WriteOutput is Write for such a path.
func WriteOutput(path string, data []byte, mode fs.FileMode) error {
	f, err := Output(path, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, err), f.Abort())
	}
	return f.Commit()
}

// follow returns what symbolic links at path lead to, which need not be there. Those of /proc stay as they are: they are
// open files of a process, as behind /dev/stdout, and what they say is no path.
func follow(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 || inProc(path) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", errors.New("too many symbolic links")
}

func inProc(path string) bool { return strings.HasPrefix(path, "/proc/") }
