// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// StageScope is the variables inside one stage. It changes as the stage's
// instructions are expanded in their order; it is not for concurrent use.
type StageScope struct {
	scope    *Scope
	env      *variables // the image's: of the base, then of ENV
	args     *variables // of ARG
	warnings []Warning
}

// Stage begins a stage whose base image has the environment baseEnv, a list of
// NAME=value. For a stage that is based on another stage use Child.
func (s *Scope) Stage(baseEnv []string) *StageScope {
	t := &StageScope{scope: s, env: &variables{}, args: &variables{}}
	for _, entry := range baseEnv {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			t.env.set(name, value)
		}
	}
	return t
}

// Child begins a stage that is based on this one: it inherits ENV and ARG, as
// https://docs.docker.com/build/building/variables/#scoping says.
func (t *StageScope) Child() *StageScope {
	return &StageScope{scope: t.scope, env: t.env.clone(), args: t.args.clone()}
}

// Env returns the environment of the image so far, as NAME=value.
func (t *StageScope) Env() []string { return t.env.environ() }

// RunEnv returns what a RUN line sees: Env, the values of ARG lines, and the
// platform variables. Where a name stands in several, the first of these wins.
func (t *StageScope) RunEnv() []string {
	list := t.env.environ()
	for _, more := range []*variables{t.args, t.scope.predefined} {
		for _, entry := range more.environ() {
			name, _, _ := strings.Cut(entry, "=")
			if !slices.ContainsFunc(list, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
				list = append(list, entry)
			}
		}
	}
	return list
}

// Warnings returns what Expand found so far: variables that have no value.
func (t *StageScope) Warnings() []Warning { return slices.Clone(t.warnings) }

func (t *StageScope) get(name string) (string, bool) {
	for _, vars := range []*variables{t.env, t.args, t.scope.predefined} {
		if value, ok := vars.get(name); ok {
			return value, true
		}
	}
	return "", false
}

// Expand returns a copy of an instruction with its variables replaced, and
// notes what ENV and ARG lines define. Instructions are to be given in the
// order of the file. The commands of RUN and CMD stay as they are: their
// variables are the shell's. An error is a *PositionError.
func (t *StageScope) Expand(instruction Instruction) (Instruction, error) {
	e := &expansion{scope: t, line: instruction.Lines().First}
	expanded := e.instruction(instruction)
	if e.err != nil {
		return nil, t.scope.file.errorAt(e.line, e.mark, e.err)
	}
	return expanded, nil
}

// expansion expands one instruction; the first error stays.
type expansion struct {
	scope *StageScope
	line  int
	mark  string
	err   error
}

func (e *expansion) fail(mark string, err error) {
	if e.err == nil && err != nil {
		e.mark, e.err = mark, err
	}
}

// word expands one word.
func (e *expansion) word(word string) string {
	result, unset, err := expandWord(word, e.scope.scope.file.Directives.Escape, e.scope.get)
	e.fail(word, err)
	e.warnUnset(unset)
	return result
}

// path expands a word that must not become empty: COPY of an empty source would
// be COPY of everything.
func (e *expansion) path(what, word string) string {
	result := e.word(word)
	if result == "" {
		e.fail(word, fmt.Errorf("the %s %s is empty", what, word))
	}
	return result
}

func (e *expansion) warnUnset(unset []string) {
	t := e.scope
	f := t.scope.file
	for _, name := range unset {
		w := Warning{Kind: UnsetVariable, File: f.Name, Line: e.line, Text: f.line(e.line), Message: name + " is not set"}
		near := didYouMean(name, slices.Concat(t.args.names, t.env.names, t.scope.predefined.names))
		switch {
		case slices.Contains(t.scope.global.names, name):
			w.Kind = UnsetGlobalInStage
			w.Message += fmt.Sprintf(": it is declared above FROM, write ARG %s in this stage too", name)
		case near != "":
			w.Kind = UnsetVariableTypo
			w.Message += near
		}
		if !slices.Contains(t.warnings, w) {
			t.warnings = append(t.warnings, w)
		}
	}
}

func (e *expansion) instruction(instruction Instruction) Instruction {
	switch c := instruction.(type) {
	case *Copy:
		copied := e.copy(*c)
		e.check(checkCopy("COPY", &copied, copied.From != ""))
		return &copied
	case *Add:
		added := *c
		added.Copy = e.copy(c.Copy)
		added.Checksum = e.word(c.Checksum)
		e.check(checkAdd(&added))
		return &added
	case *Run:
		return e.run(*c)
	case *Env:
		set := *c
		set.Vars = e.pairs("ENV", c.Vars)
		for _, v := range set.Vars {
			e.variable("ENV", v)
			e.scope.env.set(v.Key, v.Value)
		}
		return &set
	case *Label:
		label := *c
		label.Labels = e.pairs("LABEL", c.Labels)
		return &label
	case *Arg:
		return e.arg(*c)
	case *App:
		app := *c
		app.Sources = nil
		for _, source := range c.Sources {
			app.Sources = append(app.Sources, e.path("source", source))
		}
		app.Checksum = e.word(c.Checksum)
		e.check(checkApp(&app))
		return &app
	case *AppEnv:
		set := *c
		set.Vars = e.pairs("APPENV", c.Vars)
		for _, v := range set.Vars {
			e.variable("APPENV "+c.Name, v)
		}
		return &set
	case *KubeVersion:
		version := *c
		version.Constraint = e.path("version", c.Constraint)
		e.check(checkConstraint(version.Constraint))
		return &version
	case *Workdir:
		dir := *c
		dir.Path = e.path("folder", c.Path)
		return &dir
	case *User:
		user := *c
		user.User = e.path("user", c.User)
		return &user
	case *Cmd, *Entrypoint, *Maintainer, *Shell, *AppCmds, *Launch, *Cmds:
		return instruction
	default:
		e.fail("", fmt.Errorf("%T is no instruction of a Kubefile", instruction))
		return instruction
	}
}

func (e *expansion) variable(what string, v KeyValue) {
	e.fail(v.Key, checkValue(v.Key, v.Value))
	if strings.ContainsRune(v.Key, '=') {
		e.fail(v.Key, fmt.Errorf("%s %q: a name cannot hold =", what, v.Key))
	}
}

func (e *expansion) check(err error) { e.fail(markOf(err), err) }

func (e *expansion) copy(c Copy) Copy {
	var sources []string
	for _, source := range c.Sources {
		sources = append(sources, e.path("source", source))
	}
	c.Sources = sources
	c.Dest = e.path("destination", c.Dest)
	c.Chown = e.word(c.Chown)
	c.Chmod = e.word(c.Chmod)
	c.Exclude = slices.Clone(c.Exclude)
	c.Heredocs = slices.Clone(c.Heredocs)
	for i, doc := range c.Heredocs {
		if !doc.Expand {
			continue
		}
		content, unset, err := expandText(doc.Content, e.scope.get)
		e.fail(doc.Name, err)
		e.warnUnset(unset)
		c.Heredocs[i].Content = content
	}
	return c
}

func (e *expansion) run(r Run) Instruction {
	mounts, err := parseMounts(r.mounts, func(word string) (string, error) {
		return e.word(word), e.err
	})
	e.fail("--mount", err)
	r.Mounts = mounts
	return &r
}

// pairs expands all values before any of them is set: in ENV a=1 b=$a the
// second is the a of the lines above.
func (e *expansion) pairs(what string, list []KeyValue) []KeyValue {
	var result []KeyValue
	for _, pair := range list {
		expanded := KeyValue{Key: e.word(pair.Key), Value: e.word(pair.Value)}
		if expanded.Key == "" {
			e.fail(pair.Key, errors.New(what+" has an empty name"))
		}
		result = append(result, expanded)
	}
	return result
}

// arg gives each variable its value: the build argument, its default, or what
// an ARG of that name above the first FROM has.
func (e *expansion) arg(a Arg) Instruction {
	t := e.scope
	a.Vars = slices.Clone(a.Vars)
	for i, v := range a.Vars {
		value, err := t.scope.argValue(v, t.get)
		e.fail(v.Name, err)
		if inherited, ok := t.scope.inFrom(v.Name); value == nil && ok {
			value = &inherited
		}
		t.args.declare(v.Name)
		if value != nil {
			t.args.set(v.Name, *value)
		}
		a.Vars[i].Value = value
	}
	return &a
}
