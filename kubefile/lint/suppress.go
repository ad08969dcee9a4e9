// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// directive is the comment that silences rules: for the instruction below it,
// for the whole file with ignore-file. In lists and manifests it stands in the
// line, or in the one above.
var directive = regexp.MustCompile(`#\s*sealer-lint\s+(ignore|ignore-file)=(\S+)`)

// silenced is what comments of a Kubefile say.
type silenced struct {
	file  []string         // rules
	lines map[int][]string // rules by line
}

func readDirectives(f *kubefile.File) (silenced, []Finding) {
	result := silenced{lines: map[int][]string{}}
	var findings []Finding
	var pending []string
	for i, line := range f.Layout() {
		switch line.Kind {
		case kubefile.CommentLine:
			match := directive.FindStringSubmatch(line.Text)
			if match == nil {
				continue
			}
			names := strings.Split(match[2], ",")
			findings = append(findings, unknownNames(f, i+1, line.Text, names)...)
			switch {
			case match[1] == "ignore-file":
				result.file = append(result.file, names...)
			case line.Instruction != nil: // between its lines
				result.silence(line.Instruction, names)
			default:
				pending = append(pending, names...)
			}
		case kubefile.InstructionLine:
			if line.Instruction.Lines().First == i+1 {
				result.silence(line.Instruction, pending)
				pending = nil
			}
		case kubefile.BlankLine, kubefile.DocumentLine:
		}
	}
	return result, findings
}

func (s silenced) silence(instruction kubefile.Instruction, names []string) {
	for n := instruction.Lines().First; n <= instruction.Lines().Last; n++ {
		s.lines[n] = append(s.lines[n], names...)
	}
}

func unknownNames(f *kubefile.File, n int, text string, names []string) []Finding {
	var findings []Finding
	for _, name := range names {
		if _, err := Lookup(name); err != nil {
			findings = append(findings, Finding{
				Rule: ruleUnknownRule, Severity: Warning, File: f.Name, Line: n, Text: text, Mark: name, Message: err.Error(),
			})
		}
	}
	return findings
}

// suppressed leaves out what the options and the comments silence, and adds
// what is wrong with the comments.
func suppressed(f *kubefile.File, o Options, findings []Finding) []Finding {
	quiet, wrong := readDirectives(f)
	return slices.DeleteFunc(append(findings, wrong...), func(one Finding) bool {
		switch {
		case slices.Contains(o.Skip, one.Rule), slices.Contains(quiet.file, one.Rule):
			return true
		case one.File == f.Name:
			return slices.Contains(quiet.lines[one.Line], one.Rule)
		default:
			return o.silencedThere(one)
		}
	})
}

// silencedThere looks into a list or a manifest.
func (o Options) silencedThere(one Finding) bool {
	lines := strings.Split(string(o.content(one.File)), "\n")
	for _, n := range []int{one.Line, one.Line - 1} {
		if n < 1 || n > len(lines) || n < one.Line && !strings.HasPrefix(strings.TrimSpace(lines[n-1]), "#") {
			continue
		}
		match := directive.FindStringSubmatch(lines[n-1])
		if match != nil && slices.Contains(strings.Split(match[2], ","), one.Rule) {
			return true
		}
	}
	return false
}
