// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"cmp"
	"slices"
	"strings"
)

// LineKind says what a line of a Kubefile is.
type LineKind int

// The kinds of lines.
const (
	BlankLine       LineKind = iota // also inside a continued instruction, where it is skipped
	CommentLine                     // also inside a continued instruction
	InstructionLine                 // the first line of an instruction, or one that goes on with it
	DocumentLine                    // of a heredoc, the word that ends it included
)

// Line is a line of the source.
type Line struct {
	Kind LineKind
	Text string // without its line end
	// Content is the part of an InstructionLine that belongs to the
	// instruction: without the character that continues it.
	Content   string
	Continued bool // an InstructionLine that ends with that character
	// Instruction is where the line belongs, nil outside of all. A FROM line is
	// one too.
	Instruction Instruction
}

// Layout returns every line of the file.
func (f *File) Layout() []Line {
	lines := make([]Line, len(f.lines))
	for i, text := range f.lines {
		kind := CommentLine
		if strings.TrimSpace(text) == "" {
			kind = BlankLine
		}
		lines[i] = Line{Kind: kind, Text: text}
	}
	for _, instruction := range f.All() {
		where := instruction.Lines()
		open := true
		for n := where.First; n <= min(where.Last, len(lines)); n++ {
			line := &lines[n-1]
			line.Instruction = instruction
			switch {
			case !open:
				line.Kind = DocumentLine
			case n == where.First || !isBlank(line.Text):
				line.Kind = InstructionLine
				line.Content, line.Continued = f.cutContinuation(line.Text)
				open = line.Continued
			}
		}
	}
	return lines
}

// cutContinuation takes the escape character off the end of a line, where it
// continues it. As in BuildKit's parser, it does not where another one stands
// before it.
func (f *File) cutContinuation(line string) (string, bool) {
	escape := string(f.Directives.Escape)
	line = strings.TrimRight(line, "\r")
	content, ok := strings.CutSuffix(strings.TrimRight(line, " \t"), escape)
	if !ok || strings.HasSuffix(content, escape) {
		return line, false
	}
	return content, true
}

// All returns every instruction of the file in the order of its lines: the ARG
// lines above the first FROM, the FROM lines, and those of the stages.
func (f *File) All() []Instruction {
	var all []Instruction
	for _, arg := range f.Args {
		all = append(all, arg)
	}
	for _, stage := range f.Stages {
		all = append(all, stage.From)
		all = append(all, stage.Instructions...)
	}
	slices.SortStableFunc(all, func(a, b Instruction) int { return cmp.Compare(a.Lines().First, b.Lines().First) })
	return all
}

// ErrorAt is err as a mistake in a line of the file, counted from 1. mark is the
// word to underline; where it is empty or not in the line, its first word is.
func (f *File) ErrorAt(line int, mark string, err error) *PositionError {
	return f.errorAt(line, mark, err)
}

// SourceLine returns the text of a line, counted from 1; empty outside the file.
func (f *File) SourceLine(line int) string { return f.line(line) }
