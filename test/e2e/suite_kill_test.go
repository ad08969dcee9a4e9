//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testKilledSteps makes a cluster of two hosts in as many runs as it has steps: each run is killed as soon as its journal says that a
// step is done which none before it has done. The last one comes to its end.
func testKilledSteps(t *testing.T, b *bed) {
	args := b.runArgs(b.versions[0].image, b.h[:1], b.h[3:4], "--progress", "none")
	done := map[string]bool{}
	runs, between := 0, 0
	for ended := false; !ended; runs++ {
		require.Less(t, runs, 150, "it does not come to its end")
		var last event
		last, ended = b.killAfterNext(t, args, done)
		if !ended && last.Event == "done" {
			between++
		}
	}
	t.Logf("%d runs were killed, %d of them before the next step had begun", runs-1, between)
	require.Greater(t, runs, 20)
	require.Contains(t, b.sealer(t, b.runArgs(b.versions[0].image, b.h[:1], b.h[3:4])...), "nothing to change")
	b.status(t, b.versions[0].kubelet, 2)
	b.ready(t, b.h[0], b.h[3])
	b.wellAsked(t)
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h[0], b.h[3])
}

type event struct{ Host, Step, Event string }

// killAfterNext runs sealer until a step is done that is not in done yet, adds it, and kills it: or until it ends, without error.
// It returns what the journal says last.
func (b *bed) killAfterNext(t *testing.T, args []string, done map[string]bool) (last event, ended bool) {
	t.Helper()
	journal := filepath.Join(b.lab.Dir, b.site, "clusters", b.name, "journal.jsonl")
	read := func(from int) []byte {
		text, err := os.ReadFile(journal)
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		return text[min(from, len(text)):]
	}
	begin := len(read(0))
	cmd := b.lab.Command(t.Context(), b.site, args...)
	var messages bytes.Buffer
	cmd.Stderr = &messages
	require.NoError(t, cmd.Start())
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for killed := false; ; {
		select {
		case err := <-exit:
			if !killed {
				require.NoError(t, err, messages.String())
			}
			for _, e := range events(t, read(begin)) {
				last = e
				if e.Event == "done" {
					done[e.Host+" "+e.Step] = true
				}
			}
			return last, !killed
		case <-tick.C:
		}
		for _, e := range events(t, read(begin)) {
			require.NotEqual(t, "failed", e.Event, "%s\n%s", e, messages.String())
			if e.Event == "done" && !done[e.Host+" "+e.Step] && !killed {
				require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
				killed = true
			}
		}
	}
}

func events(t *testing.T, lines []byte) (all []event) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		var e event
		require.NoError(t, json.Unmarshal(line, &e))
		all = append(all, e)
	}
	return all
}

// entry is a line of a double's journal.
type entry struct {
	Time                       time.Time
	Version, Event, Text, File string
	Args, Unknown, SecretFlags []string
}

// asked is what the doubles on the hosts were asked, by host, since the last call. It is empty where no double runs.
func (b *bed) asked(t *testing.T) [][]entry {
	t.Helper()
	all := make([][]entry, len(b.h))
	if b.journal == "" {
		return all
	}
	for i, h := range b.h {
		text := b.exec(t, h, "sh", "-c", "cat "+b.journal+" 2>/dev/null; rm -f "+b.journal)
		for line := range strings.Lines(text) {
			var e entry
			require.NoError(t, json.Unmarshal([]byte(line), &e), line)
			all[i] = append(all[i], e)
		}
	}
	return all
}

// wellAsked requires of the doubles that nothing was asked of them which they do not know, nothing secret in the open, and no image
// from elsewhere. It returns asked.
func (b *bed) wellAsked(t *testing.T) [][]entry {
	t.Helper()
	all := b.asked(t)
	for i, host := range all {
		for _, e := range host {
			require.NotEqual(t, "upstream", e.Event, "%s: %+v", b.h[i], e)
			require.NotEqual(t, "refused", e.Event, "%s: %+v", b.h[i], e)
			require.Empty(t, e.Unknown, "%s: %+v", b.h[i], e)
			require.Empty(t, e.SecretFlags, "%s: %+v", b.h[i], e)
		}
	}
	return all
}
