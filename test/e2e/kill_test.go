//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// watched is a cluster whose journal tests read while sealer works on it: to kill it, or to do something to the hosts, at a step.
type watched struct {
	lab        *lab.Lab
	root, name string // of sealer and of the cluster
}

// event is a line of a cluster's journal.
type event struct{ Host, Step, Event, Error string }

func (w watched) file(name string) string {
	return filepath.Join(w.lab.Dir, w.root, "clusters", w.name, name)
}

// journal is what was done to the cluster's hosts, from a byte on, and its size. There is none before the first run, and after the
// cluster is forgotten.
func (w watched) journal(t *testing.T, from int) (all []event, size int) {
	t.Helper()
	text, err := os.ReadFile(w.file("journal.jsonl"))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	for line := range bytes.Lines(text[min(from, len(text)):]) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		var e event
		require.NoError(t, json.Unmarshal(line, &e))
		all = append(all, e)
	}
	return all, len(text)
}

// watch runs sealer, and calls see with what the journal says of this run, again and again, and once more without a process when it has
// ended.
func (w watched) watch(t *testing.T, see func([]event, *os.Process), args ...string) (stderr string, err error) {
	t.Helper()
	_, from := w.journal(t, 0)
	cmd := w.lab.Command(t.Context(), w.root, args...)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &messages
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			events, _ := w.journal(t, from)
			see(events, nil)
			return messages.String(), err
		case <-tick.C:
			events, _ := w.journal(t, from)
			see(events, cmd.Process)
		}
	}
}

// whenStep does something once a step whose name begins so has come so far on a host.
func (w watched) whenStep(t *testing.T, h hosts.Host, step, come string, do func(), args ...string) (stderr string, err error) {
	t.Helper()
	did := false
	stderr, err = w.watch(t, func(events []event, running *os.Process) {
		for _, e := range events {
			if running != nil && !did && e.Host == h.Address.String() && strings.HasPrefix(e.Step, step) && e.Event == come {
				did = true
				do()
			}
		}
	}, args...)
	require.True(t, did, "the step %q did not come: %s", step, stderr)
	return stderr, err
}

// killWhen kills sealer with SIGKILL once a step whose name begins so has come so far on some host.
func (w watched) killWhen(t *testing.T, step, come string, args ...string) {
	t.Helper()
	killed := false
	stderr, err := w.watch(t, func(events []event, running *os.Process) {
		for _, e := range events {
			if running != nil && !killed && strings.HasPrefix(e.Step, step) && e.Event == come {
				killed = true
				require.NoError(t, running.Signal(syscall.SIGKILL))
			}
		}
	}, args...)
	require.True(t, killed, "it ended before it was killed: %v\n%s", err, stderr)
	t.Logf("sealer %s was killed at %q", args[0], step)
}

// boundaries are ends of steps, by name, at each of which sealer is killed once; past are those that some run has gone past.
type boundaries struct {
	name func(event) string
	past map[string]bool
}

// eachStep are the steps of each host.
func eachStep() boundaries {
	return boundaries{func(e event) string { return e.Host + " " + e.name() }, map[string]bool{}}
}

// eachName are the steps by name, whichever host comes to one first.
func eachName() boundaries { return boundaries{event.name, map[string]bool{}} }

// eachKind are the steps of control planes by name, and those of workers.
func eachKind(workers ...hosts.Host) boundaries {
	return boundaries{func(e event) string {
		return fmt.Sprint(slices.Contains(strings.Split(addresses(workers...), ","), e.Host)) + " " + e.name()
	}, map[string]bool{}}
}

// name of the step without the file that it names: one that says when it was made is another in the next run.
func (e event) name() string {
	name, _, _ := strings.Cut(e.Step, " /")
	return name
}

// killedAtSteps runs the same command again and again. Each time it is killed with SIGKILL as soon as its journal says that a boundary is
// reached that no run has gone past, until it comes to its end. It returns how often it was killed. No step may fail in any of the runs.
func (w watched) killedAtSteps(t *testing.T, at boundaries, args ...string) (kills int) {
	t.Helper()
	began := time.Now()
	between := 0 // so many kills came before the next step had begun
	for kills = 0; kills < 150; kills++ {
		killed := false
		stderr, err := w.watch(t, func(events []event, running *os.Process) {
			for i, e := range events {
				require.NotEqual(t, "failed", e.Event, "%v", e)
				if e.Event != "done" {
					continue
				}
				if running == nil {
					at.past[at.name(e)] = true
					if killed && i == len(events)-1 {
						between++
					}
				} else if !killed && !at.past[at.name(e)] {
					err := running.Signal(syscall.SIGKILL)
					if killed = err == nil; !killed { // it was the last step, and sealer was faster
						require.ErrorIs(t, err, os.ErrProcessDone)
					}
				}
			}
		}, args...)
		if !killed {
			require.NoError(t, err, "%v: %s", args, stderr)
			t.Logf("sealer %s %s was killed %d times, %d of them before the next step had begun, and continued, in %s", args[0], args[1], kills, between,
				time.Since(began).Round(time.Second))
			return kills
		}
		if _, err := os.Stat(w.file("Clusterfile")); errors.Is(err, fs.ErrNotExist) { // all was done, and the cluster forgotten
			return kills + 1
		}
	}
	require.Fail(t, "it does not come to its end", "%v", args)
	return 0
}
