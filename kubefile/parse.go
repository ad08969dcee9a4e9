// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// maxErrors is how many mistakes are looked for: beyond it the file is likely
// no Kubefile at all.
const maxErrors = 100

// Parse reads a Kubefile. name is what messages call the file. An error is
// Errors: all mistakes of the file, each a *PositionError.
func Parse(name string, src []byte) (*File, error) {
	p := &parsing{file: &File{Name: name, Source: src}}
	if p.split(src) {
		for _, node := range p.nodes(p.directives()) {
			p.node(node)
		}
		p.checkStages()
	}
	if len(p.errs) > 0 {
		p.errs.Sort()
		return nil, p.errs
	}
	slices.SortStableFunc(p.file.Warnings, func(a, b Warning) int { return a.Line - b.Line })
	return p.file, nil
}

// parsing is the state of one Parse.
type parsing struct {
	file     *File
	errs     Errors
	tooEarly bool // an instruction before the first FROM has been reported
	noApp    bool // an application could not be read, so that names of applications tell nothing
}

func (p *parsing) fail(line int, mark string, err error) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, p.file.errorAt(line, mark, err))
	}
}

// nodes lets BuildKit's parser split the lines into instructions. It stops at
// its first error, so the lines of that are blanked and it is asked again.
func (p *parsing) nodes(lines []string) []*parser.Node {
	if !slices.ContainsFunc(lines, func(line string) bool { return !isBlank(line) }) {
		p.fail(1, "", errors.New("the file has no instruction; it begins with FROM scratch or FROM IMAGE"))
		return nil
	}
	for range maxErrors {
		if !slices.ContainsFunc(lines, func(line string) bool { return !isBlank(line) }) {
			return nil
		}
		result, err := parser.Parse(strings.NewReader(strings.Join(lines, "\n")))
		if err == nil {
			for _, w := range result.Warnings {
				p.file.warn(w.Location.Start.Line, EmptyContinuation, "an empty line stands inside a continued instruction; Docker will refuse that one day")
			}
			return result.AST.Children
		}
		var located *parser.LocationError
		if !errors.As(err, &located) || len(located.Locations) == 0 || len(located.Locations[0]) == 0 {
			p.fail(1, "", err)
			return nil
		}
		where := located.Locations[0]
		first, last := where[0].Start.Line, where[len(where)-1].End.Line
		first = max(1, min(first, len(lines)))
		last = max(first, min(last, len(lines)))
		p.fail(first, "", plain(err))
		for i := first - 1; i < last; i++ {
			lines[i] = ""
		}
	}
	return nil
}

// node takes one instruction into the file.
func (p *parsing) node(node *parser.Node) {
	f := p.file
	node.PrevComment = nil // BuildKit looks there for its linter's settings, and fails without a linter
	word := strings.ToUpper(node.Value)
	refusal, refused := refusals()[word]
	switch {
	case word == "":
		p.fail(node.StartLine, "", errors.New("the line holds nothing that it could continue"))
		return
	case refused:
		refusal.Instruction = word
		p.fail(node.StartLine, node.Value, &refusal)
		return
	case !isSupported(word):
		p.fail(node.StartLine, node.Value, unknownInstruction(node.Value))
		return
	case word == "FROM":
		from, name, err := newFrom(node)
		if err == nil {
			err = checkSyntax(from, f.Directives.Escape)
		}
		if err != nil {
			p.fail(node.StartLine, markOf(err), err)
			from = &From{origin: newOrigin(node)} // what follows is still read
		}
		f.Stages = append(f.Stages, &Stage{Index: len(f.Stages), Name: name, From: from})
		return
	case len(f.Stages) == 0 && word != "ARG":
		if !p.tooEarly {
			p.fail(node.StartLine, node.Value, fmt.Errorf("%s stands before the first FROM, where only ARG may", word))
		}
		p.tooEarly = true
	}
	instruction, warnings, err := newInstruction(node, f.Directives.Escape)
	if err == nil {
		err = checkSyntax(instruction, f.Directives.Escape)
	}
	if err != nil {
		p.fail(node.StartLine, markOf(err), err)
		p.noApp = p.noApp || slices.Contains([]string{"APP", "CNI", "CSI"}, word)
		return
	}
	for _, w := range warnings {
		f.warn(node.StartLine, w.kind, w.message)
	}
	if len(f.Stages) > 0 {
		stage := f.Stages[len(f.Stages)-1]
		stage.Instructions = append(stage.Instructions, instruction)
	} else if arg, ok := instruction.(*Arg); ok {
		f.Args = append(f.Args, arg)
	}
}

// checkStages looks at what no single line can tell: the names of stages and
// who refers to them.
func (p *parsing) checkStages() {
	f := p.file
	if len(f.Stages) == 0 && len(p.errs) == 0 {
		p.fail(len(f.lines), "", errors.New("the file has no FROM; it begins with FROM scratch or FROM IMAGE"))
	}
	for i, stage := range f.Stages {
		line := stage.From.Range.First
		if earlier, ok := f.LookupName(stage.Name, i); ok && stage.Name != "" {
			p.fail(line, stage.Name, fmt.Errorf("a stage called %s stands already in line %d", stage.Name, earlier.From.Range.First))
		}
		if stage.Name == "scratch" || stage.Name == "context" {
			p.fail(line, stage.Name, fmt.Errorf("a stage cannot be called %s: the word has a meaning of its own", stage.Name))
		}
		p.checkBase(stage)
		p.checkApplications(stage)
		for _, instruction := range stage.Instructions {
			switch c := instruction.(type) {
			case *Copy:
				if c.From != "" {
					p.checkFrom(stage, c.Range.First, "COPY --from", c.From)
				}
			case *Run:
				for _, mount := range c.Mounts {
					if mount.From != "" {
						p.checkFrom(stage, c.Range.First, "RUN --mount with from", mount.From)
					}
				}
			}
		}
	}
}

// checkBase looks at a FROM line that has no variables; those with variables
// are for Scope.From.
func (p *parsing) checkBase(stage *Stage) {
	written := stage.From.Image
	if written == "" || hasVariable(written) {
		return // an error has been reported, or will be
	}
	image, _, err := expandWord(written, p.file.Directives.Escape, func(string) (string, bool) { return "", false })
	if err == nil {
		err = p.file.checkBase(stage, image)
	}
	if err != nil {
		p.fail(stage.From.Range.First, written, err)
	}
}

// checkFrom checks a reference from inside a stage to another stage or image.
func (p *parsing) checkFrom(stage *Stage, line int, what, from string) {
	f := p.file
	if _, ok := f.LookupStage(from, stage.Index); ok {
		return
	}
	if later, ok := f.LookupName(from, len(f.Stages)); ok {
		if later == stage {
			p.fail(line, from, fmt.Errorf("%s=%s is the stage that it stands in", what, from))
		} else {
			p.fail(line, from, fmt.Errorf("%s=%s is a stage that comes later, in line %d", what, from, later.From.Range.First))
		}
		return
	}
	if _, err := strconv.Atoi(from); err == nil {
		p.fail(line, from, fmt.Errorf("%s=%s: there is no such stage; %d stand before this one, counted from 0", what, from, stage.Index))
		return
	}
	if err := checkReference(from); err != nil {
		p.fail(line, from, fmt.Errorf("%s: %w", what, err))
		return
	}
	names := []string{}
	for _, other := range f.Stages[:stage.Index] {
		if other.Name != "" {
			names = append(names, other.Name)
		}
	}
	if near := didYouMean(from, names); near != "" {
		f.warn(line, UnknownStage, fmt.Sprintf("no stage is called %s%s; it is taken as the name of an image", from, near))
	}
}

// hasVariable says whether a word can change when it is expanded.
func hasVariable(word string) bool { return strings.ContainsRune(word, '$') }
