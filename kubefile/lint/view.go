// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/kubefile"
)

// view is what the build context puts into the cluster's files, as far as the
// rules care: lists, manifests, and the programs that make it a distribution.
type view struct {
	files   map[string]string // by path below the root of the cluster's files: the path in the context
	folders map[string]bool
	whole   bool // nothing else puts files there: no RUN, no other stage, no base
}

// placed returns the view of the last stage.
func (s *subject) placed() *view {
	if s.view != nil {
		return s.view
	}
	v := &view{files: map[string]string{}, folders: map[string]bool{}, whole: s.last().root() == "scratch"}
	s.view = v
	if !v.whole { // a base has the folder of the lists
		v.folders["manifests"] = true
	}
	if s.Context == nil {
		v.whole = false
		return v
	}
	left := maxWalk
	for _, t := range s.last().chain() {
		workdir := "/"
		for _, line := range t.lines {
			switch c := line.(type) {
			case *kubefile.Workdir:
				workdir = path.Join(workdir, c.Path)
				if path.IsAbs(c.Path) {
					workdir = path.Clean(c.Path)
				}
			case *kubefile.Copy:
				v.whole = v.whole && c.From == "" && !c.Parents && len(c.Heredocs) == 0
				v.copy(s, localSources(c), c.Dest, workdir, &left)
			case *kubefile.Add:
				v.whole = v.whole && len(localSources(c)) == len(c.Sources) && len(c.Heredocs) == 0
				v.copy(s, localSources(c), c.Dest, workdir, &left)
			case *kubefile.App:
				v.copy(s, localSources(c), clusterimage.ApplicationDir(c.Name)+"/", "/", &left)
			case *kubefile.Run:
				v.whole = false
			}
		}
	}
	v.whole = v.whole && left > 0
	return v
}

// copy notes where the files of an instruction go.
func (v *view) copy(s *subject, sources []string, dest, workdir string, left *int) {
	dest = kubefile.Destination(workdir, dest)
	isFolder := strings.HasSuffix(dest, "/")
	dest = contextPath(dest)
	for _, source := range sources {
		for _, found := range s.find(contextPath(source)) {
			info, err := fs.Stat(s.Context, found)
			if err != nil {
				continue
			}
			if !info.IsDir() {
				target := dest
				if isFolder || v.folders[dest] || dest == "." || len(sources) > 1 {
					target = path.Join(dest, path.Base(found))
				}
				v.put(s, found, target)
				continue
			}
			err = fs.WalkDir(s.Context, found, func(name string, entry fs.DirEntry, err error) error {
				*left--
				switch {
				case *left < 0:
					return fs.SkipAll
				case err != nil:
					return nil // what cannot be read is the build's to say
				}
				rel := strings.TrimPrefix(strings.TrimPrefix(name, found), "/")
				if found == "." {
					rel = name
				}
				below := dest
				if strings.ContainsAny(path.Base(source), "*?[") { // a folder that a pattern finds keeps its name
					below = path.Join(dest, path.Base(found))
				}
				target := path.Join(below, rel)
				if entry.IsDir() {
					v.folders[target] = true
					return nil
				}
				v.put(s, name, target)
				return nil
			})
			if err != nil {
				*left = -1
			}
		}
	}
}

func (v *view) put(s *subject, name, target string) {
	if s.isIgnored(name) {
		return
	}
	for folder := path.Dir(target); folder != "."; folder = path.Dir(folder) {
		v.folders[folder] = true
	}
	v.files[target] = name
}

// isList says whether a path of the cluster's files is a list of images.
func isList(target string) bool {
	if folder, base := path.Split(target); base == "imageList" {
		inApp, err := path.Match("application/apps/*/", folder)
		return folder == "" || folder == "manifests/" || inApp && err == nil
	}
	text, err := path.Match("images/*image*.txt", target)
	return text && err == nil || strings.HasPrefix(target, "images/shim/")
}

// lists are the files of the context that become lists of images, sorted.
func (v *view) lists() []string { return v.pick(isList) }

// manifests are those that may name images otherwise.
func (v *view) manifests() []string {
	return v.pick(func(target string) bool {
		folder, _, _ := strings.Cut(target, "/")
		return slices.Contains([]string{"manifests", "charts", "application"}, folder) && !isList(target)
	})
}

// looksLikeBase says whether scripts or settings of a node are there.
func (v *view) looksLikeBase() bool {
	found := v.pick(func(target string) bool {
		return slices.Contains([]string{"scripts/init-kube.sh", "scripts/init.sh", "scripts/containerd.sh", "scripts/docker.sh", "etc/kubelet.service"}, target) ||
			strings.HasPrefix(target, "etc/kubeadm.y")
	})
	return len(found) > 0
}

func (v *view) pick(want func(target string) bool) []string {
	var names []string
	for target, name := range v.files {
		if want(target) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// content is a file of the context, or a list that was given; nil where it
// cannot be read or is too large.
func (o Options) content(name string) []byte {
	for _, list := range o.Lists {
		if list.Name == name {
			return list.Content
		}
	}
	if o.Context == nil {
		return nil
	}
	info, err := fs.Stat(o.Context, name)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	file, err := o.Context.Open(name)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	src, err := io.ReadAll(io.LimitReader(file, imagelist.MaxFile+1))
	if err != nil || len(src) > imagelist.MaxFile {
		return nil
	}
	return src
}
