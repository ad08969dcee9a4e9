// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Exec runs a command on hosts at once, as root: one word is shell text, several are a program with its arguments.
// Lines of several hosts are told apart by "ADDRESS: " before each. The error is a HostErrors.
func (v *View) Exec(ctx context.Context, which Selection, words []string, out, errOut io.Writer) error {
	chosen, err := v.choose(which)
	if err != nil {
		return err
	}
	argv := words
	if len(words) == 1 {
		argv = []string{"sh", "-c", words[0]}
	}
	var mu sync.Mutex
	return each(chosen, func(h *runtime.Host) error {
		stdout, stderr := out, errOut
		if len(chosen) > 1 {
			o := &lineWriter{mu: &mu, prefix: h.String() + ": ", w: out}
			e := &lineWriter{mu: &mu, prefix: h.String() + ": ", w: errOut}
			defer o.flush()
			defer e.flush()
			stdout, stderr = o, e
		}
		return h.Runner.Run(ctx, host.Command{Argv: argv, Stdout: stdout, Stderr: stderr, Mutates: true})
	})
}

// lineWriter writes whole lines, each with a prefix.
type lineWriter struct {
	mu     *sync.Mutex
	prefix string
	w      io.Writer
	rest   []byte
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := l.line(l.rest[:i+1]); err != nil {
			return len(p), err
		}
		l.rest = l.rest[i+1:]
	}
}

func (l *lineWriter) line(text []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(append([]byte(l.prefix), text...))
	return err
}

func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		_ = l.line(append(l.rest, '\n')) // the reader of a broken pipe is gone
		l.rest = nil
	}
}

// Send copies a file of this machine to hosts: whole, with its mode, checked by digest. Where target is empty or ends in a slash,
// the file keeps its name in that folder.
func (v *View) Send(ctx context.Context, which Selection, source, target string) error {
	chosen, err := v.choose(which)
	if err != nil {
		return err
	}
	if strings.HasSuffix(target, "/") || target == "" {
		target = path.Join(target, filepath.Base(source))
	}
	if !path.IsAbs(target) {
		return fmt.Errorf("copying to hosts: the path %q must begin with a slash", target)
	}
	info, err := os.Stat(source)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file", source)
	}
	if err != nil {
		return fmt.Errorf("copying to hosts: %w", err)
	}
	b, err := program.Hash(source)
	if err != nil {
		return fmt.Errorf("copying to hosts: %w", err)
	}
	return each(chosen, func(h *runtime.Host) (err error) {
		f, err := os.Open(source)
		if err != nil {
			return fmt.Errorf("copying to hosts: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		return host.Upload(ctx, h.Runner, f, b.Size, b.Digest, target, info.Mode().Perm())
	})
}

// Fetch copies a file of one host to this machine, whole or not at all, checked by digest.
func (v *View) Fetch(ctx context.Context, address, source, target string) error {
	chosen, err := v.choose(Selection{Addresses: []string{address}})
	if err != nil {
		return err
	}
	h := chosen[0]
	if h.Lost != nil {
		return h.Lost
	}
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		target = filepath.Join(target, path.Base(source))
	}
	return fetch(ctx, h, source, target, io.Discard)
}
