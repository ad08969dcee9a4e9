// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Result is what Discover found.
type Result struct {
	Images   []Image   // merged
	Problems []Problem // sorted by file and line
}

// Discover looks for images in the files of a cluster: imageList,
// manifests/imageList, and manifests/**/*.{yaml,yml,json}, also as .tmpl. Files
// that are not there are no mistake. An error joins those of all files; the
// Result is then what the others hold.
func Discover(fsys fs.FS) (Result, error) {
	d := &discovery{fsys: fsys}
	for _, folder := range []string{".", "manifests"} {
		d.list(folder)
	}
	d.manifests()
	d.result.Images = Merge(d.result.Images)
	sortProblems(d.result.Problems)
	return d.result, errors.Join(d.errs...)
}

type discovery struct {
	fsys   fs.FS
	result Result
	errs   []error
}

const listName = "imageList"

// list reads the list of a folder.
func (d *discovery) list(folder string) {
	name := path.Join(folder, listName)
	src, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		d.misspelt(folder)
		return
	}
	if err != nil {
		d.errs = append(d.errs, err)
		return
	}
	images, err := ParseList(name, src)
	if err != nil {
		d.errs = append(d.errs, err)
	}
	d.result.Images = append(d.result.Images, images...)
}

// misspelt reports a file that was probably meant to be the list.
func (d *discovery) misspelt(folder string) {
	entries, err := fs.ReadDir(d.fsys, folder)
	if err != nil {
		return // the folder is not there, or manifests reports it
	}
	for _, entry := range entries {
		if base := strings.TrimSuffix(entry.Name(), ".txt"); strings.EqualFold(base, listName) && !entry.IsDir() {
			d.problem(path.Join(folder, entry.Name()), "the file is not read (did you mean "+listName+"?)")
		}
	}
}

func (d *discovery) problem(file, message string) {
	d.result.Problems = append(d.result.Problems, Problem{File: file, Line: 1, Message: message})
}

func (d *discovery) manifests() {
	err := fs.WalkDir(d.fsys, "manifests", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == "manifests":
			return fs.SkipAll
		case err != nil:
			d.errs = append(d.errs, err)
			return nil
		case entry.Type()&fs.ModeSymlink != 0:
			d.link(name)
			return nil
		case !entry.IsDir() && isManifest(name):
			d.manifest(name)
		}
		return nil
	})
	if err != nil {
		d.errs = append(d.errs, err)
	}
}

// link follows a symbolic link to a file, but not to a folder.
func (d *discovery) link(name string) {
	info, err := fs.Stat(d.fsys, name)
	switch {
	case err == nil && info.IsDir():
		d.problem(name, "the symbolic link leads to a folder, which is not looked into")
	case !isManifest(name):
	case err != nil:
		d.problem(name, "the symbolic link leads nowhere")
	default:
		d.manifest(name)
	}
}

func (d *discovery) manifest(name string) {
	src, err := d.read(name)
	if err != nil {
		d.errs = append(d.errs, err)
		return
	}
	images, problems, err := ParseManifests(name, src)
	if err != nil {
		d.errs = append(d.errs, err)
	}
	d.result.Images = append(d.result.Images, images...)
	d.result.Problems = append(d.result.Problems, problems...)
}

// isManifest goes by the name; a template without another extension is one too.
func isManifest(name string) bool {
	base, isTemplate := strings.CutSuffix(path.Base(name), ".tmpl")
	extensions := []string{".yaml", ".yml", ".json"}
	if isTemplate {
		extensions = append(extensions, "")
	}
	return slices.Contains(extensions, strings.ToLower(path.Ext(base)))
}

// read reads a file of at most MaxFile bytes.
func (d *discovery) read(name string) ([]byte, error) {
	info, err := fs.Stat(d.fsys, name) // before it is opened: that could wait, with a pipe
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %q: it is no regular file", name)
	}
	file, err := d.fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	defer file.Close()
	src, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if len(src) > MaxFile {
		return nil, tooLarge(name, info.Size())
	}
	return src, nil
}
