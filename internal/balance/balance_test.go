// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/balance"
)

// echo answers each line with its name before it.
type echo struct {
	name string
	ln   net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

func newEcho(t *testing.T, name string) *echo {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e := &echo{name: name, ln: ln}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, conn)
			e.mu.Unlock()
			go func() {
				in := bufio.NewScanner(conn)
				for in.Scan() {
					_, _ = fmt.Fprintf(conn, "%s %s\n", name, in.Text())
				}
				_ = conn.Close()
			}()
		}
	}()
	t.Cleanup(e.kill)
	return e
}

func (e *echo) address() string { return e.ln.Addr().String() }

// kill ends it as a process ends that is killed.
func (e *echo) kill() {
	_ = e.ln.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		_ = c.Close()
	}
}

// ask says a line on a connection and returns the answer.
func ask(t *testing.T, conn net.Conn, line string) (string, error) {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return answer, err
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bed is a balancer before some servers.
type bed struct {
	address string
	mu      sync.Mutex
	list    []string
	unwell  map[string]bool
}

func newBed(t *testing.T, servers ...string) *bed {
	t.Helper()
	b := &bed{list: servers, unwell: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready := make(chan net.Addr, 1)
	done := make(chan error, 1)
	go func() {
		done <- balance.Serve(ctx, balance.Options{
			Listen: "127.0.0.1:0", Interval: 10 * time.Millisecond, Patience: 5 * time.Second,
			Ready: func(a net.Addr) { ready <- a },
			Servers: func() ([]string, error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.list, nil
			},
			Check: func(_ context.Context, server string) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.unwell[server] {
					return errors.New("unwell")
				}
				return nil
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	b.address = (<-ready).String()
	return b
}

func (b *bed) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func TestServe_EachInItsTurn(t *testing.T) {
	a, b := newEcho(t, "a"), newEcho(t, "b")
	bed := newBed(t, a.address(), b.address())
	seen := map[string]int{}
	for range 10 {
		answer, err := ask(t, dial(t, bed.address), "x")
		require.NoError(t, err)
		seen[answer]++
	}
	require.Equal(t, map[string]int{"a x\n": 5, "b x\n": 5}, seen)
}

// A server that is gone costs a connection that it had, and no new one.
func TestServe_ServerGone(t *testing.T) {
	a, b := newEcho(t, "a"), newEcho(t, "b")
	bed := newBed(t, a.address(), b.address())
	a.kill()
	for range 10 {
		answer, err := ask(t, dial(t, bed.address), "x")
		require.NoError(t, err)
		require.Equal(t, "b x\n", answer)
	}
}

// A server that takes connections and does nothing, as that of a host which hangs: what is connected is cut.
func TestServe_CutsWhatHangs(t *testing.T) {
	a, b := newEcho(t, "a"), newEcho(t, "b")
	bed := newBed(t, a.address())
	conn := dial(t, bed.address)
	_, err := ask(t, conn, "x")
	require.NoError(t, err)
	bed.set(func() { bed.list = []string{a.address(), b.address()}; bed.unwell[a.address()] = true })
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Read(make([]byte, 1))
	var timeout net.Error
	require.Error(t, err)
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection was not cut")
	answer, err := ask(t, dial(t, bed.address), "x")
	require.NoError(t, err)
	require.Equal(t, "b x\n", answer)

	// With nobody well, each is tried: a check may be wrong.
	bed.set(func() { bed.unwell[b.address()] = true; bed.list = []string{b.address()} })
	require.Eventually(t, func() bool {
		answer, err := ask(t, dial(t, bed.address), "x")
		return err == nil && answer == "b x\n"
	}, 20*time.Second, 10*time.Millisecond)
}

// What is taken off the list loses its connections.
func TestServe_FollowsTheList(t *testing.T) {
	a, b := newEcho(t, "a"), newEcho(t, "b")
	bed := newBed(t, a.address())
	conn := dial(t, bed.address)
	_, err := ask(t, conn, "x")
	require.NoError(t, err)
	bed.set(func() { bed.list = []string{b.address()} })
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	answer, err := ask(t, dial(t, bed.address), "x")
	require.NoError(t, err)
	require.Equal(t, "b x\n", answer)
}

// The check that is used where none is given asks /readyz over TLS.
func TestServe_Readyz(t *testing.T) {
	var status, asked atomic.Int64
	status.Store(http.StatusOK)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			asked.Add(1)
			w.WriteHeader(int(status.Load()))
		}
	}))
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- balance.Serve(ctx, balance.Options{
			Listen: "127.0.0.1:0", Interval: 10 * time.Millisecond, Ready: func(a net.Addr) { ready <- a },
			Servers: func() ([]string, error) { return []string{srv.Listener.Addr().String()}, nil },
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	address := (<-ready).String()
	conn := dial(t, address)
	for _, well := range []int64{http.StatusOK, http.StatusUnauthorized, http.StatusForbidden} {
		status.Store(well)
		n := asked.Load()
		require.Eventually(t, func() bool { return asked.Load() > n+3 }, 20*time.Second, time.Millisecond)
	}
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout(), "it is still connected")

	status.Store(http.StatusInternalServerError)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Read(make([]byte, 1))
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "it was not cut")
}
