// SPDX-License-Identifier: Apache-2.0

// Package format writes Kubefiles in one form: instructions in upper case, one
// space between words, continued lines indented by four spaces, one blank line
// at most and one before each stage. Comments and heredocs stay as they are, and
// so does whatever a change of spaces could give another meaning.
package format

import (
	"bytes"
	"errors"
	"regexp"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

const indent = "    "

// errChanged would be a mistake of this package: its result is always read
// again and compared.
var errChanged = errors.New("formatting would change what the file means: it stays as it is")

// Source returns a Kubefile in its canonical form: UTF-8 without a byte order
// mark, line ends LF. name is what messages call the file. A file that does not
// parse is an error, kubefile.Errors.
func Source(name string, src []byte) ([]byte, error) {
	file, err := kubefile.Parse(name, src)
	if err != nil {
		return nil, err
	}
	w := &writer{file: file, lines: file.Layout()}
	w.all()
	result := w.out.Bytes()
	if bytes.Equal(result, src) {
		return result, nil
	}
	again, err := kubefile.Parse(name, result)
	if err != nil || !same(file, again) {
		return nil, file.ErrorAt(1, "", errChanged)
	}
	return result, nil
}

// writer puts the file together.
type writer struct {
	file  *kubefile.File
	lines []kubefile.Line
	out   bytes.Buffer

	blank bool // a blank line stands before the next one
}

func (w *writer) all() {
	for i := 0; i < len(w.lines); {
		switch line := w.lines[i]; line.Kind {
		case kubefile.BlankLine:
			w.blank = true
			i++
		case kubefile.CommentLine:
			w.beforeStage(i)
			w.line(line.Text)
			i++
		case kubefile.InstructionLine, kubefile.DocumentLine:
			w.beforeStage(i)
			i = w.instruction(i)
		}
	}
}

// line writes a line and, before it, the one blank line that stands for any
// number of them.
func (w *writer) line(text string) {
	if w.blank && (w.out.Len() > 0 || w.keepsFirstBlank()) {
		w.out.WriteByte('\n')
	}
	w.blank = false
	w.out.WriteString(text)
	if strings.HasSuffix(text, "\r") { // a lone one at the end of the line would become part of the line end
		w.out.WriteByte('\r')
	}
	w.out.WriteByte('\n')
}

// directiveLike is a comment that is a directive where nothing stands above it.
var directiveLike = regexp.MustCompile(`(?i)^\s*#(!|\s*(syntax|escape|check|toolbox)\s*=)`)

// keepsFirstBlank says whether the comments at the top would become directives
// if the blank lines above them went.
func (w *writer) keepsFirstBlank() bool {
	for _, line := range w.lines {
		switch {
		case line.Kind == kubefile.BlankLine:
		case line.Kind != kubefile.CommentLine:
			return false
		case directiveLike.MatchString(line.Text):
			return true
		}
	}
	return false
}

// beforeStage puts a blank line before a FROM line, or before the comments that
// stand right above it, but not between the ARG lines of the top and FROM.
func (w *writer) beforeStage(i int) {
	if w.out.Len() == 0 || i > 0 && w.lines[i-1].Kind == kubefile.CommentLine && w.lines[i-1].Instruction == nil {
		return
	}
	for ; i < len(w.lines) && w.lines[i].Kind == kubefile.CommentLine; i++ {
		if w.lines[i].Instruction != nil {
			return
		}
	}
	if i == len(w.lines) {
		return
	}
	if from, ok := w.lines[i].Instruction.(*kubefile.From); ok && from != w.file.Stages[0].From {
		w.blank = true
	}
}

// instruction writes the instruction that begins with line i, and returns the
// number of the line behind it.
func (w *writer) instruction(i int) int {
	end := i
	for end < len(w.lines) && w.lines[end].Instruction == w.lines[i].Instruction {
		end++
	}
	for _, text := range w.rewrite(w.lines[i:end]) {
		w.line(text)
	}
	for _, line := range w.lines[i:end] {
		if line.Kind == kubefile.DocumentLine {
			w.line(line.Text)
		}
	}
	return end
}
