// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/kubefile"
)

// subject is what the rules look at: the file as it is for one platform.
type subject struct {
	Options
	file     *kubefile.File
	stages   []*stage
	broken   []error // of expansions
	target   int     // the stage that becomes the image
	ignored  *patternmatcher.PatternMatcher
	view     *view // nil: not made yet
	found    found
	rule     Rule
	findings []Finding
}

// stage is a stage with its variables expanded.
type stage struct {
	*kubefile.Stage
	image    string                 // after FROM
	parent   *stage                 // nil: an image, or scratch
	lines    []kubefile.Instruction // expanded; as written where that fails
	warnings []kubefile.Warning
	needed   bool // by the last stage
	scope    *kubefile.StageScope
}

// root is the image at the bottom of a stage, or scratch.
func (t *stage) root() string {
	for t.parent != nil {
		t = t.parent
	}
	return t.image
}

// chain is the stage and what it is based on, the lowest first.
func (t *stage) chain() []*stage {
	var list []*stage
	for ; t != nil; t = t.parent {
		list = append(list, t)
	}
	slices.Reverse(list)
	return list
}

func newSubject(file *kubefile.File, o Options, platform ocispec.Platform) (*subject, error) {
	s := &subject{Options: o, file: file}
	if matcher, err := patternmatcher.New(o.Ignore); err == nil && o.Ignore != nil {
		s.ignored = matcher
	}
	scope, err := kubefile.NewScope(file, kubefile.ScopeOptions{BuildArgs: o.BuildArgs, Target: platform, Build: platform})
	if err != nil {
		return nil, err
	}
	for i, one := range file.Stages {
		t := &stage{Stage: one}
		image, _, err := scope.From(one)
		if err != nil {
			s.broken = append(s.broken, err)
			image = one.From.Image
		}
		t.image = image
		if parent, ok := file.LookupName(image, i); ok {
			t.parent = s.stages[parent.Index]
			t.scope = t.parent.scope.Child()
		} else {
			t.scope = scope.Stage(nil)
		}
		for _, instruction := range one.Instructions {
			expanded, err := t.scope.Expand(instruction)
			if err != nil {
				s.broken = append(s.broken, err)
				expanded = instruction
			}
			t.lines = append(t.lines, expanded)
		}
		t.warnings = t.scope.Warnings()
		s.stages = append(s.stages, t)
	}
	s.target = len(s.stages) - 1
	if t, ok := file.LookupStage(o.Target, len(s.stages)); ok && o.Target != "" {
		s.target = t.Index
	}
	s.need(s.target)
	return s, nil
}

// need marks a stage and those that it takes from.
func (s *subject) need(i int) {
	t := s.stages[i]
	if t.needed {
		return
	}
	t.needed = true
	if t.parent != nil {
		s.need(t.parent.Index)
	}
	for _, line := range t.lines {
		for _, from := range froms(line) {
			if other, ok := s.file.LookupStage(from, i); ok {
				s.need(other.Index)
			}
		}
	}
}

// neededElsewhere tells whether a build for another architecture needs a stage: FROM ${ARCH}, with a stage for each.
func (s *subject) neededElsewhere(t *stage) bool {
	return slices.ContainsFunc(architectures(), func(arch string) bool {
		other, err := newSubject(s.file, s.Options, ocispec.Platform{OS: "linux", Architecture: arch})
		return err == nil && other.stages[t.Index].needed
	})
}

// architectures are those that a stage may be made for.
func architectures() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"}
}

// froms are the stages and images that an instruction copies or mounts from.
func froms(instruction kubefile.Instruction) []string {
	var names []string
	switch c := instruction.(type) {
	case *kubefile.Copy:
		names = append(names, c.From)
	case *kubefile.Run:
		for _, mount := range c.Mounts {
			names = append(names, mount.From)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// last is the stage that becomes the image.
func (s *subject) last() *stage { return s.stages[s.target] }

// each calls do for every instruction of every stage, expanded.
func (s *subject) each(do func(t *stage, line kubefile.Instruction)) {
	for _, t := range s.stages {
		for _, line := range t.lines {
			do(t, line)
		}
	}
}

// report adds a finding at the line of an instruction that holds mark, else at
// its first.
func (s *subject) report(where kubefile.Instruction, mark, message string) {
	lines := where.Lines()
	at := lines.First
	for n := lines.First; n <= lines.Last && mark != ""; n++ {
		if strings.Contains(s.file.SourceLine(n), mark) {
			at = n
			break
		}
	}
	s.reportLine(at, mark, message)
}

func (s *subject) reportLine(n int, mark, message string) {
	s.add(s.file.Name, n, s.file.SourceLine(n), mark, message)
}

func (s *subject) add(file string, n int, text, mark, message string) {
	s.findings = append(s.findings, Finding{
		Rule: s.rule.Name, Severity: s.rule.Severity, File: file, Line: n, Message: message, Text: text, Mark: mark,
	})
}

// isIgnored says whether the ignore file leaves a path of the context out.
func (s *subject) isIgnored(rel string) bool {
	if s.ignored == nil {
		return false
	}
	ignored, err := s.ignored.MatchesOrParentMatches(rel)
	return err == nil && ignored
}
