//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/sealerio/sealer/test/hosts"
)

func writeKey(t *testing.T, file string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
}

// link is a way to a host that may be slow, and may be cut.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	open  []net.Conn
	rate  int   // bytes a second towards the host; 0: as fast as may be
	left  int64 // bytes towards the host until it is cut once; 0: it is not
	times int
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{listener: listener, target: target}
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) limit(bytesPerSecond int) { l.mu.Lock(); defer l.mu.Unlock(); l.rate = bytesPerSecond }
func (l *link) cutAfter(n int64)         { l.mu.Lock(); defer l.mu.Unlock(); l.left = n }
func (l *link) cuts() int                { l.mu.Lock(); defer l.mu.Unlock(); return l.times }

// cut ends all connections. New ones may be made.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open, l.times = nil, l.times+1
}

func (l *link) serve(from net.Conn) {
	to, err := net.Dial("tcp", l.target)
	if err != nil {
		_ = from.Close()
		return
	}
	l.mu.Lock()
	l.open = append(l.open, from, to)
	l.mu.Unlock()
	go func() { _, _ = io.Copy(from, to) }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			return
		}
		l.passed(n)
	}
}

// passed waits as long as n bytes take, and cuts the link where it is time.
func (l *link) passed(n int) {
	l.mu.Lock()
	rate, now := l.rate, false
	if l.left > 0 {
		l.left -= int64(n)
		now = l.left <= 0
		l.left = max(l.left, 0)
	}
	l.mu.Unlock()
	if now {
		l.cut()
	}
	if rate > 0 {
		<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
	}
}

type faultEvent struct{ Host, Step, Event string }

// journal is what was done to the cluster's hosts, from a byte on.
func (f *faults) journal(t *testing.T, from int) (events []faultEvent, size int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shared.Dir, faultsRoot, "clusters", faultsName, "journal.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0
	}
	require.NoError(t, err)
	for line := range bytes.Lines(text[min(from, len(text)):]) {
		var e faultEvent
		if json.Unmarshal(line, &e) == nil { // the last one may be on its way
			events = append(events, e)
		}
	}
	return events, len(text)
}

// watched runs sealer, and calls see with what its journal says of this run, again and again, until it ends.
func (f *faults) watched(t *testing.T, see func([]faultEvent, *os.Process), args ...string) (stderr string, err error) {
	t.Helper()
	_, from := f.journal(t, 0)
	cmd := shared.Command(t.Context(), faultsRoot, args...)
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
			events, _ := f.journal(t, from)
			see(events, nil)
			return messages.String(), err
		case <-tick.C:
			events, _ := f.journal(t, from)
			see(events, cmd.Process)
		}
	}
}

// whenStep does something once a step whose name begins so has come so far on a host.
func (f *faults) whenStep(t *testing.T, h hosts.Host, step, event string, do func(), args ...string) (stderr string, err error) {
	t.Helper()
	did := false
	stderr, err = f.watched(t, func(events []faultEvent, running *os.Process) {
		for _, e := range events {
			if running != nil && !did && e.Host == h.Address.String() && strings.HasPrefix(e.Step, step) && e.Event == event {
				did = true
				do()
			}
		}
	}, args...)
	require.True(t, did, "the step %q did not come: %s", step, stderr)
	return stderr, err
}

// killedAtSteps runs the same command again and again. Each time it is killed as soon as a step is done that was not done before,
// until it comes to its end. It returns how often it was killed.
func (f *faults) killedAtSteps(t *testing.T, args ...string) int {
	t.Helper()
	done := map[faultEvent]bool{}
	for kills := range 100 {
		killed := false
		stderr, err := f.watched(t, func(events []faultEvent, running *os.Process) {
			for _, e := range events {
				if e.Event == "done" && !done[e] && running != nil && !killed {
					killed = true
					require.NoError(t, running.Signal(syscall.SIGKILL))
				}
				if running == nil && e.Event == "done" {
					done[e] = true
				}
			}
		}, args...)
		if !killed {
			require.NoError(t, err, "%v: %s", args, stderr)
			return kills
		}
		_, err = os.Stat(filepath.Join(shared.Dir, faultsRoot, "clusters", faultsName, "Clusterfile"))
		if errors.Is(err, fs.ErrNotExist) { // all was done, and the cluster forgotten
			return kills + 1
		}
		require.NoError(t, err)
	}
	require.Fail(t, "it does not come to its end", "%v", args)
	return 0
}
