// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// symbolicMode is a mode as chmod(1) takes it, https://pubs.opengroup.org/onlinepubs/9799919799/utilities/chmod.html.
var symbolicMode = regexp.MustCompile(`^[ugoa]*([-+=]([rwxXst]*|[ugo]))+(,[ugoa]*([-+=]([rwxXst]*|[ugo]))+)*$`)

// checkCopy looks at what can be known of a COPY or ADD. It is asked twice:
// when the line is parsed, where words with variables are left alone, and when
// they are expanded.
func checkCopy(word string, c *Copy, fromGiven bool) error {
	if fromGiven && c.From == "" {
		return errors.New("--from names no stage and no image")
	}
	if hasVariable(c.From) {
		return &markedError{c.From, errors.New("--from takes no variable: write FROM " + c.From + " AS name and copy from that stage")}
	}
	if c.Dest == "" {
		return errors.New(word + " has an empty destination")
	}
	for _, source := range c.Sources {
		if source == "" {
			return errors.New(word + " has an empty source")
		}
		if word == "COPY" && isURL(source) {
			return &markedError{source, fmt.Errorf("COPY takes no URL: write ADD %s", source)}
		}
	}
	names := map[string]bool{}
	for _, doc := range c.Heredocs {
		if doc.Name == "." || doc.Name == ".." || strings.ContainsRune(doc.Name, '/') {
			return &markedError{doc.Name, fmt.Errorf("%s <<%s: the document's name becomes a file's and cannot hold a /", word, doc.Name)}
		}
		if names[doc.Name] {
			return &markedError{doc.Name, fmt.Errorf("%s <<%s: two documents have this name", word, doc.Name)}
		}
		names[doc.Name] = true
	}
	if n := len(c.Sources) + len(c.Heredocs); n > 1 && !hasVariable(c.Dest) && !isFolder(c.Dest) {
		return &markedError{c.Dest, fmt.Errorf("%s of %d sources needs a folder as destination (did you mean %s/?)", word, n, c.Dest)}
	}
	return checkMode(c.Chmod)
}

func checkAdd(a *Add) error {
	if err := checkCopy("ADD", &a.Copy, false); err != nil {
		return err
	}
	if a.Checksum == "" {
		return nil
	}
	if len(a.Sources) != 1 || len(a.Heredocs) > 0 {
		return errors.New("ADD --checksum needs one source, a URL")
	}
	source := a.Sources[0]
	if hasVariable(source) || hasVariable(a.Checksum) {
		return nil
	}
	if !isURL(source) && !isGit(source) {
		return &markedError{source, errors.New("ADD --checksum needs one source, a URL")}
	}
	if isURL(source) && !isGit(source) {
		if _, err := digest.Parse(a.Checksum); err != nil {
			return &markedError{a.Checksum, fmt.Errorf("ADD --checksum=%s: it has the form sha256:… with 64 hexadecimal digits: %w", a.Checksum, err)}
		}
	}
	return nil
}

// checkSyntax tries the expansion of every word that has one, so that a missing
// quote or brace is found with the other mistakes of the file.
func checkSyntax(instruction Instruction, escape rune) error {
	anything := func(string) (string, bool) { return "x", true }
	for _, word := range expandable(instruction) {
		_, _, err := expandWord(word, escape, anything)
		_, isCopy := instruction.(interface{ copied() *Copy })
		if err != nil && isCopy && strings.ContainsAny(word, `"'`) {
			err = fmt.Errorf(`%w; names with spaces are written as JSON: ["a b", "c/"]`, err)
		}
		if err != nil {
			return &markedError{word, err}
		}
	}
	if c, ok := instruction.(interface{ copied() *Copy }); ok {
		for _, doc := range c.copied().Heredocs {
			if !doc.Expand {
				continue
			}
			if _, _, err := expandText(doc.Content, anything); err != nil {
				return &markedError{doc.Name, err}
			}
		}
	}
	return nil
}

// copied lets COPY and ADD be treated alike.
func (c *Copy) copied() *Copy { return c }

// expandable returns the words of an instruction that are expanded.
func expandable(instruction Instruction) []string {
	var words []string
	pairs := func(list []KeyValue) {
		for _, pair := range list {
			words = append(words, pair.Key, pair.Value)
		}
	}
	switch c := instruction.(type) {
	case *From:
		words = []string{c.Image, c.Platform}
	case *Copy:
		words = append(slices.Clone(c.Sources), c.Dest, c.Chown, c.Chmod)
	case *Add:
		words = append(expandable(&c.Copy), c.Checksum)
	case *App:
		words = append(slices.Clone(c.Sources), c.Checksum)
	case *AppEnv:
		pairs(c.Vars)
	case *KubeVersion:
		words = []string{c.Constraint}
	case *Workdir:
		words = []string{c.Path}
	case *User:
		words = []string{c.User}
	case *Env:
		pairs(c.Vars)
	case *Label:
		pairs(c.Labels)
	case *Arg:
		for _, v := range c.Vars {
			if v.Value != nil {
				words = append(words, *v.Value)
			}
		}
	}
	return words
}

func checkMode(mode string) error {
	if mode == "" || hasVariable(mode) || symbolicMode.MatchString(mode) {
		return nil
	}
	if bits, err := strconv.ParseUint(mode, 8, 32); err != nil || bits > 0o7777 {
		return &markedError{mode, fmt.Errorf("--chmod=%s: it is octal, up to 7777, or as in u=rwX,go=rX", mode)}
	}
	return nil
}

func isFolder(dest string) bool {
	return strings.HasSuffix(dest, "/") || slices.Contains([]string{".", ".."}, dest[strings.LastIndexByte(dest, '/')+1:])
}

func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

func isGit(source string) bool {
	repository, _, _ := strings.Cut(source, "#")
	return strings.HasPrefix(source, "git@") || strings.HasPrefix(source, "git://") || strings.HasPrefix(source, "ssh://") ||
		strings.HasSuffix(repository, ".git")
}
