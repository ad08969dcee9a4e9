// SPDX-License-Identifier: Apache-2.0

// Package hosttest has a runner for tests that runs nothing: it records what it is asked to do
// and gives the answers it was told to give.
package hosttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/sealerio/sealer/host"
)

// Call is one command that a Runner was given; Stdin is all of its input.
type Call struct {
	Argv, Env       []string
	Dir             string
	Stdin           []byte
	Mutates, Secret bool
}

// String is the command as host.Command writes it.
func (c Call) String() string { return host.Command{Argv: c.Argv, Secret: c.Secret}.String() }

// File is a file on the make-believe host.
type File struct {
	Data []byte
	Mode fs.FileMode
}

// Answer is what a command gives back. Err, where it is set, is Run's error as it stands; a Code other
// than 0 makes a *host.ExitError.
type Answer struct {
	Stdout, Stderr string
	Code           int
	Err            error
	// Do, where it is set, makes the answer from the call; the other fields are not looked at.
	Do func(ctx context.Context, c Call) Answer
	// Times is how often the answer may be given; 0 is for ever.
	Times int
}

type rule struct {
	match  *regexp.Regexp
	answer Answer
	given  int
}

// Runner is the fake host. host.WriteFile, host.Upload and host.ReadFile work on a map of files. Commands
// that no rule knows succeed and print nothing, unless Strict.
type Runner struct {
	name string

	mu     sync.Mutex
	strict bool
	rules  []*rule
	calls  []Call
	files  map[string]File
}

// New is a host that answers every command with success.
func New(name string) *Runner { return &Runner{name: name, files: map[string]File{}} }

// String is the name.
func (r *Runner) String() string { return r.name }

// Strict makes a command that no rule knows fail with status 127.
func (r *Runner) Strict() *Runner {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.strict = true
	return r
}

// On answers the commands whose String matches the pattern. The rule given last is asked first.
func (r *Runner) On(pattern string, a Answer) *Runner {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = append(r.rules, &rule{match: regexp.MustCompile(pattern), answer: a})
	return r
}

// Put puts a file on the host.
func (r *Runner) Put(path string, data string, mode fs.FileMode) *Runner {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[path] = File{[]byte(data), mode}
	return r
}

// Calls are the commands so far, in order, without those of host.WriteFile, Upload and ReadFile.
func (r *Runner) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Commands are the calls as text.
func (r *Runner) Commands() []string {
	var lines []string
	for _, c := range r.Calls() {
		lines = append(lines, c.String())
	}
	return lines
}

// Files are the files on the host.
func (r *Runner) Files() map[string]File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.files)
}

// Run records c and gives the answer that the rules have for it.
func (r *Runner) Run(ctx context.Context, c host.Command) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	call := Call{Argv: slices.Clone(c.Argv), Env: slices.Clone(c.Env), Dir: c.Dir, Mutates: c.Mutates, Secret: c.Secret}
	if c.Stdin != nil {
		var err error
		if call.Stdin, err = io.ReadAll(c.Stdin); err != nil {
			return err
		}
	}
	a, known := r.fileAnswer(call)
	if !known {
		a = r.answer(call)
	}
	if a.Do != nil {
		a = a.Do(ctx, call)
	}
	if a.Err != nil {
		return a.Err
	}
	for _, s := range []struct {
		w    io.Writer
		text string
	}{{c.Stdout, a.Stdout}, {c.Stderr, a.Stderr}} {
		if s.w != nil {
			if _, err := io.WriteString(s.w, s.text); err != nil {
				return err
			}
		}
	}
	if a.Code != 0 {
		return &host.ExitError{Host: r.name, Command: c.String(), Code: a.Code, Output: a.Stdout + a.Stderr}
	}
	return nil
}

func (r *Runner) answer(c Call) Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	text := host.Command{Argv: c.Argv}.String()
	for _, rule := range slices.Backward(r.rules) {
		if (rule.answer.Times == 0 || rule.given < rule.answer.Times) && rule.match.MatchString(text) {
			rule.given++
			return rule.answer
		}
	}
	if r.strict {
		return Answer{Stderr: "no rule for: " + text, Code: 127}
	}
	return Answer{}
}

// fileAnswer plays the scripts of package host that read and write files; the fourth word names them.
func (r *Runner) fileAnswer(c Call) (Answer, bool) {
	if len(c.Argv) < 5 {
		return Answer{}, false
	}
	path := c.Argv[4]
	r.mu.Lock()
	defer r.mu.Unlock()
	f, there := r.files[path]
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	switch c.Argv[3] {
	case "sealer-write":
		if sum(c.Stdin) != c.Argv[6] {
			return Answer{Code: 65}, true
		}
		mode, err := strconv.ParseUint(c.Argv[5], 8, 32)
		if err != nil {
			return Answer{Err: err}, true
		}
		r.files[path] = File{bytes.Clone(c.Stdin), fs.FileMode(mode)}
	case "sealer-read":
		if !there {
			return Answer{Code: 66}, true
		}
		return Answer{Stdout: string(f.Data)}, true
	case "sealer-same":
		if !there || sum(f.Data) != c.Argv[5] {
			return Answer{Code: 1}, true
		}
	default:
		return Answer{}, false
	}
	return Answer{}, true
}
