// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// StepError is a step that failed on a host.
type StepError struct {
	Host, Step string
	Err        error
}

func (e *StepError) Error() string {
	var exit *host.ExitError
	var lost *host.LostError
	if errors.As(e.Err, &exit) || errors.As(e.Err, &lost) { // they name the host
		return e.Step + ": " + e.Err.Error()
	}
	if strings.HasPrefix(e.Err.Error(), e.Host+": ") {
		return e.Step + ": " + e.Err.Error()
	}
	return e.Host + ": " + e.Step + ": " + e.Err.Error()
}

func (e *StepError) Unwrap() error { return e.Err }

// FailedError is a phase in which steps failed; on the other hosts it went through.
type FailedError struct {
	Phase   string
	LogFile string
	Errs    []error
}

func (e *FailedError) Error() string {
	lines := []string{e.Phase + ":"}
	for _, err := range e.Errs {
		lines = append(lines, err.Error())
	}
	if e.LogFile != "" {
		lines = append(lines, "the full log is in "+e.LogFile)
	}
	if len(e.Errs) == 1 {
		lines[0] += " " + lines[1]
		lines = append(lines[:1], lines[2:]...)
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the *StepErrors.
func (e *FailedError) Unwrap() []error { return e.Errs }

// Hint is that of the first error that has one, and how to go on.
func (e *FailedError) Hint() string {
	const again = "run the same command again when the cause is mended: it continues"
	for _, err := range e.Errs {
		var h interface{ Hint() string }
		if errors.As(err, &h) {
			return h.Hint() + "; " + again
		}
	}
	return again
}

// AilingError is a step that failed on a host where something is wrong besides, which is the likely reason.
type AilingError struct {
	Err      error
	Problems []runtime.Problem
}

func (e *AilingError) Error() string {
	lines := []string{e.Err.Error()}
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.String())
	}
	return strings.Join(lines, "\n")
}

func (e *AilingError) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *AilingError) Hint() string { return (&runtime.PreflightError{Problems: e.Problems}).Hint() }

// ailing asks the host of a step that failed what may be the reason.
func ailing(ctx context.Context, h *runtime.Host, err error) error {
	_, lost := errors.AsType[*host.LostError](err)
	if lost || ctx.Err() != nil || h.Runner == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	problems, askErr := runtime.Ailments(ctx, h.Runner)
	if askErr != nil || len(problems) == 0 {
		return err // the step's own error says most
	}
	return &AilingError{err, problems}
}

// executor carries out plans.
type executor struct {
	journal *journal
	display *progress.Display
	logFile string
	states  map[*runtime.Host]*hostState
	count   atomic.Int64
	keep    bool // write states on hosts
}

type hostState struct {
	runtime.HostState
	written bool
}

func newExecutor(c *runtime.Cluster, j *journal, d *progress.Display, logFile string) *executor {
	e := &executor{journal: j, display: d, logFile: logFile, states: map[*runtime.Host]*hostState{}}
	for _, h := range c.Hosts {
		e.states[h] = &hostState{}
	}
	return e
}

// begin says what the hosts' states are to be. They are written before the
// first step that changes the host.
func (e *executor) begin(state func(*runtime.Host) runtime.HostState) {
	e.keep = true
	for h, s := range e.states {
		s.HostState = state(h).Clone()
	}
}

// changed is how many steps had something to do.
func (e *executor) changed() int64 { return e.count.Load() }

// execute does phase after phase, on all hosts of a phase; a phase with failures is the last.
func (e *executor) execute(ctx context.Context, p plan) error {
	for _, ph := range p.phases {
		errs := make([]error, len(ph.work))
		var g errgroup.Group
		g.SetLimit(maxParallel)
		switch {
		case ph.serial:
			g.SetLimit(1)
		case ph.end != nil:
			g.SetLimit(-1)
		}
		for i, w := range ph.work {
			g.Go(func() error {
				if ph.serial && i > 0 && errs[i-1] != nil {
					errs[i] = errNotBegun
					return nil
				}
				errs[i] = e.steps(ctx, w)
				return nil
			})
		}
		_ = g.Wait()
		if ph.end != nil {
			ph.end()
		}
		var failed []error
		for _, err := range errs {
			if err != nil && !errors.Is(err, errNotBegun) {
				failed = append(failed, err)
			}
		}
		if len(failed) > 0 {
			return &FailedError{Phase: ph.name, LogFile: e.logFile, Errs: failed}
		}
	}
	return nil
}

// errNotBegun stands for hosts that were to come after one that failed.
var errNotBegun = errors.New("not begun")

func (e *executor) steps(ctx context.Context, w work) error {
	for _, s := range w.steps {
		task := e.display.Task(fmt.Sprintf("[%s] %s", w.host, s.Name))
		err := e.step(ctx, w.host, s, task)
		task.Done(err)
		if err != nil {
			return &StepError{Host: w.host.String(), Step: s.Name, Err: ailing(ctx, w.host, err)}
		}
	}
	return nil
}

func (e *executor) step(ctx context.Context, h *runtime.Host, s runtime.Step, task *progress.Task) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	done, err := e.isDone(ctx, h, s)
	if err != nil {
		return err
	}
	if done {
		task.Cached()
		return nil
	}
	e.count.Add(1)
	if err := e.writeState(ctx, h, false); err != nil {
		return err
	}
	start := time.Now()
	e.journal.write(Event{Host: h.String(), Step: s.Name, Event: "started"})
	if s.Do != nil {
		err = s.Do(ctx, taskWriter(task))
	}
	ended := Event{Host: h.String(), Step: s.Name, Event: "done", Seconds: time.Since(start).Seconds()}
	if err != nil {
		ended.Event, ended.Error = "failed", err.Error()
	}
	e.journal.write(ended)
	if err != nil || !e.keep || s.Key == "" {
		return err
	}
	state := e.states[h]
	state.Steps[s.Name] = s.Key
	state.Complete = state.Complete || s.Name == stepComplete
	return e.writeState(ctx, h, true)
}

func (e *executor) isDone(ctx context.Context, h *runtime.Host, s runtime.Step) (bool, error) {
	if s.Key == "" && s.Done == nil {
		return false, nil
	}
	if s.Key != "" && e.states[h].Steps[s.Name] != s.Key {
		return false, nil
	}
	if s.Done == nil {
		return true, nil
	}
	done, err := s.Done(ctx)
	if err != nil {
		return false, fmt.Errorf("looking at the host: %w", err)
	}
	return done, nil
}

// writeState makes the host's state durable: at the first change, and with every step that is kept.
func (e *executor) writeState(ctx context.Context, h *runtime.Host, again bool) error {
	s := e.states[h]
	if !e.keep || s.written && !again {
		return nil
	}
	if err := s.Write(ctx, h.Runner); err != nil {
		return err
	}
	s.written = true
	return nil
}

// taskWriter is the task, or nowhere: a nil *Task in an interface is not nil.
func taskWriter(t *progress.Task) io.Writer {
	if t == nil {
		return io.Discard
	}
	return t
}
