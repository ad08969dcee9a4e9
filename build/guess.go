// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"io/fs"
	"path"
	"strings"

	"github.com/sealerio/sealer/imagelist"
)

// imagesInContext is a guess at what the rootfs will ask for: the lists and manifests that COPY lines bring from the
// context, and the archives that they name or are. It says nothing of what it cannot read.
func (p *packer) imagesInContext(ctx context.Context) ([]imagelist.Image, []sourced) {
	var out []imagelist.Image
	var archives []sourced
	for _, c := range p.in.contexts {
		for _, source := range c.Sources {
			if strings.ContainsAny(source, "*?[$") || strings.Contains(source, "://") {
				continue
			}
			view, ok := place(p.context, strings.TrimPrefix(path.Join("/", source), "/"), c.Dest)
			if !ok {
				continue
			}
			result, _ := imagelist.Discover(ctx, view, p.o.discovery()...) // the build itself says what is wrong
			out = append(out, fromRegistries(result.Images)...)
			for _, s := range sources(result.Images, false, p.context, view) {
				if s.found { // it lies where it was found, not yet where it will be
					s.files = s.files[1:]
				}
				archives = append(archives, s)
			}
		}
	}
	return imagelist.Merge(out), archives
}

// place shows a file or a folder of the context as if it were alone in the rootfs, where COPY would put it.
func place(context fs.FS, source, dest string) (fs.FS, bool) {
	source = path.Join(".", source)
	info, err := fs.Stat(context, source)
	if err != nil {
		return nil, false
	}
	at := strings.TrimPrefix(path.Join("/", dest), "/")
	p := placed{at: at}
	folder := source
	if !info.IsDir() {
		p.only, folder = path.Base(source), path.Dir(source)
		if path.Base(at) == p.only {
			p.at = strings.TrimSuffix(strings.TrimSuffix(at, p.only), "/")
		}
	}
	p.files, err = fs.Sub(context, folder)
	return p, err == nil && (info.IsDir() || info.Mode().IsRegular())
}

// placed is a folder, or one file of it, below another.
type placed struct {
	at    string // "": the root
	files fs.FS
	only  string // "": all
}

func (p placed) Open(name string) (fs.File, error) {
	inner, ok := name, true
	if p.at != "" {
		if inner, ok = strings.CutPrefix(name+"/", p.at+"/"); ok {
			inner = path.Clean(inner)
		}
	}
	if !ok || p.only != "" && inner != p.only && inner != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return p.files.Open(inner)
}

// ReadDir leaves out what is not shown.
func (p placed) ReadDir(name string) ([]fs.DirEntry, error) {
	if p.at != "" && (name == "." || strings.HasPrefix(p.at, name+"/")) {
		return nil, nil // what leads there; nobody looks for it by listing
	}
	f, err := p.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	dir, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	all, err := dir.ReadDir(-1)
	var out []fs.DirEntry
	for _, e := range all {
		if p.only == "" || e.Name() == p.only {
			out = append(out, e)
		}
	}
	return out, err
}
