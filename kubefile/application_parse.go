// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"
)

// appName is a name that can be a folder's and a part of a label's key,
// https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set.
var appName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,51}[A-Za-z0-9])?$`)

const localScheme = "local://"

// ownInstruction reads an instruction that is sealer's and no Dockerfile's.
func ownInstruction(node *parser.Node, escape rune) (Instruction, error) {
	word := strings.ToUpper(node.Value)
	from, rest := newOrigin(node), arguments(node)
	switch word {
	case "APP", "CNI", "CSI":
		return newApp(from, word, rest, node.Flags)
	case "APPCMDS":
		name, list, err := cutName(word, rest)
		if err != nil {
			return nil, err
		}
		cmds, isJSON := jsonArray(list)
		if !isJSON {
			return nil, &markedError{list, fmt.Errorf(`APPCMDS %s needs a JSON array of commands: ["first", "second"]`, name)}
		}
		return &AppCmds{origin: from, Name: name, Cmds: cmds}, checkCommands(word, cmds)
	case "APPENV":
		return newAppEnv(from, rest, escape)
	case "KUBEVERSION":
		if rest == "" {
			return nil, errors.New("KUBEVERSION needs a version or a range, as in KUBEVERSION >=1.20")
		}
		return &KubeVersion{origin: from, Constraint: rest}, checkConstraint(rest)
	case "LAUNCH":
		apps := words(rest)
		return &Launch{origin: from, Apps: apps}, checkLaunch(apps)
	case "CMDS":
		cmds, isJSON := jsonArray(rest)
		if !isJSON {
			cmds = []string{rest} // one line for the shell, as CMD has it
		}
		return &Cmds{origin: from, Cmds: cmds}, checkCommands(word, cmds)
	default:
		return nil, fmt.Errorf("%s is no instruction of a Kubefile", word)
	}
}

func newApp(from origin, word, rest string, flags []string) (*App, error) {
	list := words(rest)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s needs a name and sources: %s NAME local://PATH", word, word)
	}
	app := &App{origin: from, Word: word, Name: list[0], Sources: list[1:]}
	if err := checkName(word, app.Name); err != nil {
		return nil, err
	}
	for _, flag := range flags {
		value, hasValue := strings.CutPrefix(flag, "--checksum=")
		switch {
		case !hasValue || value == "":
			return nil, &markedError{flag, errors.New("--checksum needs a value, sha256:…")}
		case app.Checksum != "":
			return nil, &markedError{flag, errors.New("--checksum stands twice")}
		}
		app.Checksum = value
	}
	return app, checkApp(app)
}

// checkApp is asked twice: as it is parsed, where words with variables are left
// alone, and when they are expanded.
func checkApp(app *App) error {
	if len(app.Sources) == 0 {
		return fmt.Errorf("%s %s needs a source: local://PATH, or a URL", app.Word, app.Name)
	}
	remote := map[string]string{} // by the name that the file gets
	urls := 0
	for _, written := range app.Sources {
		if hasVariable(written) {
			urls++ // it may be one
			continue
		}
		source := unquoted(written)
		if p, ok := LocalSource(source); ok {
			if p == "" {
				return &markedError{written, fmt.Errorf("%s %s: %s names no file", app.Word, app.Name, source)}
			}
			continue
		}
		if scheme, _, ok := strings.Cut(source, "://"); ok && !isURL(source) {
			return &markedError{written, fmt.Errorf("%s %s: the scheme %s:// is not known; local://, http:// and https:// are", app.Word, app.Name, shorten(scheme))}
		}
		if strings.HasPrefix(source, "--") {
			return &markedError{written, fmt.Errorf("%s %s: %s stands behind the name: flags stand before it, %s %s %s …", app.Word, app.Name, source, app.Word, source, app.Name)}
		}
		if !isURL(source) {
			return &markedError{written, fmt.Errorf("%s %s: %s has no scheme in front (did you mean local://%s?)", app.Word, app.Name, source, source)}
		}
		urls++
		name, err := RemoteName(source)
		if err != nil {
			return &markedError{written, fmt.Errorf("%s %s: %w", app.Word, app.Name, err)}
		}
		if other, ok := remote[name]; ok {
			return &markedError{written, fmt.Errorf("%s %s: %s and %s would both be the file %s", app.Word, app.Name, other, source, name)}
		}
		remote[name] = source
	}
	return checkAppChecksum(app, urls)
}

func checkAppChecksum(app *App, urls int) error {
	if app.Checksum == "" || hasVariable(app.Checksum) {
		return nil
	}
	if urls != 1 && !slices.ContainsFunc(app.Sources, hasVariable) {
		return &markedError{"--checksum", fmt.Errorf("%s --checksum needs one source that is a URL; here are %d", app.Word, urls)}
	}
	if _, err := digest.Parse(unquoted(app.Checksum)); err != nil {
		return &markedError{app.Checksum, fmt.Errorf("%s --checksum=%s: it has the form sha256:… with 64 hexadecimal digits: %w", app.Word, app.Checksum, err)}
	}
	return nil
}

// RemoteName returns the file name that what is fetched from a URL gets.
func RemoteName(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%q is no URL: %w", address, errors.Unwrap(err))
	}
	if u.Host == "" {
		return "", fmt.Errorf("%q names no host", address)
	}
	name := path.Base(path.Clean("/" + u.Path))
	if name == "/" || strings.HasSuffix(u.Path, "/") {
		return "", fmt.Errorf("%s names no file", u.Redacted())
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("%s names a file with a control character", u.Redacted())
	}
	return name, nil
}

func newAppEnv(from origin, rest string, escape rune) (*AppEnv, error) {
	name, vars, err := cutName("APPENV", rest)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(vars, "=") {
		return nil, fmt.Errorf("APPENV %s needs variables: APPENV %s NAME=value", name, name)
	}
	// BuildKit knows how the values of ENV are quoted.
	parsed, err := parser.Parse(strings.NewReader("# escape=" + string(escape) + "\nENV " + vars))
	if err != nil {
		return nil, plain(err)
	}
	if len(parsed.AST.Children) != 1 {
		return nil, errors.New("APPENV is read as several lines")
	}
	parsed.AST.Children[0].PrevComment = nil
	instruction, err := instructions.ParseInstruction(parsed.AST.Children[0])
	if err != nil {
		return nil, plain(err)
	}
	env, ok := instruction.(*instructions.EnvCommand)
	if !ok {
		return nil, fmt.Errorf("APPENV is read as %T", instruction)
	}
	for _, pair := range env.Env {
		if pair.NoDelim {
			return nil, &markedError{vars, fmt.Errorf("APPENV %s: %q has not the form NAME=value", name, shorten(vars))}
		}
	}
	return &AppEnv{origin: from, Name: name, Vars: keyValues(env.Env)}, nil
}

// arguments is what stands behind an instruction and its flags.
func arguments(node *parser.Node) string {
	_, rest := cutWord(node.Original)
	for range node.Flags { // of ours, none holds a space
		_, rest = cutWord(rest)
	}
	return rest
}

func cutWord(text string) (word, rest string) {
	text = strings.TrimSpace(text)
	at := strings.IndexFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\v\f\r", r) })
	if at < 0 {
		return text, ""
	}
	return text[:at], strings.TrimSpace(text[at:])
}

// cutName takes the application's name off the front of what stands behind
// APPCMDS or APPENV.
func cutName(word, rest string) (name, more string, err error) {
	name, more = cutWord(rest)
	if name == "" {
		return "", "", fmt.Errorf("%s needs the name of an application", word)
	}
	return name, more, checkName(word, name)
}

func checkName(word, name string) error {
	switch {
	case hasVariable(name):
		return &markedError{name, fmt.Errorf("%s %s: the name of an application takes no variable", word, name)}
	case !appName.MatchString(name):
		return &markedError{name, fmt.Errorf("%s %q: a name is up to 53 letters, digits, '.', '_' and '-', and begins and ends with a letter or digit", word, shorten(name))}
	default:
		return nil
	}
}

// jsonArray reads a JSON array of strings, and nothing behind it.
func jsonArray(text string) ([]string, bool) {
	var list []string
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &list) != nil {
		return nil, false
	}
	return list, true
}

// words is a JSON array, or what stands between spaces.
func words(text string) []string {
	if list, ok := jsonArray(text); ok {
		return list
	}
	return strings.Fields(text)
}

func checkCommands(word string, cmds []string) error {
	if len(cmds) == 0 {
		return errors.New(word + " needs a command")
	}
	for _, command := range cmds {
		if err := checkCommand(word, []string{command}); err != nil {
			return err
		}
	}
	return nil
}

func checkLaunch(apps []string) error {
	if len(apps) == 0 {
		return errors.New("LAUNCH needs the name of an application")
	}
	for i, name := range apps {
		if err := checkName("LAUNCH", name); err != nil {
			return err
		}
		if slices.Contains(apps[:i], name) {
			return &markedError{name, fmt.Errorf("LAUNCH names %s twice", name)}
		}
	}
	return nil
}

func checkConstraint(constraint string) error {
	if hasVariable(constraint) {
		return nil
	}
	if _, err := semver.NewConstraint(unquoted(constraint)); err != nil {
		return &markedError{constraint, fmt.Errorf("KUBEVERSION %s is no version and no range (as in >=1.20, or 1.20 - 1.24)", shorten(constraint))}
	}
	return nil
}

// unquoted is a word without the quotes around it: those of a word that holds
// no variable are taken off when it is expanded, which comes later.
func unquoted(word string) string {
	result, _, err := expandWord(word, '\\', func(string) (string, bool) { return "", false })
	if err != nil {
		return word // checkSyntax says so
	}
	return result
}
