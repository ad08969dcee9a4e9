// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sealerio/sealer/internal/sourceerror"
)

// PositionError is a mistake in a line of a file.
type PositionError = sourceerror.PositionError

// Errors is every mistake of one or several files.
type Errors = sourceerror.Errors

// Problem is a place that may ask for an image, but not in a way that could be
// read. The build goes on without that image, so the user must see it.
type Problem struct {
	File    string
	Line    int    // counted from 1; 0 for what was rendered: the whole file
	Text    string // the line as it stands in the file, or was rendered
	Message string
}

// String returns one line: the position and the message.
func (p Problem) String() string {
	return fmt.Sprintf("%s: %s", Origin{File: p.File, Line: p.Line}, p.Message)
}

// Show returns the message with the line below it, without a line end.
func (p Problem) Show() string {
	switch {
	case p.Line == 0 && p.Text == "":
		return p.String()
	case p.Line == 0:
		return p.String() + "\n     | " + shorten(sourceerror.Printable(p.Text))
	}
	return p.String() + "\n" + sourceerror.Excerpt(p.Line, p.Text, "")
}

func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// shorten cuts what is quoted in a message.
func shorten(text string) string {
	if runes := []rune(text); len(runes) > 80 {
		return string(runes[:80]) + "…"
	}
	return text
}

// source is the text of a file in lines.
type source struct {
	file  string
	lines []string
}

// newSource splits a text file; line ends may be LF or CR LF, and a byte order
// mark may stand at the start.
func newSource(file string, src []byte) source {
	text := strings.TrimPrefix(string(src), "\ufeff")
	text = strings.TrimSuffix(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	return source{file: file, lines: strings.Split(text, "\n")}
}

// clamp keeps a line number inside the file.
func (s source) clamp(line int) int { return max(1, min(line, len(s.lines))) }

func (s source) errorAt(line int, err error) *PositionError {
	line = s.clamp(line)
	return &PositionError{File: s.file, Line: line, Text: s.lines[line-1], Err: err}
}

func (s source) problemAt(line int, message string) Problem {
	line = s.clamp(line)
	return Problem{File: s.file, Line: line, Text: s.lines[line-1], Message: message}
}
