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
