// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// LocalConfig says how commands run on this machine.
type LocalConfig struct {
	Name         string // in messages; default "localhost"
	Sudo         bool   // run as root by sudo where we are not root
	SudoPassword Secret
	Logger       *slog.Logger // default: silent
}

// Local runs commands on this machine, in the way SSH runs them elsewhere.
type Local struct {
	cfg    LocalConfig
	become become
}

// NewLocal is the runner for a cluster on this very machine. With Sudo it tries sudo: *SudoError.
func NewLocal(ctx context.Context, cfg LocalConfig) (*Local, error) {
	if cfg.Name == "" {
		cfg.Name = "localhost"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Local{cfg: cfg}
	if !cfg.Sudo || os.Geteuid() == 0 {
		return l, nil
	}
	b, err := trySudo(ctx, cfg.SudoPassword, func(ctx context.Context, argv []string, stdin string) (string, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var said bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &said
		err := cmd.Run()
		return said.String(), err
	})
	if err != nil {
		err.Host, err.User = cfg.Name, fmt.Sprintf("uid %d", os.Getuid())
		return nil, err
	}
	l.become = b
	return l, nil
}

// String is the name given.
func (l *Local) String() string { return l.cfg.Name }

// Run runs c here. When ctx ends, its process group is sent TERM, three seconds later KILL.
func (l *Local) Run(ctx context.Context, c Command) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	start := time.Now()
	err := l.run(ctx, c)
	l.cfg.Logger.Debug("ran", "host", l.String(), "command", c.String(), "took", time.Since(start), "error", err)
	return err
}

func (l *Local) run(ctx context.Context, c Command) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	token := newToken()
	out, stdout, stderr := newOutput(c, token, cancel)
	defer out.close()
	argv := shellArgv(l.become, prelude, "sealer", token)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // ctx ends the whole group, below
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a child left behind in the background keeps the pipes
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if home, err := os.UserHomeDir(); err == nil {
		cmd.Dir = home
	}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("%s: running %s: %w", l, c, err)
	}
	go feed(stdin, preamble(c, l.become, l.cfg.SudoPassword, token), c.Stdin, cancel)

	var failure error // read once ended is closed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failure = cmd.Wait()
	}()
	select {
	case <-ended:
		err = failure
	case <-ctx.Done():
		l.stop(context.WithoutCancel(ctx), cmd.Process.Pid, out, ended)
		return fmt.Errorf("%s: running %s: %w", l, c, context.Cause(ctx))
	}
	var exit *exec.ExitError
	switch {
	case (err == nil || errors.Is(err, exec.ErrWaitDelay)) && ctx.Err() != nil:
		return fmt.Errorf("%s: running %s: %w", l, c, context.Cause(ctx))
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.As(err, &exit):
		e := &ExitError{Host: l.String(), Command: c.String(), Code: exit.ExitCode(), Output: out.lastOutput()}
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Signal = signalName(status.Signal())
			e.Code = 128 + int(status.Signal())
		}
		return e
	default:
		return fmt.Errorf("%s: running %s: %w", l, c, err)
	}
}

// signalName is what SSH calls a signal (RFC 4254, 6.10).
func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGABRT:
		return "ABRT"
	case syscall.SIGHUP:
		return "HUP"
	case syscall.SIGINT:
		return "INT"
	case syscall.SIGKILL:
		return "KILL"
	case syscall.SIGSEGV:
		return "SEGV"
	case syscall.SIGTERM:
		return "TERM"
	}
	return fmt.Sprint(int(s))
}

// stop ends the process group. What sudo started can only be ended by root.
func (l *Local) stop(ctx context.Context, group int, out *output, ended <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, stopGraceSeconds*time.Second)
	defer cancel()
	if l.become != asLogin {
		if pid := out.processID(ctx); pid > 1 {
			argv := shellArgv(l.become, stopScript(), "sealer", fmt.Sprint(pid))
			killer := exec.CommandContext(ctx, argv[0], argv[1:]...)
			killer.Stdin = strings.NewReader(sudoInput(l.become, l.cfg.SudoPassword))
			_ = killer.Run() // what it could not do, KILL below does
		}
	}
	again := time.NewTicker(time.Second) // a shell that has just forked may miss the first
	defer again.Stop()
	for ctx.Err() == nil {
		_ = syscall.Kill(-group, syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-again.C:
		case <-ctx.Done():
		}
	}
	_ = syscall.Kill(-group, syscall.SIGKILL)
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
	}
}
