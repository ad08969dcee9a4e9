// SPDX-License-Identifier: Apache-2.0

// Package templates holds build contexts for base ClusterImages: a Kubefile,
// scripts, units and configuration, to which programs and a list of images are added.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// shared is part of every context. all: keeps files whose names begin with a dot or an underscore.
//
//go:embed all:shared all:kubernetes all:k3s all:k0s
var contexts embed.FS

// Distributions are the names of those that have a context, sorted.
func Distributions() []string { return []string{"k0s", "k3s", "kubernetes"} }

// File is one of a context. Embedding loses file modes: scripts have 0755, all else 0644.
type File struct {
	Name string // with slashes, relative to the context
	Data []byte
	Mode fs.FileMode
}

// Files are those of a distribution's context, sorted by name: its own, and the scripts that all share.
func Files(distribution string) ([]File, error) {
	if !slices.Contains(Distributions(), distribution) {
		return nil, fmt.Errorf("there is no build context for %q, only for %s", distribution, strings.Join(Distributions(), ", "))
	}
	var files []File
	for _, top := range []string{"shared", distribution} {
		err := fs.WalkDir(contexts, top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := fs.ReadFile(contexts, path)
			mode := fs.FileMode(0o644)
			if strings.HasSuffix(path, ".sh") {
				mode = 0o755
			}
			files = append(files, File{Name: strings.TrimPrefix(path, top+"/"), Data: data, Mode: mode})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// Write puts files into dir, which is made where it is missing. A file that is there already is an error
// and stays as it is.
func Write(files []File, dir string) error {
	for _, file := range files {
		target := filepath.Join(dir, filepath.FromSlash(file.Name))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("making a folder of the context: %w", err)
		}
		if err := writeNew(target, file.Data, file.Mode); err != nil {
			return err
		}
	}
	return nil
}

func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a file of the context: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close()) // Chmod: the umask may have taken bits away
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}
