// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"github.com/sealerio/sealer/kubefile"
)

// Unseen is a line of the Kubefile whose files are only known once it was built.
type Unseen struct {
	File    string
	Line    int // counted from 1
	Message string
}

// String returns file:line: message.
func (u Unseen) String() string { return fmt.Sprintf("%s:%d: %s", u.File, u.Line, u.Message) }

// sketcher follows the stages of a Kubefile, for one platform, as far as they only copy.
type sketcher struct {
	file    *kubefile.File
	scope   *kubefile.Scope
	context fs.FS
	ignore  *patternmatcher.PatternMatcher
	stages  map[int]*stageSketch
	unseen  []Unseen
}

type stageSketch struct {
	files   sketch
	scope   *kubefile.StageScope
	workdir string
}

// maxSketch is how many files are noted; a context that has more is looked at by the build alone.
const maxSketch = 500_000

func newSketcher(in *inputs, scope *kubefile.Scope, context fs.FS) (*sketcher, error) {
	ignore, err := patternmatcher.New(in.ignore)
	if err != nil {
		return nil, fmt.Errorf("reading the ignore patterns: %w", err)
	}
	return &sketcher{file: in.file, scope: scope, context: context, ignore: ignore, stages: map[int]*stageSketch{}}, nil
}

func (s *sketcher) missing(line int, format string, args ...any) {
	u := Unseen{File: s.file.Name, Line: line, Message: fmt.Sprintf(format, args...)}
	if !slices.Contains(s.unseen, u) {
		s.unseen = append(s.unseen, u)
	}
}

func (s *sketcher) stage(i int) (*stageSketch, error) {
	if made := s.stages[i]; made != nil {
		return made, nil
	}
	in := s.file.Stages[i]
	name, _, err := s.scope.From(in)
	if err != nil {
		return nil, err
	}
	made := &stageSketch{files: newSketch(), workdir: "/"}
	if parent, ok := s.file.LookupName(name, i); ok {
		from, err := s.stage(parent.Index)
		if err != nil {
			return nil, err
		}
		made.files, made.workdir, made.scope = maps.Clone(from.files), from.workdir, from.scope.Child()
	} else {
		made.scope = s.scope.Stage(nil)
	}
	for _, one := range in.Instructions {
		expanded, err := made.scope.Expand(one)
		if err != nil {
			return nil, err
		}
		if err := s.instruction(made, i, expanded); err != nil {
			return nil, err
		}
		if len(made.files) > maxSketch {
			return nil, fmt.Errorf("%s:%d: there are more than %d files", s.file.Name, one.Lines().First, maxSketch)
		}
	}
	s.stages[i] = made
	return made, nil
}

func (s *sketcher) instruction(made *stageSketch, stage int, one kubefile.Instruction) error {
	line := one.Lines().First
	switch one := one.(type) {
	case *kubefile.Copy:
		return s.copy(made, stage, one)
	case *kubefile.Add:
		return s.add(made, stage, one)
	case *kubefile.App:
		dir := kubefile.AppDir(one.Name)
		made.files.put(dir, sketched{dir: true})
		for _, source := range one.Sources {
			local, ok := kubefile.LocalSource(source)
			if !ok {
				s.missing(line, "what %s holds is not fetched", source)
				continue
			}
			if err := s.place(made.files, s.context, local, &kubefile.Copy{Dest: dir + "/"}, true); err != nil {
				return s.file.ErrorAt(line, "", err)
			}
		}
	case *kubefile.Workdir:
		if path.IsAbs(one.Path) {
			made.workdir = "/"
		}
		made.workdir = path.Join(made.workdir, one.Path)
	case *kubefile.Run:
		s.missing(line, "what RUN makes is not seen")
	}
	return nil
}

func (s *sketcher) copy(made *stageSketch, stage int, c *kubefile.Copy) error {
	line := c.Lines().First
	c = made.destination(c)
	for _, doc := range c.Heredocs {
		made.files.put(into(made.files, c, doc.Name, len(c.Heredocs)+len(c.Sources) > 1), sketched{text: []byte(doc.Content)})
	}
	from, isContext := s.context, true
	if c.From != "" {
		other, ok := s.file.LookupStage(c.From, stage)
		if !ok {
			s.missing(line, "the files of the image %s are not looked into", c.From)
			return nil
		}
		st, err := s.stage(other.Index)
		if err != nil {
			return err
		}
		from, isContext = st.files, false
	}
	for _, source := range c.Sources {
		if err := s.place(made.files, from, source, c, isContext); err != nil {
			return s.file.ErrorAt(line, "", err)
		}
	}
	return nil
}

// destination is a COPY whose destination is absolute.
func (st *stageSketch) destination(c *kubefile.Copy) *kubefile.Copy {
	changed := *c
	changed.Dest = kubefile.Destination(st.workdir, c.Dest)
	return &changed
}

func (s *sketcher) add(made *stageSketch, stage int, a *kubefile.Add) error {
	local := a.Copy
	local.Sources = nil
	for _, source := range a.Sources {
		switch {
		case strings.Contains(source, "://") || strings.HasPrefix(source, "git@"):
			s.missing(a.Lines().First, "what %s holds is not fetched", source)
		case (a.Unpack == nil || *a.Unpack) && isTar(source):
			s.missing(a.Lines().First, "the archive %s is not unpacked", source)
		default:
			local.Sources = append(local.Sources, source)
		}
	}
	return s.copy(made, stage, &local)
}

func isTar(name string) bool {
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// into is where a file of that name comes to lie.
func into(files sketch, c *kubefile.Copy, base string, several bool) string {
	if several || strings.HasSuffix(c.Dest, "/") || files[relative(c.Dest)].dir {
		return path.Join(c.Dest, base)
	}
	return c.Dest
}

// place copies what a source stands for.
func (s *sketcher) place(files sketch, from fs.FS, source string, c *kubefile.Copy, isContext bool) error {
	found := []string{relative(source)}
	several := len(c.Heredocs)+len(c.Sources) > 1
	if strings.ContainsAny(source, "*?[") {
		var err error
		if found, err = fs.Glob(from, relative(source)); err != nil {
			return fmt.Errorf("the pattern %q: %w", source, err)
		}
		several = several || len(found) > 1
	}
	exclude, err := patternmatcher.New(c.Exclude)
	if err != nil {
		return fmt.Errorf("the patterns of --exclude: %w", err)
	}
	for _, name := range found {
		info, err := fs.Stat(from, name)
		if err != nil {
			continue // the build says that it is not there
		}
		top := name
		if !info.IsDir() {
			top = path.Dir(name)
		}
		dest := c.Dest
		switch {
		case c.Parents:
			top = "."
		case info.IsDir() && strings.ContainsAny(path.Base(source), "*?["): // as in convert: it keeps its name
			dest = path.Join(dest, path.Base(name))
		case !info.IsDir():
			dest = path.Dir(into(files, c, path.Base(name), several))
		}
		err = fs.WalkDir(from, name, func(at string, entry fs.DirEntry, err error) error {
			if err != nil || len(files) > maxSketch {
				return err
			}
			if skip, err := s.skip(at, entry, isContext, exclude); skip || err != nil {
				return err
			}
			inside := strings.TrimPrefix(strings.TrimPrefix(at, top), "/")
			if top == "." {
				inside = at
			}
			target := path.Join(dest, inside)
			if at == name && !info.IsDir() && !c.Parents {
				target = into(files, c, path.Base(name), several)
			}
			if entry.IsDir() {
				files.put(target, sketched{dir: true})
				return nil
			}
			files.put(target, sketched{from: from, name: at})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// skip says whether a file is left out, with fs.SkipDir for a whole folder.
func (s *sketcher) skip(at string, entry fs.DirEntry, isContext bool, exclude *patternmatcher.PatternMatcher) (bool, error) {
	if at == "." {
		return false, nil
	}
	for _, m := range []*patternmatcher.PatternMatcher{s.ignore, exclude} {
		if m == s.ignore && !isContext {
			continue
		}
		out, err := m.MatchesOrParentMatches(at)
		if err != nil {
			return true, err
		}
		if out && entry.IsDir() && !m.Exclusions() {
			return true, fs.SkipDir
		}
		if out {
			return true, nil
		}
	}
	return false, nil
}
