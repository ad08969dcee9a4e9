// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

const (
	// maxValue bounds one variable: Linux takes no longer string in a program's
	// environment (MAX_ARG_STRLEN in execve(2)).
	maxValue = 128 << 10
	// maxExpansion bounds the values that are put into one word or heredoc, so
	// that variables that double themselves cannot fill the memory.
	maxExpansion = 1 << 20
	// maxNesting bounds ${a:-${b:-…}}, which the lexer follows by recursion.
	maxNesting = 100
)

// variables keeps names in the order of their first declaration.
type variables struct {
	names  []string
	values map[string]string // a declared name may have none
}

func (v *variables) get(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

func (v *variables) declare(name string) {
	if !slices.Contains(v.names, name) {
		v.names = append(v.names, name)
	}
}

func (v *variables) set(name, value string) {
	v.declare(name)
	if v.values == nil {
		v.values = map[string]string{}
	}
	v.values[name] = value
}

func (v *variables) clone() *variables {
	other := &variables{names: slices.Clone(v.names)}
	for _, name := range v.names {
		if value, ok := v.get(name); ok {
			other.set(name, value)
		}
	}
	return other
}

// environ returns NAME=value for every variable that has a value.
func (v *variables) environ() []string {
	var list []string
	for _, name := range v.names {
		if value, ok := v.get(name); ok {
			list = append(list, name+"="+value)
		}
	}
	return list
}

// lookup returns the value of a variable and whether it has one.
type lookup func(name string) (string, bool)

// expandWord replaces the variables in a word and takes off its quotes and
// escapes. unset names the variables that have no value and no other word given
// for that case (${x:-…}), each once.
func expandWord(word string, escape rune, get lookup) (result string, unset []string, err error) {
	return expand(shell.NewLex(escape), word, get)
}

// expandText replaces the variables in a heredoc and leaves quotes as they are.
func expandText(text string, get lookup) (string, []string, error) {
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	return expand(lex, text, get)
}

func expand(lex *shell.Lex, word string, get lookup) (string, []string, error) {
	if word == "" {
		return "", nil, nil
	}
	if nesting(word) > maxNesting {
		return "", nil, fmt.Errorf("variables are nested more than %d deep", maxNesting)
	}
	if strings.IndexByte(word, 0) >= 0 {
		return "", nil, fmt.Errorf("%q holds a NUL byte", shorten(word))
	}
	env := &budget{get: get, left: maxExpansion}
	result, unmatched, err := lex.ProcessWord(word, env)
	if err != nil && strings.Count(word, "${") > strings.Count(word, "}") {
		return "", nil, fmt.Errorf("expanding %q: the } of a ${ is missing", shorten(word))
	}
	if err != nil {
		return "", nil, fmt.Errorf("expanding %q: %w", shorten(word), innermost(err))
	}
	if env.left < 0 {
		return "", nil, fmt.Errorf("expanding %q: the values have more than %d bytes", shorten(word), maxExpansion)
	}
	var unset []string
	for name := range unmatched {
		if !hasOtherwise(word, name) {
			unset = append(unset, name)
		}
	}
	slices.Sort(unset)
	return result, unset, nil
}

// hasOtherwise says whether a word says what stands for an unset variable.
func hasOtherwise(word, name string) bool {
	for _, operator := range []string{":-", ":+", ":?", "-", "+", "?"} {
		if strings.Contains(word, "${"+name+operator) {
			return true
		}
	}
	return false
}

// nesting is how many ${ are open at most.
func nesting(word string) int {
	deepest, open := 0, 0
	for i := 0; i < len(word); i++ {
		switch {
		case word[i] == '{' && i > 0 && word[i-1] == '$':
			open++
			deepest = max(deepest, open)
		case word[i] == '}' && open > 0:
			open--
		}
	}
	return deepest
}

// budget is a shell.EnvGetter that gives out so many bytes and then none.
type budget struct {
	get  lookup
	left int // negative: used up
}

func (b *budget) Get(name string) (string, bool) {
	value, ok := b.get(name)
	b.left -= len(value)
	if b.left < 0 {
		return "", ok
	}
	return value, ok
}

// Keys is part of the interface; the lexer asks for values only.
func (b *budget) Keys() []string { return nil }

// checkValue refuses values that no program could be given.
func checkValue(name, value string) error {
	switch {
	case len(value) > maxValue:
		return fmt.Errorf("the value of %s has %d bytes, more than the %d that a variable may have", name, len(value), maxValue)
	case strings.IndexByte(value, 0) >= 0 || !utf8.ValidString(value):
		return errors.New("the value of " + name + " is no text")
	default:
		return nil
	}
}

func shorten(word string) string {
	if len(word) <= 80 {
		return word
	}
	cut := 80
	for !utf8.RuneStart(word[cut]) {
		cut--
	}
	return word[:cut] + "…"
}
