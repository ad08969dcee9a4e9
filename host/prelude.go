// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// A command does not travel in the line that the login shell gets: that line, and
// with it the process list, holds the prelude only. The prelude reads the
// rest (PATH, environment, folder, argv) as shell text from the start of standard input, up
// to a line with a token, and becomes the command; what follows is the command's own input.
//
//   - Nothing secret is in the arguments of a shell or of sudo, and sudo's env_reset and secure_path change nothing.
//   - Everything before the first token line is skipped: a password that sudo did not ask for ends there.
//   - The command's output starts after a token line of its own: what the login shell's start-up files print is no part of it.
//
// `read` takes one byte at a time from a pipe in every POSIX shell ("shall not read more than one line"), so
// the input is left exactly after the token. The prelude has no line break and no
// apostrophe, and so passes any login shell that knows '…'.
const prelude = `n=$(printf "\nx"); n=${n%x}; s=; ` +
	`while :; do IFS= read -r l || exit 125; case $l in "$1") break;; esac; done; ` +
	`while :; do IFS= read -r l || exit 125; case $l in "$1") break;; esac; s=$s$l$n; done; ` +
	`echo "$1"; echo "$1 $$" >&2; eval "$s"`

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// become is how a command becomes root.
type become int

const (
	asLogin          become = iota // as the user who logged in
	bySudo                         // sudo asks for nothing
	bySudoPassword                 // sudo reads a password
	sudoPromptNone   = ""
	stopGraceSeconds = 3
)

// shellArgv is argv of the process that runs a script of ours, before it reads anything.
func shellArgv(b become, script string, args ...string) []string {
	argv := append([]string{"/bin/sh", "-c", script}, args...)
	switch b {
	case bySudo:
		argv = append([]string{"sudo", "-H", "-n", "--"}, argv...)
	case bySudoPassword:
		argv = append([]string{"sudo", "-H", "-S", "-p", sudoPromptNone, "--"}, argv...)
	}
	return argv
}

// preamble is what goes before the command's own standard input.
func preamble(c Command, b become, password Secret, token string) []byte {
	var s bytes.Buffer
	if b == bySudoPassword {
		s.WriteString(password.Reveal() + "\n")
	}
	s.WriteString(token + "\n")
	s.WriteString("PATH=" + systemPath + "${PATH:+:$PATH}; export PATH\n")
	for _, kv := range c.Env {
		name, value, _ := strings.Cut(kv, "=")
		s.WriteString("export " + name + "=" + quoteAlways(value) + "\n")
	}
	if c.Dir != "" {
		s.WriteString("cd -- " + quoteAlways(c.Dir) + " || exit 126\n")
	}
	s.WriteString("exec")
	for _, arg := range c.Argv {
		s.WriteString(" " + quoteAlways(arg))
	}
	s.WriteString("\n" + token + "\n")
	return s.Bytes()
}

func quoteAlways(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// stopScript ends the process group of the process $1: TERM once a second, since a shell that has just forked may miss
// one, then KILL. The field after the last ")" of /proc/PID/stat is the state, then ppid, then pgrp (proc(5)).
func stopScript() string {
	return `g=$(sed "s/.*) //" "/proc/$1/stat" 2>/dev/null | cut -d" " -f3); [ "${g:-0}" -gt 1 ] || exit 0; i=0; ` +
		`while kill -s 0 -- "-$g" 2>/dev/null; do [ $((i%10)) -gt 0 ] || kill -s TERM -- "-$g"; i=$((i+1)); ` +
		`[ $i -le ` + strconv.Itoa(stopGraceSeconds*10) + ` ] || { kill -s KILL -- "-$g"; exit 0; }; sleep 0.1; done`
}

// newToken is a line that is in nobody's output by chance.
func newToken() string { return "sealer-" + rand.Text() }

// output carries what a command writes to the caller: it drops what came before the token line, keeps the
// tail for errors, and stops writing once the run is over.
type output struct {
	mu      sync.Mutex // one for both streams: they may share a writer
	closed  bool
	out     tail
	errs    tail
	started chan struct{} // closed once pid is known
	pid     int
	failed  func(error) // called with the error of a caller's writer
}

// newOutput is for one run, its streams for the two standard ones; cancel ends the run.
func newOutput(c Command, token string, cancel func(error)) (o *output, stdout, stderr *stream) {
	o = &output{started: make(chan struct{}), failed: func(err error) { cancel(fmt.Errorf("passing on its output: %w", err)) }}
	stdout = &stream{o: o, w: c.Stdout, token: token}
	if !c.Secret {
		stdout.tail = &o.out
	}
	return o, stdout, &stream{o: o, w: c.Stderr, tail: &o.errs, token: token}
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// processID waits until the process is known, at most as long as ctx; 0 then.
func (o *output) processID(ctx context.Context) int {
	select {
	case <-o.started:
		return o.pid
	case <-ctx.Done():
		return 0
	}
}

// lastOutput is at most 8 KiB: standard output, then standard error, which has the say where there is too much.
func (o *output) lastOutput() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := o.errs.last(maxTail)
	return o.out.last(maxTail-len(errs)) + errs
}

// stream is one of the two streams of a command.
type stream struct {
	o     *output
	w     io.Writer // nil: nobody wants it
	tail  *tail     // nil: it may be secret
	token string    // "": already seen
	line  []byte    // the line so far, while the token is awaited
	bad   bool      // the caller's writer has failed
}

func (s *stream) Write(p []byte) (int, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	n := len(p)
	for s.token != "" && len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.line = append(s.line, p...)
			if len(s.line) > maxTail { // noise of a login shell, no token
				s.line = s.line[len(s.line)-maxTail:]
			}
			return n, nil
		}
		s.line = append(s.line, p[:i]...)
		p = p[i+1:]
		if rest, ok := strings.CutPrefix(string(s.line), s.token); ok {
			s.token = ""
			if pid, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
				s.o.pid = pid
				close(s.o.started)
			}
		} else {
			s.o.errs.write(append(s.line, '\n')) // why the prelude did not start, maybe
		}
		s.line = nil
	}
	if len(p) == 0 {
		return n, nil
	}
	if s.tail != nil {
		s.tail.write(p)
	}
	if s.w != nil && !s.o.closed && !s.bad {
		if _, err := s.w.Write(p); err != nil {
			s.bad = true
			s.o.failed(err)
		}
	}
	return n, nil // the rest is taken and dropped: a full pipe would keep the command from ending
}

const maxTail = 8 << 10

// tail keeps the last bytes written.
type tail struct{ b []byte }

func (t *tail) write(p []byte) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*maxTail {
		t.b = append([]byte(nil), t.b[len(t.b)-maxTail:]...)
	}
}

func (t *tail) last(n int) string {
	b := t.b[max(0, len(t.b)-n):]
	return strings.ToValidUTF8(string(b), "")
}
