// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"

	"github.com/sealerio/sealer/kubefile"
)

// contextRules are about the files that COPY, ADD and APP take.
func contextRules() []Rule {
	return []Rule{
		{
			Name: "copy-source-missing", Severity: Error,
			Summary: "a file that is to be copied is not in the build context",
			Why:     "The build stops there. Sources are relative to the folder that is built, the last argument of sealer build, wherever the Kubefile lies.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY imagelist manifests/\n", Files: map[string]string{"imageList": ""}},
			Good:    Example{Kubefile: "FROM scratch\nCOPY imageList manifests/\n", Files: map[string]string{"imageList": ""}},
			check: func(s *subject) {
				s.eachSource(func(_ *stage, line kubefile.Instruction, written, source string) {
					if found := s.find(source); len(found) == 0 {
						s.report(line, written, missing(s.Context, written, source))
					}
				})
			},
		},
		{
			Name: "copy-source-ignored", Severity: Error,
			Summary: "a file that is to be copied is left out by the ignore file",
			Why:     "The builder never sees it: the build stops, or a folder comes empty. Take the pattern out of .sealerignore (or .dockerignore), or add an exception: !name.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY manifests manifests\n", Files: map[string]string{"manifests/a.yaml": ""}, Ignore: "manifests\n"},
			Good:    Example{Kubefile: "FROM scratch\nCOPY manifests manifests\n", Files: map[string]string{"manifests/a.yaml": ""}, Ignore: "*.swp\n"},
			check: func(s *subject) {
				if s.ignored == nil {
					return
				}
				s.eachSource(func(_ *stage, line kubefile.Instruction, written, source string) {
					found := s.find(source)
					if len(found) > 0 && !slices.ContainsFunc(found, s.leavesSome) {
						s.report(line, written, fmt.Sprintf("%s leaves %s out of the build context", s.IgnoreName, written))
					}
				})
			},
		},
		{
			Name: "context-unfiltered", Severity: Warning,
			Summary: "COPY of the whole context takes along what belongs to no cluster",
			Why:     "The history of the repository, the settings of an editor and files of credentials go into the image and to everybody who pulls it. Name them in .sealerignore, or copy only what is needed.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY . .\n", Files: map[string]string{".git/config": "", "imageList": ""}},
			Good:    Example{Kubefile: "FROM scratch\nCOPY . .\n", Files: map[string]string{".git/config": "", "imageList": ""}, Ignore: ".git\n"},
			check: func(s *subject) {
				s.eachSource(func(_ *stage, line kubefile.Instruction, written, source string) {
					if source != "." && source != "*" {
						return
					}
					if junk := s.junk(line); len(junk) > 0 {
						s.report(line, written, fmt.Sprintf("%s goes into the image: name it in .sealerignore, or copy only what is needed", strings.Join(junk, ", ")))
					}
				})
			},
		},
		{
			Name: "arch-hard-coded", Severity: Warning,
			Summary: "a path names an architecture where ${ARCH} would follow the platform",
			Why:     "An image for another platform would get these files too, and its hosts could not run them. ARCH needs no ARG line.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY rootfs .\nCOPY amd64 .\n"},
			Good:    Example{Kubefile: "FROM scratch\nCOPY rootfs .\nCOPY ${ARCH} .\n"},
			check:   checkArch,
		},
	}
}

// eachSource calls do for every path of the context that an instruction takes:
// as written, and cleaned. Nothing happens without a context.
func (s *subject) eachSource(do func(t *stage, line kubefile.Instruction, written, source string)) {
	if s.Context == nil {
		return
	}
	for _, t := range s.stages {
		for i, line := range t.lines {
			written := localSources(t.Instructions[i])
			for n, source := range localSources(line) {
				if strings.Contains(source, "$") || len(written) <= n {
					continue // its expansion has failed, and was reported
				}
				do(t, line, written[n], contextPath(source))
			}
		}
	}
}

// contextPath is a source as a path below the context, as BuildKit takes it.
func contextPath(source string) string {
	if rel := strings.TrimPrefix(path.Join("/", source), "/"); rel != "" {
		return rel
	}
	return "."
}

// localSources are the paths of the context that an instruction names.
func localSources(line kubefile.Instruction) []string {
	var sources []string
	switch c := line.(type) {
	case *kubefile.Copy:
		if c.From == "" && !c.Parents {
			return c.Sources
		}
	case *kubefile.Add:
		for _, source := range c.Sources {
			if !isURL(source) && !isGit(source) {
				sources = append(sources, source)
			}
		}
	case *kubefile.App:
		for _, source := range c.Sources {
			if local, ok := kubefile.LocalSource(source); ok {
				sources = append(sources, local)
			}
		}
	}
	return sources
}

// find returns the paths of the context that a source stands for.
func (s *subject) find(source string) []string {
	if strings.ContainsAny(source, "*?[") {
		if found, err := fs.Glob(s.Context, source); err == nil && len(found) > 0 {
			return found
		}
	}
	if _, err := fs.Lstat(s.Context, source); err == nil {
		return []string{source}
	}
	return nil
}

func missing(fsys fs.FS, written, source string) string {
	message := written + " is not in the build context"
	if strings.ContainsAny(source, "*?[") {
		return "nothing in the build context matches " + written
	}
	entries, err := fs.ReadDir(fsys, path.Dir(source))
	if err != nil {
		return message
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if near, ok := suggest.Search(path.Base(source), names, true); ok {
		return fmt.Sprintf("%s (did you mean %s?)", message, path.Join(path.Dir(source), near))
	}
	return message
}

// maxWalk bounds how many files of a context are looked at.
const maxWalk = 200_000

// leavesSome says whether the ignore file lets anything of a path through.
func (s *subject) leavesSome(name string) bool {
	if !s.isIgnored(name) {
		return true
	}
	if !s.ignored.Exclusions() {
		return false
	}
	some, left := false, maxWalk
	_ = fs.WalkDir(s.Context, name, func(name string, entry fs.DirEntry, err error) error {
		left--
		some = err != nil || left < 0 || !entry.IsDir() && !s.isIgnored(name)
		if some {
			return fs.SkipAll
		}
		return nil
	})
	return some
}

// junk are entries at the top of the context that a copy of all of it takes.
func (s *subject) junk(line kubefile.Instruction) []string {
	entries, err := fs.ReadDir(s.Context, ".")
	if err != nil {
		return nil
	}
	var exclude []string
	switch c := line.(type) {
	case *kubefile.Copy:
		exclude = c.Exclude
	case *kubefile.Add:
		exclude = c.Exclude
	}
	known := strings.Fields(".git .svn .hg .idea .vscode .DS_Store .env .netrc .ssh .aws .kube .terraform id_rsa id_ed25519 id_ecdsa")
	var junk []string
	for _, entry := range entries {
		name := entry.Name()
		if excluded, err := patternmatcher.MatchesOrParentMatches(name, exclude); err != nil || excluded {
			continue
		}
		if slices.Contains(known, name) && !s.isIgnored(name) {
			junk = append(junk, name)
		}
	}
	return junk
}

// archName is the name of an architecture as a part of a path of its own.
var archName = regexp.MustCompile(`(^|[/_.-])(amd64|x86_64|arm64|aarch64)($|[/_.-])`)

// checkArch reports such paths, unless the stage takes several architectures on
// purpose.
func checkArch(s *subject) {
	type place struct {
		line   kubefile.Instruction
		source string
	}
	for _, t := range s.stages {
		places := map[string][]place{}
		for _, line := range t.Instructions {
			for _, source := range localSources(line) {
				for _, match := range archName.FindAllStringSubmatch(source, -1) {
					arch := strings.NewReplacer("x86_64", "amd64", "aarch64", "arm64").Replace(match[2])
					places[arch] = append(places[arch], place{line, source})
				}
			}
		}
		if len(places) != 1 {
			continue
		}
		for arch, list := range places {
			for _, p := range list {
				s.report(p.line, p.source, fmt.Sprintf("%s is for %s whatever platform is built: write ${ARCH}", p.source, arch))
			}
		}
	}
}
