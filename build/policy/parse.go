// SPDX-License-Identifier: Apache-2.0

// Package policy says which images may go into a ClusterImage: from which registries, under which names, with which
// signatures and licences.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/signature"
)

// The words of rules that are asked for or not.
const (
	allow    = "allow"
	deny     = "deny"
	optional = "optional"
	required = "required"
)

// Rules are a policy as it stands in its file. What is not said is allowed.
type Rules struct {
	Registries Registries   `yaml:"registries" json:"registries"`
	Latest     string       `yaml:"latest" json:"latest,omitempty"` // the tag latest: allow (default), deny
	Digest     string       `yaml:"digest" json:"digest,omitempty"` // in the name: optional (default), required
	Licenses   Licenses     `yaml:"licenses" json:"licenses"`
	Signatures []Signatures `yaml:"signatures" json:"signatures,omitempty"`
	Exceptions []Exception  `yaml:"exceptions" json:"exceptions,omitempty"`
}

// Registries are patterns of names. One without a star stands for everything below it: quay.io, quay.io/team.
type Registries struct {
	Allow []string `yaml:"allow" json:"allow,omitempty"` // none: all
	Deny  []string `yaml:"deny" json:"deny,omitempty"`
}

// Licenses are SPDX identifiers, of the label org.opencontainers.image.licenses.
type Licenses struct {
	Allow   []string `yaml:"allow" json:"allow,omitempty"`     // none: all
	Unknown string   `yaml:"unknown" json:"unknown,omitempty"` // images without the label: allow (default), deny
}

// Signatures are asked of images whose name one of the patterns matches; one of the keys is enough.
type Signatures struct {
	Images []string `yaml:"images" json:"images"`
	Keys   []string `yaml:"keys" json:"keys"` // files with public keys, relative to the policy
}

// Exception lets images pass. The reason is kept in the image's attestation.
type Exception struct {
	Images []string `yaml:"images" json:"images"`
	Reason string   `yaml:"reason" json:"reason"`
}

// Policy is what is checked.
type Policy struct {
	Rules  Rules
	Name   string // of the file, without its folder
	Digest digest.Digest

	allowed, denied patterns
	signatures      []signatureRule
	keys            map[string]string // digest of each file of a key
	exceptions      []exceptionRule
}

type signatureRule struct {
	images patterns
	keys   []*signature.PublicKey
}

type exceptionRule struct {
	images patterns
	reason string
}

// PositionError is a mistake in a line of a policy.
type PositionError struct {
	File string
	Line int
	Err  error
}

func (e *PositionError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }
func (e *PositionError) Unwrap() error { return e.Err }

// Errors are all mistakes of a policy, by line.
type Errors []*PositionError

func (e Errors) Error() string {
	words := make([]string, len(e))
	for i, one := range e {
		words[i] = one.Error()
	}
	return strings.Join(words, "\n")
}

// Parse reads a policy. readKey reads the file of a public key, as the policy names it. The error is Errors.
func Parse(name string, src []byte, readKey func(file string) ([]byte, error)) (*Policy, error) {
	r := &reader{file: name}
	tree, err := parser.ParseBytes(src, 0)
	if err != nil {
		return nil, r.syntax(err)
	}
	r.tree = tree
	if len(tree.Docs) > 1 {
		r.failAt(tree.Docs[1].Body, errors.New("a policy is one document"))
		return nil, r.errs
	}
	for _, doc := range tree.Docs {
		r.keys("", doc.Body)
	}
	p := &Policy{keys: map[string]string{}, Name: path.Base(name), Digest: digest.FromBytes(src)}
	if err := yaml.Unmarshal(src, &p.Rules); err != nil && len(r.errs) == 0 {
		return nil, r.syntax(err)
	}
	if len(r.errs) == 0 {
		r.compile(p, readKey)
	}
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b *PositionError) int { return cmp.Compare(a.Line, b.Line) })
		return nil, r.errs
	}
	return p, nil
}

// reader collects mistakes.
type reader struct {
	file string
	tree *ast.File
	errs Errors
}

func (r *reader) syntax(err error) error {
	line := 1
	if positioned, ok := errors.AsType[yaml.Error](err); ok {
		if t := positioned.GetToken(); t != nil {
			line = t.Position.Line
		}
		err = errors.New(positioned.GetMessage())
	}
	return Errors{{File: r.file, Line: line, Err: err}}
}

func (r *reader) failAt(n ast.Node, err error) {
	line := 1
	if n != nil && n.GetToken() != nil {
		line = n.GetToken().Position.Line
	}
	r.errs = append(r.errs, &PositionError{File: r.file, Line: line, Err: err})
}

// fail finds the line of a path such as $.signatures[0].keys.
func (r *reader) fail(where string, err error) {
	var n ast.Node
	if p, perr := yaml.PathString(where); perr == nil {
		n, _ = p.FilterFile(r.tree) // where it does not stand the first line has to do
	}
	r.failAt(n, err)
}

// known are the keys of each mapping.
func known(at string) []string {
	switch at {
	case "":
		return []string{"registries", "latest", "digest", "licenses", "signatures", "exceptions"}
	case "registries":
		return []string{"allow", "deny"}
	case "licenses":
		return []string{"allow", "unknown"}
	case "signatures":
		return []string{"images", "keys"}
	case "exceptions":
		return []string{"images", "reason"}
	}
	return nil
}

// keys refuses words that mean nothing: a policy with a typing mistake must not pass everything.
func (r *reader) keys(at string, n ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			r.key(at, v)
		}
	case *ast.MappingValueNode:
		r.key(at, n)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			r.keys(at, v)
		}
	}
}

func (r *reader) key(at string, v *ast.MappingValueNode) {
	name := v.Key.GetToken().Value
	if words := known(at); words != nil && !slices.Contains(words, name) {
		r.failAt(v.Key, fmt.Errorf("unknown key %q: %s are known", name, strings.Join(words, ", ")))
		return
	}
	if at == "" {
		r.keys(name, v.Value)
	}
}

func (r *reader) compile(p *Policy, readKey func(string) ([]byte, error)) {
	rules := &p.Rules
	p.allowed = r.patterns("$.registries.allow", rules.Registries.Allow)
	p.denied = r.patterns("$.registries.deny", rules.Registries.Deny)
	r.word("$.latest", rules.Latest, allow, deny)
	r.word("$.digest", rules.Digest, optional, required)
	r.word("$.licenses.unknown", rules.Licenses.Unknown, allow, deny)
	for i, s := range rules.Signatures {
		where := fmt.Sprintf("$.signatures[%d]", i)
		rule := signatureRule{images: r.patterns(where+".images", s.Images)}
		if len(s.Images) == 0 || len(s.Keys) == 0 {
			r.fail(where, errors.New("a signature rule needs images and keys"))
		}
		for j, file := range s.Keys {
			data, err := readKey(file)
			if err == nil {
				var key *signature.PublicKey
				key, err = signature.ReadPublicKey(file, data)
				rule.keys = append(rule.keys, key)
				p.keys[file] = digest.FromBytes(data).String()
			}
			if err != nil {
				r.fail(fmt.Sprintf("%s.keys[%d]", where, j), err)
			}
		}
		p.signatures = append(p.signatures, rule)
	}
	for i, e := range rules.Exceptions {
		where := fmt.Sprintf("$.exceptions[%d]", i)
		if len(e.Images) == 0 || strings.TrimSpace(e.Reason) == "" {
			r.fail(where, errors.New("an exception needs images and a reason"))
		}
		p.exceptions = append(p.exceptions, exceptionRule{images: r.patterns(where+".images", e.Images), reason: e.Reason})
	}
}

func (r *reader) word(where, value string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		r.fail(where, fmt.Errorf("%q is unknown: %s are known", value, strings.Join(words, " and ")))
	}
}

// patterns are globs of names: * is within one part of a name, ** is any parts, and what matches stands for all below it.
type patterns []*patternmatcher.PatternMatcher

func (r *reader) patterns(where string, list []string) patterns {
	var out patterns
	for i, text := range list {
		m, err := patternmatcher.New([]string{text})
		if err == nil && (strings.TrimSpace(text) == "" || strings.HasPrefix(text, "!")) {
			err = errors.New("it is empty, or begins with an exclamation mark")
		}
		if err != nil {
			r.fail(fmt.Sprintf("%s[%d]", where, i), fmt.Errorf("pattern %q: %w", text, err))
			continue
		}
		out = append(out, m)
	}
	return out
}

func (p patterns) match(names ...string) bool {
	for _, m := range p {
		for _, name := range names {
			if ok, err := m.MatchesOrParentMatches(name); err == nil && ok {
				return true
			}
		}
	}
	return false
}
