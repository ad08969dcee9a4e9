// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/sealerio/sealer/kubefile"
)

// command is a simple command of a shell script.
type command struct {
	// words are the program and its arguments, without quotes. A word that is
	// known only when the script runs keeps its variables as ${NAME}; other
	// substitutions become …
	words    []string
	assigned []string // the variables that are set for it, or by it
	writes   []string // the files that > and its like write
	pipe     *command // where its output goes; nil: to no command
}

// program is the name of what is started, without a folder.
func (c command) program() string {
	if len(c.words) == 0 {
		return ""
	}
	return path.Base(c.words[0])
}

// commandsOf returns what a RUN starts, in the order of the text; false where it
// is no script that could be read.
func commandsOf(run *kubefile.Run) ([]command, bool) {
	if !run.Shell {
		return []command{{words: run.Args}}, true
	}
	script := run.Script()
	if run.OnlyHeredoc() && strings.HasPrefix(script, "#!") {
		first, _, _ := strings.Cut(script, "\n")
		if !slices.Contains([]string{"sh", "ash", "bash", "dash"}, path.Base(strings.Fields(first + " x")[0])) {
			return nil, false
		}
	}
	return parseScript(script)
}

// parseScript reads a script of sh or bash.
func parseScript(script string) ([]command, bool) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return nil, false
	}
	r := &reader{index: map[*syntax.Stmt]int{}}
	syntax.Walk(file, r.visit)
	for _, pipe := range r.pipes {
		from, to := r.index[edge(pipe.X, false)], r.index[edge(pipe.Y, true)]
		r.commands[from].pipe = &r.commands[to]
	}
	return r.commands, true
}

// edge is the first or the last command of a pipeline.
func edge(stmt *syntax.Stmt, first bool) *syntax.Stmt {
	for {
		binary, ok := stmt.Cmd.(*syntax.BinaryCmd)
		switch {
		case !ok:
			return stmt
		case first:
			stmt = binary.X
		default:
			stmt = binary.Y
		}
	}
}

type reader struct {
	commands []command
	index    map[*syntax.Stmt]int // in commands
	pipes    []*syntax.BinaryCmd
}

func (r *reader) visit(node syntax.Node) bool {
	switch n := node.(type) {
	case *syntax.Stmt:
		r.index[n] = len(r.commands)
		r.commands = append(r.commands, newCommand(n))
	case *syntax.BinaryCmd:
		if n.Op == syntax.Pipe || n.Op == syntax.PipeAll {
			r.pipes = append(r.pipes, n)
		}
	}
	return true
}

func newCommand(stmt *syntax.Stmt) command {
	c := command{}
	for _, redirect := range stmt.Redirs {
		switch redirect.Op {
		case syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrAll, syntax.AppAll:
			c.writes = append(c.writes, wordText(redirect.Word))
		}
	}
	var assigns []*syntax.Assign
	switch cmd := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		for _, word := range cmd.Args {
			c.words = append(c.words, wordText(word))
		}
		assigns = cmd.Assigns
	case *syntax.DeclClause: // export NAME=value
		assigns = cmd.Args
	}
	for _, assign := range assigns {
		if assign.Name != nil {
			c.assigned = append(c.assigned, assign.Name.Value)
		}
	}
	return c
}

// wordText is a word without its quotes.
func wordText(word *syntax.Word) string {
	if word == nil {
		return ""
	}
	return partsText(word.Parts)
}

func partsText(parts []syntax.WordPart) string {
	var text strings.Builder
	for _, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			text.WriteString(strings.ReplaceAll(p.Value, "\\", ""))
		case *syntax.SglQuoted:
			text.WriteString(p.Value)
		case *syntax.DblQuoted:
			text.WriteString(partsText(p.Parts))
		case *syntax.ParamExp:
			if p.Param != nil {
				text.WriteString("${" + p.Param.Value + "}")
			}
		default:
			text.WriteString("…")
		}
	}
	return text.String()
}
