// SPDX-License-Identifier: Apache-2.0

// Package cli is sealer's command line: it turns flags into options, calls one
// function of the package that does the work, and prints the result. Results
// go to stdout, everything else to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// Run runs one command line and returns its exit code. A cancelled ctx stops
// the command, which cleans up behind itself.
func Run(ctx context.Context, args []string, s Streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	err = asUsage(cmd, err)
	if status, ok := errors.AsType[*exitStatusError](err); ok { // a process of our own has said what was wrong
		return status.code
	}
	if ctx.Err() != nil {
		_, _ = fmt.Fprintln(s.Err, "sealer: interrupted")
		return exitInterrupted
	}
	printError(s.Err, err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// usageError marks what the user typed wrongly.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Hint() string {
	return fmt.Sprintf("'%s --help' shows how it is used", e.command)
}

// asUsage marks what cobra itself has found wrong: the number of arguments, flags that are missing or do not go together.
func asUsage(cmd *cobra.Command, err error) error {
	if _, marked := errors.AsType[*usageError](err); marked {
		return err
	}
	for _, wrong := range []error{cmd.ValidateArgs(cmd.Flags().Args()), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()} {
		if wrong != nil && wrong.Error() == err.Error() {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
	}
	return err
}

// usagef makes a usageError for cmd.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// exitStatusError carries the exit code of this command run again in
// namespaces of its own; that process has printed its error.
type exitStatusError struct{ code int }

func (e *exitStatusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// printError shows the error, the source lines it carries and the hint, each once.
func printError(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "sealer: %s\n", strings.TrimRight(show(err), "\n"))
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) {
		if hint := hinter.Hint(); hint != "" {
			_, _ = fmt.Fprintf(w, "hint: %s\n", hint)
		}
	}
}

// show is an error's text, with source lines in place of what carries them. Of errors that were joined, all are shown.
func show(err error) string {
	if one, ok := err.(interface{ Show() string }); ok {
		return one.Show()
	}
	var inside interface{ Show() string }
	if !errors.As(err, &inside) {
		return err.Error()
	}
	switch e := err.(type) { //nolint:errorlint // each level is looked at by itself
	case interface{ Unwrap() error }:
		return show(e.Unwrap())
	case interface{ Unwrap() []error }:
		var texts, shown []string
		for _, one := range e.Unwrap() {
			texts, shown = append(texts, one.Error()), append(shown, show(one))
		}
		if strings.Join(texts, "\n") == err.Error() {
			return strings.Join(shown, "\n")
		}
	}
	return inside.Show()
}

// exactArgs is cobra's ExactArgs with a usage error that names what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef(cmd, "%s is missing", strings.Join(names[len(args):], " and "))
		}
		if len(args) > len(names) {
			return usagef(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error { return exactArgs()(cmd, args) }
