// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"strings"
)

// PositionError is one mistake in a Clusterfile.
type PositionError struct {
	File         string
	Line, Column int    // from 1; 0 where the file as a whole is meant
	Text         string // the line
	Err          error
}

func (e *PositionError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

func (e *PositionError) Unwrap() error { return e.Err }

// Show is the message with the line and a mark below the column; without them
// where the line may hold a password.
func (e *PositionError) Show() string {
	if e.Line == 0 || strings.TrimSpace(e.Text) == "" || looksSecret(e.Text) {
		return e.Error()
	}
	text := e.Text
	col := min(e.Column-1, len(text))
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, text[:max(col, 0)])
	return fmt.Sprintf("%s\n    %s\n    %s^", e.Error(), text, pad)
}

func looksSecret(line string) bool {
	line = strings.ToLower(line)
	for _, word := range []string{
		"passwd", "password", "token", "secret", "certificatekey", "authpass", "datasource", "datastore-endpoint", "access-key", "vpn-auth",
	} {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}

// Errors are all mistakes of a Clusterfile, in the order of their lines.
type Errors []*PositionError

func (e Errors) Error() string { return e.join((*PositionError).Error) }

// Show is the message with the lines that are meant.
func (e Errors) Show() string { return e.join((*PositionError).Show) }

func (e Errors) join(text func(*PositionError) string) string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = text(p)
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each of them.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

// AddressError is a text that is no address, list or range of addresses.
type AddressError struct {
	Text, Why string
}

func (e *AddressError) Error() string { return fmt.Sprintf("%q %s", e.Text, e.Why) }

// Hint shows what is understood.
func (e *AddressError) Hint() string {
	return "write addresses as 10.0.0.2,10.0.0.3 or as a range, 10.0.0.2-10.0.0.9, and host names one by one"
}
