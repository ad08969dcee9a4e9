// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

const (
	archivesFolder = "images"
	// skopeoFolder holds what sealos' contexts name in tar.txt: docker-archive:FILE@NAME a line, FILE relative to the folder.
	skopeoFolder = "images/skopeo"
	skopeoList   = "tar.txt"
)

// archives reports files that hold images: those in images/, k3s' and RKE2's own beside the root's files, and those of
// images/skopeo/tar.txt. images/*image*.txt are lists, such as k3s-images.txt of a release; other text need not be one.
func (d *discovery) archives() {
	texts, err := fs.Glob(d.fsys, archivesFolder+"/*image*.txt")
	d.fail(err)
	for _, name := range texts {
		d.listAt(name)
	}
	d.archivesIn(archivesFolder, func(string) bool { return true })
	d.archivesIn(".", func(name string) bool { return strings.Contains(name, "-airgap-images") })
	list := path.Join(skopeoFolder, skopeoList)
	src, err := d.read(list)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var images []Image
	if err == nil {
		images, err = ParseList(list, src)
	}
	if err != nil {
		d.errs = append(d.errs, err)
	}
	for _, image := range images {
		if image.Source != "" {
			image.Source = within(skopeoFolder, image.Source)
		}
		d.result.Images = append(d.result.Images, image)
	}
}

func (d *discovery) archivesIn(folder string, wanted func(name string) bool) {
	entries, err := fs.ReadDir(d.fsys, folder)
	if err != nil {
		return // no such folder, or manifests reports it
	}
	for _, entry := range entries {
		name := path.Join(folder, entry.Name())
		if !IsArchive(name) || !wanted(entry.Name()) {
			continue
		}
		if info, err := fs.Stat(d.fsys, name); err != nil || !info.Mode().IsRegular() {
			d.problem(name, "it has the name of an archive of images and is no regular file")
			continue
		}
		d.result.Images = append(d.result.Images, Image{Source: "archive:" + name, Origins: []Origin{{File: name, Line: 1}}})
	}
}

// IsArchive tells whether a file has the name of an archive that is read: .tar, .tar.gz, .tgz, .tar.zst.
func IsArchive(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}
