// SPDX-License-Identifier: Apache-2.0

// Package progress shows long work: one display for builds, transfers and
// steps on hosts, drawn by BuildKit's progress UI, so that everything that
// takes time looks the same on a terminal, in a CI log and as JSON.
package progress

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"golang.org/x/term"
)

// Mode is a way to show progress.
type Mode string

// The modes of --progress.
const (
	Auto  Mode = "auto"  // TTY on a terminal, Plain elsewhere
	TTY   Mode = "tty"   // redrawn lines; an error where the output is no terminal
	Plain Mode = "plain" // a line per event
	JSON  Mode = "json"  // BuildKit's status documents, one a line
	None  Mode = "none"
)

// Modes lists what --progress takes.
func Modes() []string {
	return []string{string(Auto), string(TTY), string(Plain), string(JSON), string(None)}
}

func (m Mode) display() (progressui.DisplayMode, error) {
	switch m {
	case Auto, "":
		return progressui.AutoMode, nil
	case TTY:
		return progressui.TtyMode, nil
	case Plain:
		return progressui.PlainMode, nil
	case JSON:
		return progressui.RawJSONMode, nil
	case None:
		return progressui.QuietMode, nil
	}
	return "", fmt.Errorf("progress mode %q is not one of %s", string(m), strings.Join(Modes(), ", "))
}

// Display draws tasks and solves until it is closed. A nil *Display shows
// nothing, so that callers need not ask. Its methods may be called from any goroutine.
type Display struct {
	log   *slog.Logger
	lines bool // the output keeps every line: counters are summed up, not drawn one by one

	mu      sync.RWMutex // held for writing to close events
	closed  bool
	events  chan *client.SolveStatus
	solves  sync.WaitGroup
	drawn   chan struct{}
	drawErr error
}

// Open starts a display on w. What tasks begin, log and end with also goes to
// log, where one is given, at level debug. Close must be called, else the last lines are lost.
func Open(w io.Writer, mode Mode, log *slog.Logger) (*Display, error) {
	dm, err := mode.display()
	if err != nil {
		return nil, err
	}
	ui, err := progressui.NewDisplay(w, dm, progressui.WithPhase("Working"))
	if err != nil {
		return nil, fmt.Errorf("opening the progress display: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Display{log: log, lines: mode == Plain || mode != TTY && mode != JSON && !isTerminal(w), events: make(chan *client.SolveStatus, 64), drawn: make(chan struct{})}
	go func() {
		defer close(d.drawn)
		// The display outlives a cancelled command: how it ended must still be
		// shown. Closing the channel is what ends it.
		_, d.drawErr = ui.UpdateFrom(context.Background(), d.events) //nolint:forbidigo // see above
	}()
	return d, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// Close waits for running solves' last events, draws what is left and ends the display.
func (d *Display) Close() error {
	if d == nil {
		return nil
	}
	d.solves.Wait()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.events)
	d.mu.Unlock()
	<-d.drawn
	return d.drawErr
}

// Solve gives a channel for client.Build or client.Solve, which close it.
func (d *Display) Solve() chan *client.SolveStatus {
	ch := make(chan *client.SolveStatus)
	if d == nil {
		go drain(ch)
		return ch
	}
	d.solves.Go(func() {
		for st := range ch {
			d.record(st)
			d.send(st)
		}
	})
	return ch
}

func drain(ch <-chan *client.SolveStatus) {
	for range ch { // the sender needs a reader, the events have none
	}
}

// record keeps a solve's events in the log file: what a RUN printed, and what failed.
func (d *Display) record(st *client.SolveStatus) {
	for _, v := range st.Vertexes {
		if v.Completed != nil {
			d.log.Debug("vertex", "name", v.Name, "cached", v.Cached, "error", v.Error)
		}
	}
	for _, l := range st.Logs {
		d.log.Debug("output", "vertex", l.Vertex.Encoded(), "text", strings.TrimRight(string(l.Data), "\n"))
	}
}

func (d *Display) send(st *client.SolveStatus) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.closed {
		d.events <- st
	}
}

// Task starts one line of work. Done must be called on it.
func (d *Display) Task(name string) *Task {
	if d == nil {
		return nil
	}
	now := time.Now()
	t := &Task{display: d, vertex: client.Vertex{Digest: digest.FromString(identity.NewID()), Name: name, Started: &now}}
	d.log.Debug("started", "task", name)
	d.sendVertex(t.vertex)
	return t
}

func (d *Display) sendVertex(v client.Vertex) {
	d.send(&client.SolveStatus{Vertexes: []*client.Vertex{&v}})
}

// Task is one line of the display, with counters and output below it. A nil
// *Task does nothing.
type Task struct {
	display *Display

	mu     sync.Mutex
	vertex client.Vertex
	sum    *Counter // of all counters, where the output keeps every line
}

// Write shows output of the task; it never fails, so that a Task can stand
// where a command's stdout is wanted.
func (t *Task) Write(p []byte) (int, error) {
	if t == nil {
		return len(p), nil
	}
	t.display.log.Debug("output", "task", t.vertex.Name, "text", strings.TrimRight(string(p), "\n"))
	data := append([]byte(nil), p...) // the caller may use p again
	t.display.send(&client.SolveStatus{Logs: []*client.VertexLog{{
		Vertex: t.vertex.Digest, Stream: 1, Data: data, Timestamp: time.Now(),
	}}})
	return len(p), nil
}

// Logf shows one line below the task.
func (t *Task) Logf(format string, args ...any) {
	_, _ = fmt.Fprintf(t, format+"\n", args...)
}

// Cached marks the task as one that had nothing to do.
func (t *Task) Cached() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.vertex.Cached = true
	t.mu.Unlock()
}

// Done ends the task; a nil err is success. Only the first call counts.
func (t *Task) Done(err error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	if t.vertex.Completed != nil {
		t.mu.Unlock()
		return
	}
	now := time.Now()
	t.vertex.Completed = &now
	if err != nil {
		t.vertex.Error = err.Error()
	}
	v, sum := t.vertex, t.sum
	t.mu.Unlock()
	sum.finish()
	t.display.log.Debug("ended", "task", v.Name, "took", now.Sub(*v.Started), "cached", v.Cached, "error", v.Error)
	t.display.sendVertex(v)
}

// CounterOf is a counter below the task that a log is, as Track's, or one that counts for nobody.
func CounterOf(log io.Writer, name string, total int64) *Counter {
	t, _ := log.(*Task)
	return t.Track(name, total)
}

// Track adds a counter of bytes below the task, such as one blob on its way.
// total 0 means unknown.
func (t *Task) Track(name string, total int64) *Counter {
	if t == nil {
		return nil
	}
	if t.display.lines {
		return t.track(total)
	}
	c := newCounter(t, name+" "+identity.NewID()[:4], total)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(time.Now())
	return c
}

// track adds total to the task's one counter and returns that.
func (t *Task) track(total int64) *Counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sum == nil {
		t.sum = newCounter(t, "transferred", 0)
		t.sum.shared = true
	}
	t.sum.mu.Lock()
	defer t.sum.mu.Unlock()
	t.sum.status.Total += total
	return t.sum
}

// Counter counts bytes. A nil *Counter does nothing.
type Counter struct {
	task   *Task
	shared bool // it counts for several, so that the end of one is not its own

	mu     sync.Mutex
	status client.VertexStatus
	shown  time.Time
}

// How often a counter is drawn; a transfer advances far more often.
const (
	counterInterval = 100 * time.Millisecond
	linesInterval   = 5 * time.Second
)

func newCounter(t *Task, name string, total int64) *Counter {
	now := time.Now()
	return &Counter{task: t, shown: now, status: client.VertexStatus{
		ID: name, Name: name, Vertex: t.vertex.Digest, Total: total, Started: &now, Timestamp: now,
	}}
}

// Advance adds n bytes; a negative n takes back what has to be fetched again.
func (c *Counter) Advance(n int64) {
	if c == nil {
		return
	}
	interval := counterInterval
	if c.shared {
		interval = linesInterval
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Current += n
	if now := time.Now(); now.Sub(c.shown) >= interval {
		c.show(now)
	}
}

// Done ends the counter.
func (c *Counter) Done(error) {
	if c == nil || c.shared {
		return
	}
	c.finish()
}

func (c *Counter) finish() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.status.Completed = &now
	c.show(now)
}

// show sends the counter's state; c.mu is held.
func (c *Counter) show(now time.Time) {
	c.shown = now
	s := c.status
	s.Timestamp = now
	c.task.display.send(&client.SolveStatus{Statuses: []*client.VertexStatus{&s}})
}
