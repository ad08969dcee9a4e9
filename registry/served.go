// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Served are all tags in the registry folder dir, as REPOSITORY:TAG, sorted. Nothing is served from a folder that is not there.
func Served(dir string) ([]string, error) {
	root := filepath.Join(dir, filepath.FromSlash(treeRoot), "repositories")
	list := []string{} // [] in JSON, not null
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is none, or it has just gone
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		switch entry.Name() {
		case "_layers", "_uploads":
			return filepath.SkipDir
		case "_manifests":
		default:
			return nil
		}
		repository, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		tags, err := os.ReadDir(filepath.Join(file, "tags"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, tag := range tags {
			if _, err := os.Stat(filepath.Join(file, "tags", tag.Name(), "current", "link")); err == nil && !strings.HasPrefix(tag.Name(), ".") {
				list = append(list, path.Clean(filepath.ToSlash(repository))+":"+tag.Name())
			}
		}
		return filepath.SkipDir
	})
	if err != nil {
		return nil, fmt.Errorf("listing the images of a registry: %w", err)
	}
	slices.Sort(list)
	return list, nil
}
