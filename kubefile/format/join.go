// SPDX-License-Identifier: Apache-2.0

package format

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// piece is what one line gives to its instruction: a part of the whole text.
type piece struct {
	comments   []string // that stand above it
	begin, end int
}

// pieces puts the text of an instruction together, and returns the comments
// behind its last piece. Lines that give nothing are left out.
func pieces(lines []kubefile.Line) (text string, list []piece, comments []string) {
	for _, line := range lines {
		switch {
		case line.Kind == kubefile.CommentLine:
			comments = append(comments, line.Text)
		case line.Kind == kubefile.InstructionLine && line.Content != "":
			begin := len(text)
			text += line.Content
			list = append(list, piece{comments: comments, begin: begin, end: len(text)})
			comments = nil
		}
	}
	return text, list, comments
}

// segment is a line of the result.
type segment struct {
	comments []string // that stand above it
	text     string
	gap      bool // space stands before it
}

// rewrite returns the lines of an instruction, without those of its heredocs.
func (w *writer) rewrite(lines []kubefile.Line) []string {
	whole, list, comments := pieces(lines)
	text, free, collapse := w.analyse(whole)
	var segments []segment
	var above []string
	gap := false
	for _, p := range list {
		above = append(above, p.comments...)
		begin, end := p.begin, p.end
		for begin < end && free[begin] {
			begin++
		}
		for end > begin && free[end-1] {
			end--
		}
		gap = gap || begin > p.begin
		if begin == end {
			continue // nothing but space
		}
		content := collapsed(text[begin:end], collapse[begin:end])
		segments = append(segments, segment{comments: above, text: content, gap: gap})
		above, gap = nil, end < p.end
	}
	comments = append(above, comments...)
	if len(segments) > 0 {
		// Above the first one, a comment could become a directive.
		comments = append(segments[0].comments, comments...)
		segments[0].comments, segments[0].gap = nil, false
	}
	return append(w.write(segments), comments...)
}

func (w *writer) write(segments []segment) []string {
	escape := string(w.file.Directives.Escape)
	var result []string
	for i, s := range segments {
		result = append(result, s.comments...)
		line := s.text
		if s.gap {
			line = indent + line
		}
		switch {
		case i+1 == len(segments):
		case segments[i+1].gap:
			line += " " + escape
		default: // a word goes on in the next line
			line += escape
		}
		result = append(result, line)
	}
	return result
}

// collapsed makes one space of each run of free ones.
func collapsed(text string, free []bool) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case !free[i]:
			out.WriteByte(text[i])
		case i == 0 || !free[i-1]:
			out.WriteByte(' ')
		}
	}
	return out.String()
}

// analyse returns the text of an instruction with its keywords in upper case,
// which of its bytes are spaces that stand for any number of them, and of which
// of those to make one. A shell's command keeps its own: people align what
// belongs together.
func (w *writer) analyse(text string) (result string, free, collapse []bool) {
	begin := skip(text, 0, true)
	end := skip(text, begin, false)
	args := skip(text, end, true)
	escape := byte(w.file.Directives.Escape)
	word := strings.ToUpper(text[begin:end])
	text = text[:begin] + upper(text[begin:end]) + text[end:]

	free, collapse = make([]bool, len(text)), make([]bool, len(text))
	for i := range args {
		free[i], collapse[i] = isSpace(text[i]), isSpace(text[i])
	}
	flags := freeSpaces(words, text[args:], escape)
	rest := args
	for strings.HasPrefix(text[rest:], "--") {
		for rest < len(text) && !flags[rest-args] {
			rest++
		}
		rest = skip(text, rest, true)
	}
	copy(free[args:rest], flags)
	copy(collapse[args:rest], flags)

	kind := w.kind(word, text[rest:])
	copy(free[rest:], freeSpaces(kind, text[rest:], escape))
	if kind == words || kind == array {
		copy(collapse[rest:], free[rest:])
	}
	for i := len(text) - 1; i >= end && isSpace(text[i]); i-- {
		free[i] = true // at the end of the instruction
	}
	if word == "FROM" {
		text = upperAs(text, rest)
	}
	return text, free, collapse
}

// skip returns where in text, from i on, the spaces end, or the word does.
func skip(text string, i int, spaces bool) int {
	for i < len(text) && isSpace(text[i]) == spaces {
		i++
	}
	return i
}

// kind says how the arguments of an instruction, behind its flags, are read.
func (w *writer) kind(word, args string) kind {
	isArray := strings.HasPrefix(args, "[") && json.Valid([]byte(args))
	switch word {
	case "COPY", "ADD", "VOLUME", "FROM", "ARG", "APP", "CNI", "CSI", "EXPOSE", "APPENV":
		if isArray {
			return array
		}
		return words
	case "ENV", "LABEL":
		if first, _, _ := strings.Cut(args, " "); strings.Contains(first, "=") {
			return words
		}
		return opaque // NAME VALUE: the spaces are the value's
	case "RUN", "CMD", "ENTRYPOINT", "LAUNCH", "CMDS", "APPCMDS":
		switch {
		case isArray:
			return array
		case w.otherShell():
			return opaque
		default:
			return command
		}
	default:
		return opaque
	}
}

// otherShell says whether a SHELL line names something that is no POSIX shell:
// who knows what spaces mean there.
func (w *writer) otherShell() bool {
	return slices.ContainsFunc(w.file.All(), func(one kubefile.Instruction) bool {
		shell, ok := one.(*kubefile.Shell)
		return ok && !slices.Contains([]string{"sh", "ash", "bash", "dash"}, path.Base(shell.Args[0]))
	})
}

// upperAs writes the AS of a FROM line in upper case.
func upperAs(text string, args int) string {
	end := len(strings.TrimRight(text, " \t"))
	name := strings.LastIndexAny(text[:end], " \t")
	if name < args {
		return text
	}
	end = len(strings.TrimRight(text[:name], " \t"))
	as := strings.LastIndexAny(text[:end], " \t") + 1
	if as <= args || !strings.EqualFold(text[as:end], "as") {
		return text
	}
	return text[:as] + "AS" + text[end:]
}

// upper is strings.ToUpper for ASCII alone: no byte moves.
func upper(word string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, word)
}
