// SPDX-License-Identifier: Apache-2.0

// Package templates holds build contexts for base ClusterImages: a Kubefile,
// scripts, units and configuration, to which binaries are added.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// all: keeps files whose names begin with a dot or an underscore.
//
//go:embed all:kubernetes
var contexts embed.FS

// Kubernetes is the context of a base ClusterImage for kubeadm's Kubernetes, 1.31 to 1.36.
func Kubernetes() (fs.FS, error) { return fs.Sub(contexts, "kubernetes") }

// Write puts a context into dir, which is made where it is missing. Embedding
// loses file modes: scripts get 0755, all else 0644. A file that is there already is an
// error and stays as it is.
func Write(context fs.FS, dir string) error {
	return fs.WalkDir(context, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(path))
		if entry.IsDir() {
			if err := os.MkdirAll(target, 0o755); err != nil {
				return fmt.Errorf("making a folder of the context: %w", err)
			}
			return nil
		}
		data, err := fs.ReadFile(context, path)
		if err != nil {
			return err
		}
		return writeNew(target, data)
	})
}

func writeNew(path string, data []byte) error {
	mode := fs.FileMode(0o644)
	if strings.HasSuffix(path, ".sh") {
		mode = 0o755
	}
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
