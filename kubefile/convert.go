// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"github.com/sealerio/sealer/internal/sourceerror"
)

// variableName is what can be written as $NAME.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// markedError tells which word of the line is wrong.
type markedError struct {
	mark string
	error
}

func (e *markedError) Unwrap() error { return e.error }

func markOf(err error) string {
	if marked, ok := errors.AsType[*markedError](err); ok {
		return marked.mark
	}
	return ""
}

func newOrigin(node *parser.Node) origin {
	words := strings.Fields(node.Original)
	words[0] = strings.ToUpper(node.Value)
	for _, doc := range node.Heredocs {
		first, more, _ := strings.Cut(strings.TrimSpace(doc.Content), "\n")
		if more != "" {
			first += " …"
		}
		words = append(words, "("+first+")")
	}
	return origin{Range: Range{First: node.StartLine, Last: node.EndLine}, text: strings.Join(words, " ")}
}

// newFrom reads a FROM line and the name after AS.
func newFrom(node *parser.Node) (*From, string, error) {
	if _, err := prepareFlags(node); err != nil {
		return nil, "", err
	}
	parsed, err := instructions.ParseInstruction(node)
	if err != nil {
		return nil, "", plain(err)
	}
	stage, ok := parsed.(*instructions.Stage)
	if !ok {
		return nil, "", fmt.Errorf("FROM is read as %T", parsed)
	}
	return &From{origin: newOrigin(node), Image: stage.BaseName, Platform: stage.Platform}, stage.Name, nil
}

// newInstruction reads any supported instruction but FROM. The texts are
// warnings.
func newInstruction(node *parser.Node, escape rune) (Instruction, []remark, error) {
	inRootfs, err := prepareFlags(node)
	if err != nil {
		return nil, nil, err
	}
	if isOwn(strings.ToUpper(node.Value)) {
		instruction, err := ownInstruction(node, escape)
		_, isJSON := jsonArray(arguments(node))
		node.Attributes = map[string]bool{"json": isJSON}
		return instruction, falseJSON(node), err
	}
	parsed, err := instructions.ParseInstruction(node)
	if err != nil {
		return nil, nil, plain(err)
	}
	from := newOrigin(node)
	warnings := falseJSON(node)
	switch c := parsed.(type) {
	case *instructions.CopyCommand:
		instruction := newCopy(from, c)
		return instruction, warnings, checkCopy("COPY", instruction, slices.Contains(flagNames(node), "from"))
	case *instructions.AddCommand:
		instruction := newAdd(from, c)
		return instruction, warnings, checkAdd(instruction)
	case *instructions.RunCommand:
		instruction, err := newRun(from, node, c)
		if err != nil {
			return nil, nil, err
		}
		instruction.InRootfs = inRootfs
		return instruction, warnings, nil
	case *instructions.CmdCommand:
		return &Cmd{origin: from, Args: c.CmdLine, Shell: c.PrependShell}, warnings, checkCommand("CMD", c.CmdLine)
	case *instructions.EntrypointCommand:
		return &Entrypoint{Cmd{origin: from, Args: c.CmdLine, Shell: c.PrependShell}}, warnings, checkCommand("ENTRYPOINT", c.CmdLine)
	case *instructions.EnvCommand:
		return &Env{origin: from, Vars: keyValues(c.Env)}, warnings, nil
	case *instructions.LabelCommand:
		return &Label{origin: from, Labels: keyValues(c.Labels)}, warnings, nil
	case *instructions.MaintainerCommand:
		return &Maintainer{origin: from, Name: c.Maintainer},
			append(warnings, remark{OldMaintainer, `MAINTAINER is out of use; write LABEL org.opencontainers.image.authors="…"`}), nil
	case *instructions.ArgCommand:
		return newArg(from, c)
	case *instructions.WorkdirCommand:
		return &Workdir{origin: from, Path: c.Path}, warnings, nil
	case *instructions.UserCommand:
		return &User{origin: from, User: c.User}, warnings, nil
	case *instructions.ShellCommand:
		return &Shell{origin: from, Args: c.Shell}, warnings, checkCommand("SHELL", c.Shell)
	default:
		return nil, nil, fmt.Errorf("%s is read as %T", strings.ToUpper(node.Value), parsed)
	}
}

func newCopy(from origin, c *instructions.CopyCommand) *Copy {
	return &Copy{
		origin:   from,
		Sources:  c.SourcePaths,
		Dest:     c.DestPath,
		From:     c.From,
		Chown:    c.Chown,
		Chmod:    c.Chmod,
		Exclude:  c.ExcludePatterns,
		Parents:  c.Parents,
		Link:     c.Link,
		Heredocs: contents(c.SourceContents),
	}
}

func newAdd(from origin, c *instructions.AddCommand) *Add {
	return &Add{
		Copy: Copy{
			origin:   from,
			Sources:  c.SourcePaths,
			Dest:     c.DestPath,
			Chown:    c.Chown,
			Chmod:    c.Chmod,
			Exclude:  c.ExcludePatterns,
			Link:     c.Link,
			Heredocs: contents(c.SourceContents),
		},
		Checksum:   c.Checksum,
		KeepGitDir: c.KeepGitDir != nil && *c.KeepGitDir,
		Unpack:     c.Unpack,
	}
}

func contents(docs []instructions.SourceContent) []Heredoc {
	var heredocs []Heredoc
	for _, doc := range docs {
		heredocs = append(heredocs, Heredoc{Name: doc.Path, Content: doc.Data, Expand: doc.Expand})
	}
	return heredocs
}

func newRun(from origin, node *parser.Node, c *instructions.RunCommand) (*Run, error) {
	if err := checkCommand("RUN", c.CmdLine); err != nil {
		return nil, err
	}
	run := &Run{
		origin:   from,
		Args:     c.CmdLine,
		Shell:    c.PrependShell,
		Network:  instructions.GetNetwork(c),
		Security: instructions.GetSecurity(c),
	}
	for _, doc := range node.Heredocs {
		content := doc.Content
		if doc.Chomp {
			content = parser.ChompHeredocContent(content)
		}
		run.Heredocs = append(run.Heredocs, Heredoc{Name: doc.Name, Content: content, Expand: doc.Expand})
	}
	variables := false
	for _, flag := range node.Flags {
		if value, ok := strings.CutPrefix(flag, "--mount="); ok {
			run.mounts = append(run.mounts, value)
			variables = variables || hasVariable(value)
		}
	}
	var err error
	if !variables {
		run.Mounts, err = parseMounts(run.mounts, func(word string) (string, error) { return word, nil })
	} else {
		run.Mounts = instructions.GetMounts(c)
	}
	return run, err
}

// parseMounts reads the values of --mount flags. BuildKit reads their fields
// only while it expands their variables.
func parseMounts(values []string, expand instructions.SingleWordExpander) ([]*Mount, error) {
	if len(values) == 0 {
		return nil, nil
	}
	node := &parser.Node{Value: "RUN", Next: &parser.Node{Value: ":"}}
	for _, value := range values {
		node.Flags = append(node.Flags, "--mount="+value)
	}
	parsed, err := instructions.ParseInstruction(node)
	if err != nil {
		return nil, plain(err)
	}
	run, ok := parsed.(*instructions.RunCommand)
	if !ok {
		return nil, fmt.Errorf("RUN is read as %T", parsed)
	}
	if err := run.Expand(expand); err != nil {
		return nil, fmt.Errorf("RUN --mount: %w", err)
	}
	mounts := instructions.GetMounts(run)
	for _, mount := range mounts {
		if mount.Target == "" && mount.Type != instructions.MountTypeSecret && mount.Type != instructions.MountTypeSSH {
			return nil, fmt.Errorf("RUN --mount=type=%s needs target=FOLDER", mount.Type)
		}
	}
	return mounts, nil
}

func newArg(from origin, c *instructions.ArgCommand) (Instruction, []remark, error) {
	arg := &Arg{origin: from}
	var warnings []remark
	for _, pair := range c.Args {
		if !variableName.MatchString(pair.Key) {
			return nil, nil, &markedError{pair.Key, fmt.Errorf("ARG %q: a name is letters, digits and _, and begins with no digit", pair.Key)}
		}
		if pair.Value != nil && slices.Contains(predefinedNames(), pair.Key) {
			warnings = append(warnings, remark{HiddenPlatformArg, fmt.Sprintf("this value of %s hides the one that the build sets; write ARG %s", pair.Key, pair.Key)})
		}
		arg.Vars = append(arg.Vars, ArgVar{Name: pair.Key, Value: pair.Value})
	}
	return arg, warnings, nil
}

func keyValues(pairs instructions.KeyValuePairs) []KeyValue {
	var all []KeyValue
	for _, pair := range pairs {
		all = append(all, KeyValue{Key: pair.Key, Value: pair.Value})
	}
	return all
}

func checkCommand(word string, args []string) error {
	if len(args) == 0 || strings.TrimSpace(args[0]) == "" {
		return errors.New(word + " needs a command")
	}
	for _, arg := range args {
		if strings.IndexByte(arg, 0) >= 0 {
			return fmt.Errorf("%s: %q holds a NUL byte", word, shorten(arg))
		}
	}
	return nil
}

func flagNames(node *parser.Node) []string {
	var names []string
	for _, flag := range node.Flags {
		name, _, _ := strings.Cut(flag, "=")
		names = append(names, strings.TrimPrefix(name, "--"))
	}
	return names
}

// prepareFlags refuses flags that the instruction does not take, and takes out
// our own, which BuildKit would refuse.
func prepareFlags(node *parser.Node) (inRootfs bool, err error) {
	word := strings.ToUpper(node.Value)
	known := flagWords(word)
	var kept []string
	seen := false
	for _, flag := range node.Flags {
		flag = fromLatin1(flag)
		name, value, hasValue := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if !slices.Contains(known, name) {
			return false, &markedError{"--" + name, unknownFlag(word, name, known)}
		}
		if name != "in-rootfs" {
			kept = append(kept, flag)
			continue
		}
		if seen {
			return false, &markedError{"--" + name, errors.New("--in-rootfs stands twice")}
		}
		seen = true
		switch {
		case !hasValue, strings.EqualFold(value, "true"):
			inRootfs = true
		case !strings.EqualFold(value, "false"):
			return false, &markedError{flag, fmt.Errorf("--in-rootfs is true or false, not %q", value)}
		}
	}
	node.Flags = kept
	return inRootfs, nil
}

func unknownFlag(word, name string, known []string) error {
	if near, ok := suggest.Search(name, known, true); ok {
		return fmt.Errorf("%s has no flag --%s (did you mean --%s?)", word, sourceerror.Printable(name), near)
	}
	return fmt.Errorf("%s has no flag --%s", word, sourceerror.Printable(name))
}

// fromLatin1 gives a flag its bytes back: BuildKit's parser reads flags byte
// by byte and takes each for a character.
func fromLatin1(flag string) string {
	raw := make([]byte, 0, len(flag))
	for _, r := range flag {
		if r > 0xFF {
			return flag
		}
		raw = append(raw, byte(r))
	}
	if !utf8.Valid(raw) {
		return flag
	}
	return string(raw)
}

// falseJSON warns of what looks like a JSON array but is none, and so has been
// split at its spaces or given to the shell.
func falseJSON(node *parser.Node) []remark {
	args := strings.Join(strings.Fields(node.Original)[1:], "")
	if node.Attributes["json"] || (!strings.HasPrefix(args, `["`) && !strings.HasPrefix(args, `['`)) {
		return nil
	}
	return []remark{{BrokenArray, "the arguments look like a JSON array but are none (strings need double quotes, no comma after the last): they are taken as plain words"}}
}
