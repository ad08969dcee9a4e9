// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Command is a program to run. Argv is given to the program as it stands: no
// shell looks at it. Where a shell is wanted, say so: {"sh", "-c", script, "sh", arg…}.
type Command struct {
	Argv []string
	// Env adds KEY=VALUE to the environment. PATH starts with the system's
	// folders, /usr/local/sbin to /bin, whatever sudo's secure_path is; a PATH here replaces it.
	// Env never shows in a process list of the host, nor in messages.
	Env []string
	// Dir is the working directory; default: the login's home.
	Dir string
	// Stdin nil means an empty standard input. An error while reading it stops the command and is
	// Run's error. A program must still tell a cut input from a whole one (by a digest, an end mark): where
	// the connection breaks it sees an end. A Read that blocks may still be in progress when Run has returned.
	Stdin io.Reader
	// Stdout and Stderr get what the program writes, as it comes; nil drops it. They may be the same writer.
	// Nothing is written to them after Run has returned.
	Stdout, Stderr io.Writer
	// Mutates says that the command changes the host; a dry run leaves it out.
	Mutates bool
	// Secret keeps Argv out of messages and logs, and standard output out of an ExitError.
	Secret bool
}

// String is the command as one could type it in a POSIX shell, without Env; "NAME [redacted]" where it is Secret.
func (c Command) String() string {
	if len(c.Argv) == 0 {
		return ""
	}
	if c.Secret {
		return quote(c.Argv[0]) + " [redacted]"
	}
	return quoteAll(c.Argv)
}

func (c Command) validate() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return errors.New("running a command: it has no program")
	}
	for _, s := range append(append([]string{c.Dir}, c.Argv...), c.Env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("running %s: an argument or variable holds a zero byte", c)
		}
	}
	for _, kv := range c.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || !isName(name) {
			return fmt.Errorf("running %s: %q is not the name of an environment variable", c, name)
		}
	}
	return nil
}

// isName: "a word consisting solely of underscores, digits, and alphabetics …, the first not a digit"
// (POSIX.1-2017, 3.235). Others cannot be set by a shell.
func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// quote is the one place that quotes for a shell. Bare words stay readable.
func quote(s string) string {
	bare := s != "" && strings.IndexFunc(s, func(r rune) bool {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("@%+=:,./_-", r):
			return false
		}
		return true
	}) < 0
	if bare {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
