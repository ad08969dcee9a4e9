// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// variableRules are about ARG and ENV.
func variableRules() []Rule {
	return []Rule{
		{
			Name: "variable-undefined", Severity: Warning,
			Summary: "a variable has no value where it is used",
			Why:     "It becomes an empty string. Declare it with ARG or ENV above, or say what stands for it: ${NAME:-default}. An ARG above the first FROM is for FROM lines; a stage that wants it says ARG NAME again. With an image as the base, which may set variables of its own, only probable slips are reported.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPY app-${VERSION}.yaml manifests/\n"},
			Good:    Example{Kubefile: "FROM scratch\nARG VERSION=1.2\nCOPY app-${VERSION}.yaml manifests/\n"},
			check: func(s *subject) {
				for _, t := range s.stages {
					for _, w := range t.warnings {
						switch w.Kind {
						case kubefile.UnsetVariable:
							if t.root() == "scratch" {
								s.reportLine(w.Line, "", w.Message)
							}
						case kubefile.UnsetVariableTypo, kubefile.UnsetGlobalInStage:
							s.reportLine(w.Line, "", w.Message)
						}
					}
				}
			},
		},
		{
			Name: "arg-unused", Severity: Warning,
			Summary: "nothing reads an ARG",
			Why:     "Whoever passes --build-arg expects that it changes something. Use the variable, or take the line out. A program that RUN starts may read it from its environment: such files are not reported.",
			Bad:     Example{Kubefile: "FROM scratch\nARG VERSION=1.2\nCOPY manifests manifests\n"},
			Good:    Example{Kubefile: "FROM scratch\nARG VERSION=1.2\nCOPY manifests-${VERSION} manifests\n"},
			check:   checkUnused,
		},
		{
			Name: "platform-arg-shadowed", Severity: Warning,
			Summary: "an ARG gives a platform variable a value of its own",
			Why:     "ARCH, TARGETARCH and their like are set by the build. With a default of its own the variable no longer follows the platform; and no ARG line is needed.",
			Bad:     Example{Kubefile: "FROM scratch\nARG ARCH=amd64\nCOPY ${ARCH} .\n"},
			Good:    Example{Kubefile: "FROM scratch\nCOPY ${ARCH} .\n"},
			check:   fromWarnings(kubefile.HiddenPlatformArg),
		},
	}
}

// platformVariables are set by the build; to declare them is no mistake.
var platformVariable = regexp.MustCompile(`^(ARCH|(TARGET|BUILD)(ARCH|OS|PLATFORM|VARIANT))$`)

func checkUnused(s *subject) {
	for _, arg := range s.file.Args {
		for _, v := range arg.Vars {
			if !platformVariable.MatchString(v.Name) && !s.readsGlobal(v.Name) {
				s.report(arg, v.Name, fmt.Sprintf("no FROM line reads %s, and no stage declares it with ARG %s", v.Name, v.Name))
			}
		}
	}
	for _, t := range s.stages {
		for i, line := range t.lines {
			arg, ok := line.(*kubefile.Arg)
			if !ok {
				continue
			}
			for _, v := range arg.Vars {
				if !platformVariable.MatchString(v.Name) && !isProxy(v.Name) && !s.readsLater(t, i, v.Name) {
					s.report(arg, v.Name, fmt.Sprintf("nothing below reads %s", v.Name))
				}
			}
		}
	}
}

func isProxy(name string) bool {
	return strings.HasSuffix(strings.ToUpper(name), "_PROXY") || name == "SOURCE_DATE_EPOCH"
}

// readsGlobal says whether FROM lines, other ARGs above them, or an ARG of a
// stage take a variable that is declared above the first FROM.
func (s *subject) readsGlobal(name string) bool {
	for _, arg := range s.file.Args {
		if slices.ContainsFunc(arg.Vars, func(v kubefile.ArgVar) bool { return v.Value != nil && mentions(*v.Value, name) }) {
			return true
		}
	}
	for _, t := range s.file.Stages {
		if mentions(t.From.Image+" "+t.From.Platform, name) {
			return true
		}
		for _, line := range t.Instructions {
			arg, ok := line.(*kubefile.Arg)
			if ok && slices.ContainsFunc(arg.Vars, func(v kubefile.ArgVar) bool { return v.Name == name }) {
				return true
			}
		}
	}
	return false
}

// readsLater says whether an instruction from line i of a stage on, or one of
// a stage that is based on it, may read a variable.
func (s *subject) readsLater(t *stage, i int, name string) bool {
	if slices.ContainsFunc(t.Instructions[i:], func(line kubefile.Instruction) bool { return mayRead(line, name) }) {
		return true
	}
	return slices.ContainsFunc(s.stages, func(child *stage) bool { return child.parent == t && s.readsLater(child, 0, name) })
}

// mayRead says whether an instruction names a variable, or starts a program
// that could look for it.
func mayRead(line kubefile.Instruction, name string) bool {
	text := line.Text()
	switch c := line.(type) {
	case *kubefile.Copy:
		text += documents(c.Heredocs)
	case *kubefile.Add:
		text += documents(c.Heredocs)
	case *kubefile.Run:
		text += documents(c.Heredocs)
		return regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).MatchString(text) || !isPlain(c)
	}
	return mentions(text, name)
}

func documents(list []kubefile.Heredoc) string {
	var text strings.Builder
	for _, doc := range list {
		text.WriteString("\n" + doc.Content)
	}
	return text.String()
}

// mentions says whether a text holds $NAME or ${NAME.
func mentions(text, name string) bool {
	return regexp.MustCompile(`\$(\{` + regexp.QuoteMeta(name) + `\b|` + regexp.QuoteMeta(name) + `\b)`).MatchString(text)
}

// isPlain says whether a RUN starts only programs that read no variable but
// what their arguments name.
func isPlain(run *kubefile.Run) bool {
	commands, ok := commandsOf(run)
	if !ok {
		return false
	}
	plain := strings.Fields("[ basename cat cd chgrp chmod chown cp curl cut dirname echo export false find grep gunzip gzip head install ln ls mkdir " +
		"mktemp mv printf pwd rm rmdir sed set sha256sum sha512sum sleep sort tail tar tee test touch tr true uniq unset unzip wc wget xz")
	return !slices.ContainsFunc(commands, func(c command) bool { return len(c.words) > 0 && !slices.Contains(plain, c.words[0]) })
}
