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

	"github.com/opencontainers/go-digest"
)

// Served are all tags in the registry folder dir, as REPOSITORY:TAG, and all manifests, as REPOSITORY@DIGEST, whether a tag leads to them or
// not; both are sorted. Nothing is served from a folder that is not there.
func Served(dir string) (tags, manifests []string, err error) {
	root := filepath.Join(dir, filepath.FromSlash(treeRoot), "repositories")
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
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
		name := path.Clean(filepath.ToSlash(repository))
		there, err := os.ReadDir(filepath.Join(file, "tags"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, tag := range there {
			if _, err := os.Stat(filepath.Join(file, "tags", tag.Name(), "current", "link")); err == nil && !strings.HasPrefix(tag.Name(), ".") {
				tags = append(tags, name+":"+tag.Name())
			}
		}
		links, err := filepath.Glob(filepath.Join(file, "revisions", "*", "*", "link"))
		if err != nil {
			return err
		}
		for _, link := range links {
			dir := filepath.Dir(link)
			d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(dir))), filepath.Base(dir))
			if d.Validate() == nil {
				manifests = append(manifests, name+"@"+d.String())
			}
		}
		return filepath.SkipDir
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the images of a registry: %w", err)
	}
	slices.Sort(tags)
	slices.Sort(manifests)
	return tags, manifests, nil
}
