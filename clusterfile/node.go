// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxSource bounds a Clusterfile, maxNodes what aliases may blow it up to, maxDepth its nesting.
const (
	maxSource = 4 << 20
	maxNodes  = 100_000
	maxDepth  = 100
)

// node is one YAML value with its place.
type node struct {
	line, column int
	kind         nodeKind
	scalar       any      // string, int64, float64, bool
	keys         []string // of a mapping, in the file's order
	keyNodes     []*node
	values       []*node // of a mapping or a list
	wrong        bool    // its shape was told of as a mistake
	partial      bool    // that of a value in it was, or it has a key that nobody knows
	literal      bool    // a text whose lines stand below, one by one (|)
}

type nodeKind int

const (
	nullNode nodeKind = iota
	scalarNode
	mappingNode
	listNode
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a single value", "a mapping", "a list"}[k]
}

// at follows mapping keys and list indexes as far as they exist, so that a
// message about something missing points at what should hold it.
func (n *node) at(path ...any) *node {
	for _, p := range path {
		next := n.child(p)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func (n *node) child(p any) *node {
	switch p := p.(type) {
	case string:
		for i, k := range n.keys {
			if k == p {
				return n.values[i]
			}
		}
	case int:
		if n.kind == listNode && p < len(n.values) {
			return n.values[p]
		}
	}
	return nil
}

// plain is the value without places: map[string]any, []any and scalars.
func (n *node) plain() any {
	switch n.kind {
	case scalarNode:
		return n.scalar
	case mappingNode:
		m := make(map[string]any, len(n.keys))
		for i, k := range n.keys {
			m[k] = n.values[i].plain()
		}
		return m
	case listNode:
		l := make([]any, len(n.values))
		for i, v := range n.values {
			l[i] = v.plain()
		}
		return l
	}
	return nil
}

// list are the values of a list; nothing else has some.
func (n *node) list(key string) []*node {
	if l := n.child(key); l != nil && l.kind == listNode {
		return l.values
	}
	return nil
}

// source is a Clusterfile's text, where mistakes are gathered.
type source struct {
	name    string
	lines   []string
	errs    Errors
	clear   []Place // secrets in clear
	unknown bool    // what some document is about
	hosts   *node   // that all are understood
	said    []saidLine
	vars    []variable
}

// variable is one of an environment.
type variable struct {
	name, value string
	at          *node
}

// saidLine is where a plugin says something of a host.
type saidLine struct {
	PluginLine
	at *node
}

// lineOf is where the line i of a text stands; the text as a whole where that cannot be told.
func (s *source) lineOf(text *node, i int, line string) *node {
	at := text.line + i // below the first one, which is |
	if !text.literal || at >= len(s.lines) || strings.TrimSpace(s.lines[at]) != strings.TrimSpace(line) {
		return text
	}
	raw := s.lines[at]
	return &node{line: at + 1, column: 1 + len(raw) - len(strings.TrimLeft(raw, " \t"))}
}

// fail notes what is wrong with the meaning of a value, unless its shape is: that was told.
func (s *source) fail(n *node, format string, args ...any) {
	if !n.wrong && !n.partial {
		s.failAt(n.line, n.column, fmt.Errorf(format, args...))
	}
}

// failShape notes what is wrong with the shape of a value.
func (s *source) failShape(n *node, format string, args ...any) {
	n.wrong = true
	s.failAt(n.line, n.column, fmt.Errorf(format, args...))
}

func (s *source) failAt(line, column int, err error) {
	e := &PositionError{File: s.name, Line: line, Column: column, Err: err}
	if line > 0 && line <= len(s.lines) {
		e.Text = s.lines[line-1]
	}
	s.errs = append(s.errs, e)
}

// documents parses YAML text. Where it is not YAML at all, the one mistake is that.
func (s *source) documents(src []byte) []*node {
	if len(src) > maxSource {
		s.failAt(0, 0, fmt.Errorf("it is larger than %d bytes", maxSource))
		s.unknown = true
		return nil
	}
	file, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		s.unknown = true
		s.syntax(err)
		return nil
	}
	var docs []*node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		r := reader{source: s, anchors: map[string]ast.Node{}}
		if n := r.read(doc.Body, 0); n.kind != nullNode {
			docs = append(docs, n)
		}
	}
	return docs
}

func (s *source) syntax(err error) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
		s.failAt(syntax.Token.Position.Line, syntax.Token.Position.Column, errors.New(syntax.Message))
		return
	}
	s.failAt(0, 0, err)
}

// reader turns one document's syntax tree into nodes.
type reader struct {
	*source
	anchors map[string]ast.Node
	count   int
	stopped bool // too large: said once
}

func (r *reader) read(a ast.Node, depth int) *node {
	n := &node{}
	if a == nil {
		return n
	}
	if t := a.GetToken(); t != nil && t.Position != nil {
		n.line, n.column = t.Position.Line, t.Position.Column
	}
	if r.count++; r.count > maxNodes || depth > maxDepth {
		if !r.stopped {
			r.stopped = true
			r.failShape(n, "the document is too large or nested too deeply")
		}
		return n
	}
	switch a := a.(type) {
	case *ast.NullNode, *ast.CommentGroupNode:
	case *ast.BoolNode:
		n.kind, n.scalar = scalarNode, a.Value
	case *ast.IntegerNode:
		r.integer(n, a)
	case *ast.FloatNode:
		n.kind, n.scalar = scalarNode, a.Value
	case *ast.StringNode:
		n.kind, n.scalar = scalarNode, a.Value
	case *ast.LiteralNode:
		n.kind, n.scalar = scalarNode, a.Value.Value
		n.literal = a.Start != nil && a.Start.Type == token.LiteralType
	case *ast.MappingNode:
		r.mapping(n, a.Values, depth)
	case *ast.MappingValueNode:
		r.mapping(n, []*ast.MappingValueNode{a}, depth)
	case *ast.SequenceNode:
		n.kind = listNode
		for _, v := range a.Values {
			n.values = append(n.values, r.read(v, depth+1))
		}
	case *ast.AnchorNode:
		if a.Name != nil {
			r.anchors[a.Name.String()] = a.Value
		}
		return r.read(a.Value, depth+1)
	case *ast.AliasNode:
		target, ok := r.anchors[a.Value.String()]
		if !ok {
			r.failShape(n, "unknown alias %q", a.Value.String())
			return n
		}
		return r.read(target, depth+1)
	case *ast.TagNode:
		if name := a.Start.Value; name != "!!str" && name != "!!int" && name != "!!bool" && name != "!!map" && name != "!!seq" {
			r.failShape(n, "the tag %s is not understood", name)
			return n
		}
		return r.tagged(a, depth)
	default:
		r.failShape(n, "%s is not understood here", strings.TrimSpace(a.Type().String()))
	}
	return n
}

// tagged: only !!str changes a value, all other tags here say what it is already.
func (r *reader) tagged(a *ast.TagNode, depth int) *node {
	n := r.read(a.Value, depth+1)
	if a.Start.Value == "!!str" && n.kind == scalarNode && a.Value != nil && a.Value.GetToken() != nil {
		n.scalar = a.Value.GetToken().Value
	}
	return n
}

func (r *reader) integer(n *node, a *ast.IntegerNode) {
	n.kind = scalarNode
	switch v := a.Value.(type) {
	case int64:
		n.scalar = v
	case uint64:
		if v > math.MaxInt64 {
			r.failShape(n, "the number %d is too large", v)
			return
		}
		n.scalar = int64(v)
	default:
		r.failShape(n, "%v is not a number", a.Value)
	}
}

func (r *reader) mapping(n *node, values []*ast.MappingValueNode, depth int) {
	n.kind = mappingNode
	if len(values) > 0 && values[0].Key != nil { // a mapping's own token is the first colon
		if t := values[0].Key.GetToken(); t != nil && t.Position != nil {
			n.line, n.column = t.Position.Line, t.Position.Column
		}
	}
	for _, v := range values {
		key := r.key(v)
		if key == nil {
			continue
		}
		name, _ := key.scalar.(string)
		if n.child(name) != nil {
			r.failShape(key, "%q is there twice", name)
			continue
		}
		child := r.read(v.Value, depth+1)
		if child.line == 0 || child.kind == nullNode {
			child.line, child.column = key.line, key.column
		}
		n.keys = append(n.keys, name)
		n.keyNodes = append(n.keyNodes, key)
		n.values = append(n.values, child)
	}
}

func (r *reader) key(v *ast.MappingValueNode) *node {
	if _, merge := v.Key.(*ast.MergeKeyNode); merge {
		n := &node{}
		if t := v.Key.GetToken(); t != nil && t.Position != nil {
			n.line, n.column = t.Position.Line, t.Position.Column
		}
		r.failShape(n, "merge keys (<<) are not understood: repeat the fields")
		return nil
	}
	key := r.read(v.Key, 0)
	if t := v.Key.GetToken(); key.kind == scalarNode && t != nil {
		if _, isText := key.scalar.(string); !isText || t.Type == token.MappingKeyType {
			key.scalar = strings.TrimSpace(t.Value) // true: and 1: are texts where they are keys
		}
		return key
	}
	r.failShape(key, "a key must be a single value")
	return nil
}
