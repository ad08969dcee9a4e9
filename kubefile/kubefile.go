// SPDX-License-Identifier: Apache-2.0

// Package kubefile turns the bytes of a Kubefile into typed instructions that
// know their lines, and expands their variables. It does no I/O: no file is
// opened, no image is asked for.
//
// A Kubefile is read by BuildKit's Dockerfile parser, so that continued lines,
// heredocs, flags, quoting and variables mean what they mean in a Dockerfile
// (https://docs.docker.com/reference/dockerfile/). What differs:
//   - ARCH is another name of TARGETARCH, and the platform variables need no
//     ARG line before they are used;
//   - CMD may stand several times: each adds a command, in order; a JSON array
//     whose first string holds a space is a list of command lines, and
//     ENTRYPOINT goes before CMD, as sealos has both;
//   - APP, APPCMDS, APPENV, CNI, CSI, KUBEVERSION, LAUNCH and CMDS are sealer's;
//   - instructions that only mean something for a container are refused;
//   - `RUN --in-rootfs` runs inside the cluster's own root file system;
//   - `# toolbox=IMAGE` names the image that the other RUN lines run in;
//   - every mistake of the file is reported, not only the first.
package kubefile

import (
	"strconv"
	"strings"

	"github.com/sealerio/sealer/internal/sourceerror"
)

// File is a parsed Kubefile.
type File struct {
	Name       string // as given to Parse; errors begin with it
	Source     []byte // as given to Parse
	Directives Directives
	Args       []*Arg   // the ARG lines before the first FROM
	Stages     []*Stage // at least one
	Warnings   []Warning

	lines []string // the source without line ends
}

// Directives are the `# name=value` comments at the top of the file.
type Directives struct {
	Syntax string // frontend image for BuildKit; empty where there is none
	Escape rune   // '\\' or '`'; '\\' where the file says nothing
	// Toolbox is the image that RUN lines run in; empty where there is none.
	// Unlike Docker's directives it may follow other comments, so that a
	// licence can stand above it.
	Toolbox string
}

// Stage is a FROM line and the instructions up to the next one.
type Stage struct {
	Index        int    // from 0
	Name         string // after AS, in lower case; empty where there is none
	From         *From
	Instructions []Instruction
}

// String returns the stage's name or its number, for messages.
func (s *Stage) String() string {
	if s.Name != "" {
		return s.Name
	}
	return strconv.Itoa(s.Index)
}

// LookupStage finds the stage that FROM or COPY --from calls ref: its name, in
// any case, or its number. Only stages before the one with number before count.
// Pass len(f.Stages) to search them all. Numbers are for COPY --from alone, as
// in a Dockerfile: a FROM line should pass its word through LookupName.
func (f *File) LookupStage(ref string, before int) (*Stage, bool) {
	if stage, ok := f.LookupName(ref, before); ok {
		return stage, true
	}
	if n, err := strconv.Atoi(ref); err == nil && n >= 0 && n < min(before, len(f.Stages)) {
		return f.Stages[n], true
	}
	return nil, false
}

// LookupName is LookupStage for names only.
func (f *File) LookupName(name string, before int) (*Stage, bool) {
	for _, stage := range f.Stages[:min(before, len(f.Stages))] {
		if stage.Name != "" && strings.EqualFold(stage.Name, name) {
			return stage, true
		}
	}
	return nil, false
}

// line returns the text of a line, counted from 1; empty outside the file.
func (f *File) line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return f.lines[n-1]
}

// errorAt builds an error that points at line n, clamped into the file. mark is
// the word to underline when the error is shown; empty: the first word.
func (f *File) errorAt(n int, mark string, err error) *PositionError {
	n = max(1, min(n, len(f.lines)))
	text := f.line(n)
	if mark == "" || !strings.Contains(text, mark) {
		mark = sourceerror.FirstWord(text)
	}
	return &PositionError{File: f.Name, Line: n, Text: text, Mark: mark, Err: err}
}

func (f *File) warn(n int, kind WarningKind, message string) {
	n = max(1, min(n, len(f.lines)))
	f.Warnings = append(f.Warnings, Warning{Kind: kind, File: f.Name, Line: n, Text: f.line(n), Message: message})
}
