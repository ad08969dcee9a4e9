// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/sealerio/sealer/kubefile"
)

// imageRules are about the images that the file names itself.
func imageRules() []Rule {
	return []Rule{
		{
			Name: "base-unpinned", Severity: Warning,
			Summary: "an image that is built from has no tag, or the tag latest",
			Why:     "The same Kubefile builds something else tomorrow, and nobody can tell what an old image was made of. Name a version; a digest holds for good. This is about FROM, COPY --from, RUN --mount=from and `# toolbox=`.",
			Bad:     Example{Kubefile: "FROM registry.example.com/kubernetes:latest\nCOPY manifests manifests\n"},
			Good:    Example{Kubefile: "FROM registry.example.com/kubernetes:v1.36.3\nCOPY manifests manifests\n"},
			check:   checkPinned,
		},
		{
			Name: "base-platform-fixed", Severity: Warning,
			Summary: "FROM names a platform as a constant",
			Why:     "Built for another platform, the image would hold that one's files. Without --platform the base is taken for the platform that is built; for tools of the machine that builds write --platform=$BUILDPLATFORM.",
			Bad:     Example{Kubefile: "FROM --platform=linux/amd64 registry.example.com/kubernetes:v1.36.3\nCOPY manifests manifests\n"},
			Good:    Example{Kubefile: "FROM registry.example.com/kubernetes:v1.36.3\nCOPY manifests manifests\n"},
			check: func(s *subject) {
				for _, t := range s.stages {
					if platform := t.From.Platform; platform != "" && !strings.Contains(platform, "$") {
						s.report(t.From, platform, fmt.Sprintf("the base is of %s whatever is built: leave --platform out", platform))
					}
				}
			},
		},
	}
}

func checkPinned(s *subject) {
	if toolbox := s.file.Directives.Toolbox; toolbox != "" {
		if why := unpinned(toolbox); why != "" {
			s.reportLine(lineOf(s.file, "toolbox"), toolbox, "the toolbox "+toolbox+" "+why)
		}
	}
	for i, t := range s.stages {
		if why := unpinned(t.image); t.parent == nil && t.image != "scratch" && why != "" {
			s.report(t.From, t.From.Image, "the base "+t.image+" "+why)
		}
		for _, line := range t.lines {
			for _, from := range froms(line) {
				if _, isStage := s.file.LookupStage(from, i); isStage || from == "scratch" {
					continue
				}
				if why := unpinned(from); why != "" {
					s.report(line, from, from+" "+why)
				}
			}
		}
	}
}

// unpinned says what the name of an image lacks; empty: nothing.
func unpinned(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "" // the build says so
	}
	if _, ok := named.(reference.Digested); ok {
		return ""
	}
	tagged, ok := named.(reference.Tagged)
	switch {
	case !ok:
		return "has no tag, which means latest: name a version"
	case tagged.Tag() == "latest":
		return "has the tag latest, which moves: name a version"
	default:
		return ""
	}
}

// lineOf is the line of a directive.
func lineOf(f *kubefile.File, name string) int {
	for i, line := range f.Layout() {
		text := strings.ReplaceAll(strings.TrimLeft(line.Text, "# \t"), " ", "")
		if line.Kind == kubefile.CommentLine && strings.HasPrefix(strings.ToLower(text), name+"=") {
			return i + 1
		}
	}
	return 1
}
