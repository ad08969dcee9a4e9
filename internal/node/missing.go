// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/agext/levenshtein"
)

// MissingValueError says that a template asks for a value that is not given.
type MissingValueError struct {
	File string
	Line int
	Key  string // with dots, as in the template
	// Near is a value that is given and reads nearly the same; "": there is none.
	Near string
}

func (e *MissingValueError) Error() string {
	text := fmt.Sprintf("%s:%d: no value is given for %q", e.File, e.Line, e.Key)
	if e.Near != "" {
		text += fmt.Sprintf(" (did you mean %s?)", e.Near)
	}
	return text
}

// Hint says where values come from.
func (*MissingValueError) Hint() string {
	return `values are the environment of the image, of the application, of the Clusterfile and of the host; {{ with index . "KEY" }} asks for one that may be missing`
}

// missingValues finds the values that a template asks for in any case, and that are not given: execution stops at the
// first. What stands in the body of if, with, range or define, or behind the first argument of and, or, is left to execution.
func missingValues(t *template.Template, src string, values Values) error {
	m := missing{file: t.Name(), src: src, values: values}
	m.walk(t.Root)
	return errors.Join(m.errs...)
}

type missing struct {
	file, src string
	values    Values
	errs      []error
}

func (m *missing) walk(node parse.Node) {
	switch n := node.(type) {
	case *parse.ListNode:
		for _, child := range n.Nodes {
			m.walk(child)
		}
	case *parse.ActionNode:
		m.walk(n.Pipe)
	case *parse.IfNode:
		m.walk(n.Pipe)
	case *parse.RangeNode:
		m.walk(n.Pipe)
	case *parse.WithNode:
		m.walk(n.Pipe)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			m.walk(n.Pipe)
		}
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			m.command(command)
		}
	case *parse.FieldNode:
		m.look(n, n.Ident)
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			m.look(n, n.Ident[1:])
		}
	}
}

func (m *missing) command(n *parse.CommandNode) {
	args := n.Args
	if word, ok := args[0].(*parse.IdentifierNode); ok && (word.Ident == "and" || word.Ident == "or") && len(args) > 2 {
		args = args[:2] // the others may not be looked at
	}
	for _, arg := range args {
		m.walk(arg)
	}
}

// look follows a key with dots through the values.
func (m *missing) look(node parse.Node, key []string) {
	at := any(map[string]any(m.values))
	for _, part := range key {
		object, ok := at.(map[string]any)
		if !ok {
			return // a method or a field of something else: execution tells
		}
		if at, ok = object[part]; !ok {
			line := 1 + strings.Count(m.src[:min(int(node.Position()), len(m.src))], "\n")
			m.errs = append(m.errs, &MissingValueError{File: m.file, Line: line, Key: strings.Join(key, "."), Near: nearest(part, object)})
			return
		}
	}
}

// nearest is the key that differs in two letters at most, or in case alone.
func nearest(word string, object map[string]any) string {
	best, least := "", 3
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(key), nil); d < least && d < len(word) {
			best, least = key, d
		}
	}
	return best
}
