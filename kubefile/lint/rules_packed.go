// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/kubefile"
)

// packedRules are about the images that are packed: of lists and manifests.
func packedRules() []Rule {
	deployment := func(image string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, image: " + image + "}\n"
	}
	const list, manifests = "FROM scratch\nCOPY imageList manifests/\n", "FROM scratch\nCOPY manifests manifests\n"
	return []Rule{
		{
			Name: "imagelist-invalid", Severity: Error,
			Summary: "a line of an image list is no reference",
			Why:     "The build stops there. A line is one reference, perhaps with platform=OS/ARCH behind it; # begins a comment.",
			Bad:     Example{Kubefile: list, Files: map[string]string{"imageList": "- nginx:1.27\n"}},
			Good:    Example{Kubefile: list, Files: map[string]string{"imageList": "nginx:1.27\n"}},
			check: func(s *subject) {
				s.eachList(func(name string, src []byte) {
					_, err := imagelist.ParseList(name, src)
					s.addErrors(err)
				})
			},
		},
		{
			Name: "imagelist-misplaced", Severity: Error,
			Summary: "an image list goes where nothing reads it",
			Why:     "Lists are read from imageList and manifests/imageList. Write COPY imageList manifests/.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY imageList lists/\nCMD kubectl get nodes\n", Files: map[string]string{"imageList": "nginx:1.27\n"}},
			Good:    Example{Kubefile: list, Files: map[string]string{"imageList": "nginx:1.27\n"}},
			check: func(s *subject) {
				lost := map[string]string{} // where a list goes, by its place in the context
				for target, name := range s.placed().files {
					if path.Base(name) == "imageList" && !isList(target) {
						lost[name] = target
					}
				}
				for target, name := range s.placed().files {
					if isList(target) {
						delete(lost, name)
					}
				}
				for _, t := range s.last().chain() {
					for i, line := range t.lines {
						c, ok := line.(*kubefile.Copy)
						if !ok || c.From != "" {
							continue
						}
						for _, source := range c.Sources {
							if target := lost[contextPath(source)]; target != "" {
								s.report(t.Instructions[i], c.Dest, "the list becomes "+target+", which nothing reads: write COPY "+source+" manifests/")
							}
						}
					}
				}
			},
		},
		{
			Name: "packed-image-unpinned", Severity: Warning,
			Summary: "an image list names an image without a tag, or with the tag latest",
			Why:     "Each build packs something else under the same name, and nobody can tell which. Name a version or a digest.",
			Bad:     Example{Kubefile: list, Files: map[string]string{"imageList": "nginx\n"}},
			Good:    Example{Kubefile: list, Files: map[string]string{"imageList": "nginx:1.27\n"}},
			check: func(s *subject) {
				s.eachImage(func(image imagelist.Image, at imagelist.Origin) {
					if strings.HasSuffix(image.Name, ":latest") {
						s.there(at, image.Name+" has the tag latest, which moves: name a version")
					}
				})
			},
		},
		{
			Name: "packed-image-duplicate", Severity: Warning,
			Summary: "an image list names an image twice",
			Why:     "It is packed once. The second line is usually one that should have been changed to another name.",
			Bad:     Example{Kubefile: list, Files: map[string]string{"imageList": "nginx:1.27\ndocker.io/library/nginx:1.27\n"}},
			Good:    Example{Kubefile: list, Files: map[string]string{"imageList": "nginx:1.27\nnginx:1.28\n"}},
			check: func(s *subject) {
				first := map[[2]string]imagelist.Origin{}
				s.eachImage(func(image imagelist.Image, at imagelist.Origin) {
					key := [2]string{image.Name, image.Platform}
					if earlier, ok := first[key]; ok && earlier.File == at.File {
						s.there(at, fmt.Sprintf("%s stands already in line %d", image.Name, earlier.Line))
						return
					}
					first[key] = at
				})
			},
		},
		{
			Name: "manifest-invalid", Severity: Error,
			Summary: "a manifest is no YAML",
			Why:     "The build stops there, since the images that it names cannot be found. Files with other content belong outside of manifests/, templates have the extension .tmpl.",
			Bad:     Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": "a: [1\nb: }\n"}},
			Good:    Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": deployment("nginx:1.27")}},
			check: func(s *subject) {
				for _, one := range leaves(s.found.err) {
					if at, ok := errors.AsType[*imagelist.PositionError](one); !ok || !isList(at.File) {
						s.addErrors(one)
					}
				}
			},
		},
		{
			Name: "manifest-image-unpinned", Severity: Warning,
			Summary: "a manifest names an image without a tag, or with the tag latest",
			Why:     "Kubernetes pulls latest each time a Pod starts, whatever is on the host, and nobody can tell which version runs. Name a version or a digest.",
			Bad:     Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": deployment("nginx:latest")}},
			Good:    Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": deployment("nginx:1.27")}},
			check: func(s *subject) {
				for _, image := range s.found.Images {
					for _, at := range image.Origins {
						if strings.HasSuffix(image.Name, ":latest") && !isList(at.File) && !image.Candidate {
							s.there(s.inContext(at), image.Name+" has the tag latest, which moves: name a version")
						}
					}
				}
			},
		},
		{
			Name: "manifest-image-unread", Severity: Warning,
			Summary: "a manifest names an image in a way that cannot be read",
			Why:     "It is not packed, and the cluster looks for it in a network that it may not have. Write the image into imageList.",
			Bad:     Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": deployment("'nginx 1.27'")}},
			Good:    Example{Kubefile: manifests, Files: map[string]string{"manifests/a.yaml": deployment("nginx:1.27")}},
			check: func(s *subject) {
				for _, p := range s.found.Problems {
					at := s.inContext(imagelist.Origin{File: p.File, Line: p.Line})
					s.add(at.File, at.Line, p.Text, "", p.Message)
				}
			},
		},
	}
}

// eachList calls do for every list of images that the build reads.
func (s *subject) eachList(do func(name string, src []byte)) {
	for _, list := range s.Lists {
		do(list.Name, list.Content)
	}
	for _, name := range s.placed().lists() {
		if src := s.content(name); src != nil {
			do(name, src)
		}
	}
}

// eachImage calls do for every line of every list, in the order of the lines.
func (s *subject) eachImage(do func(image imagelist.Image, at imagelist.Origin)) {
	s.eachList(func(name string, src []byte) {
		for i, line := range strings.Split(string(src), "\n") {
			images, err := imagelist.ParseList(name, []byte(strings.TrimSuffix(line, "\r")))
			if err != nil {
				continue // imagelist-invalid says it
			}
			for _, image := range images {
				do(image, imagelist.Origin{File: name, Line: i + 1})
			}
		}
	})
}

// found is what the build would find in the files that come from the context.
// Its places are below the root of the cluster's files.
type found struct {
	imagelist.Result
	err error
}

func (s *subject) discover(ctx context.Context) {
	if s.Context != nil {
		s.found.Result, s.found.err = imagelist.Discover(ctx, s.placed().fs(s.Context), imagelist.WithCharts(s.Charts))
	}
}

// inContext turns a place among the cluster's files into one of the context.
func (s *subject) inContext(at imagelist.Origin) imagelist.Origin {
	if name, ok := s.placed().files[at.File]; ok {
		at.File = name
	}
	return at
}

// leaves are the single errors of joined ones.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, leaves(one)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// there reports a line of a list or a manifest.
func (s *subject) there(at imagelist.Origin, message string) {
	lines := strings.Split(string(s.content(at.File)), "\n")
	text := ""
	if at.Line >= 1 && at.Line <= len(lines) {
		text = strings.TrimSuffix(lines[at.Line-1], "\r")
	}
	s.add(at.File, at.Line, text, "", message)
}

// addErrors reports mistakes in files; one without a line stands where the
// image begins.
func (s *subject) addErrors(err error) {
	for _, one := range leaves(err) {
		if at, ok := errors.AsType[*imagelist.PositionError](one); ok {
			where := s.inContext(imagelist.Origin{File: at.File, Line: at.Line})
			s.add(where.File, where.Line, at.Text, at.Mark, at.Err.Error())
		} else {
			s.report(s.last().From, "", one.Error())
		}
		s.findings[len(s.findings)-1].Hint = hintOf(one)
	}
}
