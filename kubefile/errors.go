// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"github.com/sealerio/sealer/internal/sourceerror"
)

// PositionError is a mistake in a line of a Kubefile.
type PositionError = sourceerror.PositionError

// Errors is every mistake of a Kubefile, in the order of its lines.
type Errors = sourceerror.Errors

// WarningKind tells warnings apart.
type WarningKind string

// The kinds of warnings.
const (
	UnknownDirective   WarningKind = "directive-unknown"
	EmptyContinuation  WarningKind = "continuation-blank"
	BrokenArray        WarningKind = "json-array-broken"
	OldMaintainer      WarningKind = "maintainer-deprecated"
	HiddenPlatformArg  WarningKind = "platform-arg-shadowed"
	UnknownStage       WarningKind = "stage-unknown"
	UnsetVariable      WarningKind = "variable-undefined"
	UnsetVariableTypo  WarningKind = "variable-undefined-near"   // one of a similar name is set
	UnsetGlobalInStage WarningKind = "variable-undefined-global" // it is declared above the first FROM only
)

// Warning is something that Parse or Expand accepts, though it is probably not
// what was meant.
type Warning struct {
	Kind    WarningKind
	File    string
	Line    int    // counted from 1
	Text    string // the line as it stands in the file
	Message string
}

// remark is a warning about the instruction that is being read.
type remark struct {
	kind    WarningKind
	message string
}

// String returns one line: the position and the message.
func (w Warning) String() string { return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Message) }

// Show returns the message with the line below it.
func (w Warning) Show() string {
	return w.String() + "\n" + sourceerror.Excerpt(w.Line, w.Text, sourceerror.FirstWord(w.Text))
}

// RefusedError is an instruction of a Dockerfile that means nothing for a
// cluster.
type RefusedError struct {
	Instruction string // in upper case
	Reason      string
	Advice      string // what to write instead; may be empty
}

func (e *RefusedError) Error() string { return e.Instruction + " is refused: " + e.Reason }

// Hint returns what to write instead, where there is something.
func (e *RefusedError) Hint() string { return e.Advice }

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
		return fmt.Sprintf("unknown instruction %s (did you mean %s?)", sourceerror.Printable(e.Word), e.Near)
	}
	return "unknown instruction " + sourceerror.Printable(e.Word)
}

// Hint says what usually is behind a word that resembles no instruction.
func (e *UnknownInstructionError) Hint() string {
	if e.Near != "" {
		return ""
	}
	return `where the line goes on from the one above, that one must end with \`
}

func unknownInstruction(word string) *UnknownInstructionError {
	near, _ := suggest.Search(strings.ToUpper(word), append(Words(), slices.Sorted(maps.Keys(refusals()))...), true)
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
