// SPDX-License-Identifier: Apache-2.0

// Package sourceerror is mistakes in a user's file: each with its line, shown
// with the line below it and the wrong word underlined.
package sourceerror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PositionError is a mistake in a line of a file.
type PositionError struct {
	File string
	Line int    // counted from 1
	Text string // the line as it stands in the file
	Mark string // the part of Text that is wrong; empty: nothing is underlined
	Err  error
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
	return e.Error() + "\n" + Excerpt(e.Line, e.Text, e.Mark)
}

// Errors is every mistake of one or several files.
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

// Sort puts the mistakes of one file into the order of its lines; those of one
// line keep theirs.
func (e Errors) Sort() {
	slices.SortStableFunc(e, func(a, b *PositionError) int { return cmp.Compare(a.Line, b.Line) })
}

func (e Errors) join(text func(*PositionError) string) string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = text(one)
	}
	return strings.Join(texts, "\n")
}
