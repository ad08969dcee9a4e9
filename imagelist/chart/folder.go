// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"helm.sh/helm/v4/pkg/ignore"
)

// maxFiles is how many files a chart's folder may hold.
const maxFiles = 20000

// Read reads the folder dir of a chart, but for what its .helmignore names. It
// reads at most MaxSize bytes. Symbolic links are followed by fsys.
func Read(fsys fs.FS, dir string) ([]File, error) {
	rules := ignore.Empty()
	data, err := fs.ReadFile(fsys, path.Join(dir, ignore.HelmIgnore))
	switch {
	case err == nil:
		if rules, err = ignore.Parse(bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf("reading %q: %w", path.Join(dir, ignore.HelmIgnore), err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	rules.AddDefaults()
	var files []File
	left := int64(MaxSize)
	err = fs.WalkDir(fsys, dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		inside := strings.TrimPrefix(name, dir+"/")
		if dir == "." {
			inside = name
		}
		info, err := fs.Stat(fsys, name)
		if err != nil {
			return err
		}
		switch {
		case rules.Ignore(inside, info):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		case !info.Mode().IsRegular():
			return fmt.Errorf("reading %q: it is no regular file", name)
		case len(files) == maxFiles:
			return fmt.Errorf("reading %q: there are more than %d files", dir, maxFiles)
		}
		data, err := read(fsys, name, left)
		if err != nil {
			return err
		}
		left -= int64(len(data))
		files = append(files, File{Name: inside, Data: data})
		return nil
	})
	return files, err
}

func read(fsys fs.FS, name string, most int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("reading %q: the chart holds more than %d bytes", name, MaxSize)
	}
	return data, nil
}

// maxHeaders is how many files of an archive are looked at for a Chart.yaml; Helm packs it first.
const maxHeaders = 200

// IsPackage says whether an archive (.tgz) is a packaged chart.
func IsPackage(data []byte) bool {
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return false
	}
	r := tar.NewReader(io.LimitReader(unzipped, MaxSize))
	for range maxHeaders {
		header, err := r.Next()
		if err != nil {
			return false
		}
		if dir, base := path.Split(path.Clean(header.Name)); base == "Chart.yaml" && strings.Count(dir, "/") == 1 {
			return true
		}
	}
	return false
}
