// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/imagelist/chart"
)

// Result is what Discover found.
type Result struct {
	Images   []Image   // merged
	Problems []Problem // sorted by file and line
}

// Discover looks for images in the files of a cluster:
//
//   - imageList, manifests/imageList, and the imageList of an application; all of images/shim/, as sealos has them, and images/*image*.txt;
//   - Kubernetes objects in manifests/ and application/apps/NAME/: *.{yaml,yml,json}, also as .tmpl; and at the root;
//   - Helm charts below charts/, manifests/ and application/apps/NAME/, folders and .tgz, with the values of
//     CHART.values.yaml beside them, where WithCharts says what renders them;
//   - kustomizations below manifests/ and application/apps/NAME/, in place of the files that they are made of.
//
// Files that are not there are no mistake. What is there and cannot be read as an image is a Problem. An error joins
// those of all files; the Result is then what the others hold.
func Discover(ctx context.Context, fsys fs.FS, options ...Option) (Result, error) {
	d := &discovery{fsys: fsys, config: newConfig(options), left: maxTotal}
	if d.kubeVersion != "" {
		if err := chart.Check(d.kubeVersion); err != nil {
			return Result{}, err
		}
	}
	for _, folder := range []string{".", "manifests"} {
		d.list(folder)
	}
	d.shims()
	apps := d.applications()
	if d.kubeVersion == "" {
		d.kubeVersion = packedVersion(d.result.Images)
	}
	d.root()
	d.tree(ctx, "manifests", "")
	d.charts(ctx)
	for _, app := range apps {
		d.tree(ctx, path.Join(appsFolder, app), app)
	}
	d.archives()
	d.result.Images = Merge(d.result.Images)
	sortProblems(d.result.Problems)
	return d.result, errors.Join(d.errs...)
}

type discovery struct {
	config
	fsys   fs.FS
	left   int64 // how many bytes may still be read
	result Result
	errs   []error
}

const (
	listName    = "imageList"
	shimsFolder = "images/shim"
	appsFolder  = "application/apps"
	// maxTotal is how much is read of one rootfs, in bytes.
	maxTotal = 1 << 30
)

// fail takes an error for the end; files that are not there are none.
func (d *discovery) fail(err error) {
	if err != nil {
		d.errs = append(d.errs, err)
	}
}

// take takes what a file holds, for an application or for none.
func (d *discovery) take(app string, images []Image, problems []Problem) {
	for _, image := range images {
		image.App = app
		d.result.Images = append(d.result.Images, image)
	}
	d.result.Problems = append(d.result.Problems, problems...)
}

// list reads the list of a folder.
func (d *discovery) list(folder string) { d.listOf(folder, "") }

func (d *discovery) listOf(folder, app string) {
	name := path.Join(folder, listName)
	src, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		d.misspelt(folder)
		return
	}
	if err != nil {
		d.fail(err)
		return
	}
	images, err := ParseList(name, src)
	d.fail(err)
	d.take(app, images, nil)
}

// shims reads the lists of sealos' images, each of any name.
func (d *discovery) shims() {
	entries, err := fs.ReadDir(d.fsys, shimsFolder)
	if err != nil {
		return // no such folder, or its parent says why
	}
	for _, entry := range entries {
		name := path.Join(shimsFolder, entry.Name())
		if info, err := fs.Stat(d.fsys, name); err == nil && info.IsDir() {
			continue
		}
		d.listAt(name)
	}
}

// listAt reads a list that is there.
func (d *discovery) listAt(name string) {
	src, err := d.read(name)
	if err != nil {
		d.fail(err)
		return
	}
	images, err := ParseList(name, src)
	d.fail(err)
	d.take("", images, nil)
}

// applications reads the lists of the applications and returns their names.
func (d *discovery) applications() []string {
	entries, err := fs.ReadDir(d.fsys, appsFolder)
	if err != nil {
		return nil // no such folder
	}
	var names []string
	for _, entry := range entries {
		if info, err := fs.Stat(d.fsys, path.Join(appsFolder, entry.Name())); err == nil && info.IsDir() {
			names = append(names, entry.Name())
			d.listOf(path.Join(appsFolder, entry.Name()), entry.Name())
		}
	}
	return names
}

// packedVersion is the version of the kube-apiserver that lists name; empty
// where there is none, or two differ.
func packedVersion(images []Image) string {
	version := ""
	for _, image := range images {
		name, _, _ := strings.Cut(image.Name, "@")
		repository, tag, _ := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
		if repository != "kube-apiserver" || chart.Check(tag) != nil {
			continue
		}
		if version != "" && version != tag {
			return ""
		}
		version = tag
	}
	return version
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
	src, err := io.ReadAll(io.LimitReader(file, min(MaxFile, d.left)+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if len(src) > MaxFile {
		return nil, tooLarge(name, info.Size())
	}
	if d.left -= int64(len(src)); d.left < 0 {
		return nil, fmt.Errorf("reading %q: the files before it hold %d bytes, which is as much as is read", name, int64(maxTotal))
	}
	return src, nil
}
