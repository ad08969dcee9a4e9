// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
)

// PositionError is a mistake in a line of a Kubefile.
type PositionError struct {
	File string
	Line int    // counted from 1
	Text string // the line as it stands in the file
	Err  error

	mark string // the part of Text that is wrong; empty: its first word
}

// Error returns one line: the position and what is wrong there.
func (e *PositionError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns what is wrong, without the position.
func (e *PositionError) Unwrap() error { return e.Err }

// Hint returns what the user can do, or nothing.
func (e *PositionError) Hint() string {
	var hinted interface{ Hint() string }
	if errors.As(e.Err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// Show returns the message with the line below it and the wrong part
// underlined. It has no line end.
func (e *PositionError) Show() string {
	return e.Error() + "\n" + excerpt(e.Line, e.Text, e.mark)
}

// Errors is every mistake of a Kubefile, in the order of its lines.
type Errors []*PositionError

// Error returns one line for each mistake.
func (e Errors) Error() string { return e.join((*PositionError).Error) }

// Show returns every mistake with its line.
func (e Errors) Show() string { return e.join((*PositionError).Show) }

// Unwrap lets errors.As find the single mistakes.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, one := range e {
		errs[i] = one
	}
	return errs
}

func (e Errors) join(text func(*PositionError) string) string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = text(one)
	}
	return strings.Join(texts, "\n")
}

func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b *PositionError) int { return cmp.Compare(a.Line, b.Line) })
	return e
}

// Warning is something that Parse or Expand accepts, though it is probably not
// what was meant.
type Warning struct {
	File    string
	Line    int    // counted from 1
	Text    string // the line as it stands in the file
	Message string
}

// String returns one line: the position and the message.
func (w Warning) String() string { return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Message) }

// Show returns the message with the line below it.
func (w Warning) Show() string { return w.String() + "\n" + excerpt(w.Line, w.Text, "") }

// UnsupportedError is an instruction that is known by name but not built yet.
type UnsupportedError struct {
	Instruction string // in upper case
}

func (e *UnsupportedError) Error() string {
	return e.Instruction + " is not supported yet by this version of sealer"
}

// Hint returns how to do without the instruction, where there is a way.
func (e *UnsupportedError) Hint() string {
	switch e.Instruction {
	case "APP", "CNI", "CSI":
		return "COPY the files below application/apps/NAME/ and start them with CMD"
	case "LAUNCH", "CMDS", "APPCMDS":
		return "write one CMD line for each command"
	case "APPENV":
		return "use ENV"
	case "WORKDIR":
		return "RUN starts at the root of the cluster's files, and COPY is relative to it: name the folder in each"
	case "ENTRYPOINT":
		return "use CMD"
	default:
		return ""
	}
}

// UnknownInstructionError is a line whose first word is no instruction.
type UnknownInstructionError struct {
	Word string // as written
	Near string // the instruction that it resembles; empty where there is none
}

func (e *UnknownInstructionError) Error() string {
	for _, r := range e.Word {
		if r > unicode.MaxASCII && (unicode.IsSpace(r) || unicode.Is(unicode.Cf, r)) {
			return fmt.Sprintf("unknown instruction %+q: it holds the character %U, which looks like a space or like nothing", e.Word, r)
		}
	}
	if e.Near != "" {
		return fmt.Sprintf("unknown instruction %s (did you mean %s?)", printable(e.Word), e.Near)
	}
	return "unknown instruction " + printable(e.Word)
}

// Hint says what usually is behind a word that resembles no instruction.
func (e *UnknownInstructionError) Hint() string {
	if e.Near != "" {
		return ""
	}
	return `where the line goes on from the one above, that one must end with \`
}

func unknownInstruction(word string) *UnknownInstructionError {
	near, _ := suggest.Search(strings.ToUpper(word), append(instructionWords(), laterWords()...), true)
	return &UnknownInstructionError{Word: word, Near: near}
}

// didYouMean returns " (did you mean x?)" where one of words resembles word.
func didYouMean(word string, words []string) string {
	if near, ok := suggest.Search(word, words, true); ok {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// plain takes BuildKit's position off an error: ours stands before it.
func plain(err error) error {
	if located, ok := errors.AsType[*parser.LocationError](err); ok {
		return located.Unwrap()
	}
	return err
}

// innermost returns the first cause: the layers that BuildKit's lexer puts
// around it repeat the whole text.
func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// excerptWidth is how many characters of a line are shown.
const excerptWidth = 160

// excerpt returns a line with its number, and below it marks under the first
// place where mark stands in it.
func excerpt(n int, text, mark string) string {
	if mark == "" || !strings.Contains(text, mark) {
		mark, _, _ = strings.Cut(strings.TrimSpace(text), " ")
	}
	column, width := len([]rune(text[:markAt(text, mark)])), len([]rune(mark))
	runes := []rune(printable(text))
	if len(runes) > excerptWidth {
		runes = append(runes[:excerptWidth], '…')
	}
	shown := fmt.Sprintf("%4d | %s", n, strings.TrimRight(string(runes), " "))
	if column >= excerptWidth || width == 0 {
		return shown
	}
	width = min(width, excerptWidth-column)
	return shown + "\n     | " + strings.Repeat(" ", column) + strings.Repeat("^", width)
}

// markAt returns where mark stands in text as a word of its own, else where it
// stands first.
func markAt(text, mark string) int {
	isBorder := func(b byte) bool { return strings.IndexByte(" \t=\"',", b) >= 0 }
	for from := 0; mark != ""; {
		next := strings.Index(text[from:], mark)
		if next < 0 {
			break
		}
		at, end := from+next, from+next+len(mark)
		if (at == 0 || isBorder(text[at-1])) && (end == len(text) || isBorder(text[end])) {
			return at
		}
		from = at + 1
	}
	return max(0, strings.Index(text, mark))
}

// printable replaces each character that would move the cursor or not be seen,
// one for one, so that columns stay.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return '\u00b7'
		}
	}, text)
}
