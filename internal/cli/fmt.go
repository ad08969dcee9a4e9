// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/kubefile/format"
)

// maxKubefile is above what the parser takes, so that it can say so.
const maxKubefile = 16 << 20

type fmtFlags struct {
	kubefile           string
	check, diff, write bool
}

func newFmt(a *app) *cobra.Command {
	var o fmtFlags
	cmd := &cobra.Command{
		Use:   "fmt [CONTEXT]",
		Short: "Write a Kubefile in its canonical form",
		Long: `fmt prints the Kubefile of the folder CONTEXT (default: the current one) in one form:
instructions in upper case, one space between words, continued lines indented by four
spaces, one blank line before each stage. What the file means never changes; comments and
heredocs stay as they are. -f - reads standard input.`,
		Example: `  sealer fmt --write .
  sealer fmt --check -f deploy/Kubefile
  sealer fmt --diff .`,
		Args: atMostOne("CONTEXT"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.kubefile, "file", "f", "", "path of the Kubefile, - for standard input (default: CONTEXT/Kubefile)")
	f.BoolVar(&o.check, "check", false, "print the file's name and exit 1 where it would change")
	f.BoolVar(&o.diff, "diff", false, "print what would change, and exit 1 where anything would")
	f.BoolVarP(&o.write, "write", "w", false, "write the file, if it changes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.fmt(cmd, o, contextOf(args)) }
	return cmd
}

func (a *app) fmt(cmd *cobra.Command, o fmtFlags, contextDir string) error {
	switch {
	case o.check && o.diff, o.check && o.write, o.diff && o.write:
		return usagef(cmd, "--check, --diff and --write exclude each other")
	case o.write && o.kubefile == "-":
		return usagef(cmd, "--write has no file to write to with -f -")
	}
	path, src, err := a.readKubefile(o.kubefile, contextDir)
	if err != nil {
		return err
	}
	result, err := format.Source(path, src)
	if err != nil {
		return err
	}
	changed := !bytes.Equal(src, result)
	switch {
	case o.write && changed:
		return writeLike(path, result)
	case o.write:
		return nil
	case o.check && changed:
		if _, err := fmt.Fprintln(a.streams.Out, path); err != nil {
			return err
		}
		return &exitStatusError{code: exitFailed}
	case o.diff && changed:
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
			A: difflib.SplitLines(string(src)), B: difflib.SplitLines(string(result)),
			FromFile: path, ToFile: path + " (formatted)", Context: 3,
		})
		if err != nil {
			return fmt.Errorf("comparing %q: %w", path, err)
		}
		if _, err := io.WriteString(a.streams.Out, text); err != nil {
			return err
		}
		return &exitStatusError{code: exitFailed}
	case o.check, o.diff:
		return nil
	default:
		_, err := a.streams.Out.Write(result)
		return err
	}
}

// writeLike replaces a file as a whole, and keeps its mode.
func writeLike(path string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path) // the link stays one
	if err != nil {
		return err
	}
	return atomicfile.Write(real, content, info.Mode().Perm())
}

// readKubefile returns the text of a Kubefile and what messages call it.
func (a *app) readKubefile(path, contextDir string) (string, []byte, error) {
	if path == "-" {
		src, err := readBounded(a.streams.In)
		if err != nil {
			return "", nil, fmt.Errorf("reading the Kubefile from standard input: %w", err)
		}
		return "Kubefile", src, nil
	}
	if path == "" {
		path = filepath.Join(contextDir, "Kubefile")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("reading the Kubefile: %w", err)
	}
	defer func() { _ = file.Close() }()
	src, err := readBounded(file)
	if err != nil {
		return "", nil, fmt.Errorf("reading the Kubefile %q: %w", path, err)
	}
	return path, src, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, maxKubefile+1))
	if err == nil && len(src) > maxKubefile {
		err = errors.New("it is too large for a Kubefile")
	}
	return src, err
}

// contextOf is the folder of the build context, the current one by default.
func contextOf(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// atMostOne takes one argument or none.
func atMostOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return exactArgs(name)(cmd, args)
	}
}
