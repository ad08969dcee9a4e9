// SPDX-License-Identifier: Apache-2.0

// Package balance is a small balancer of TCP connections to a cluster's API servers, for hosts that have none
// of their own: connections go to servers that are well, and those to a server that is not are cut, so that clients begin anew.
package balance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// Options configure Serve.
type Options struct {
	Listen string // host:port
	// Servers are the host:port of all servers. They are asked for again with every round of checks; an error leaves the last ones.
	Servers func() ([]string, error)
	Logger  *slog.Logger   // default: silent
	Ready   func(net.Addr) // called once connections are taken; may be nil
	// Check tells whether a server is well. Default: its /readyz is OK, or at least it answers that one has to log in.
	Check    func(ctx context.Context, server string) error
	Interval time.Duration // between checks; default 2 s
	Patience time.Duration // with a check, and with a connection; default 2 s
}

// strikes is how many checks in a row a server fails before its connections are cut.
const strikes = 2

// Serve balances until ctx ends. What is connected then is cut.
func Serve(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.Check == nil {
		o.Check = Ready(o.Patience, nil)
	}
	b := &balancer{o: o, servers: map[string]*server{}}
	if err := b.follow(); err != nil {
		return fmt.Errorf("balancing: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("balancing: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { b.watch(ctx) })
	all.Go(func() {
		<-ctx.Done()
		_ = ln.Close() // ends Accept
		b.cutAll()
	})
	if o.Ready != nil {
		o.Ready(ln.Addr())
	}
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			all.Wait()
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			cancel()
			all.Wait()
			return fmt.Errorf("balancing: %w", err)
		}
		if err != nil { // too many open files, or a client that has gone: others may do better
			o.Logger.Warn("taking a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		all.Go(func() { b.serve(ctx, conn) })
	}
}

type balancer struct {
	o Options

	mu      sync.Mutex
	order   []string // as configured
	servers map[string]*server
	next    int
}

type server struct {
	failed int // checks in a row
	conns  map[net.Conn]bool
}

// follow takes over the list of servers; connections to those that are gone are cut.
func (b *balancer) follow() error {
	list, err := b.o.Servers()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range list {
		if b.servers[name] == nil {
			b.servers[name] = &server{conns: map[net.Conn]bool{}}
		}
	}
	for name, s := range b.servers {
		if !slices.Contains(list, name) {
			s.cut()
			delete(b.servers, name)
		}
	}
	b.order = slices.Clone(list)
	return nil
}

func (s *server) cut() {
	for c := range s.conns {
		_ = c.Close() // its copying ends
	}
}

func (b *balancer) cutAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		s.cut()
	}
}

// watch checks all servers, round after round.
func (b *balancer) watch(ctx context.Context) {
	tick := time.NewTicker(b.o.Interval)
	defer tick.Stop()
	for {
		if err := b.follow(); err != nil {
			b.o.Logger.Warn("reading the list of servers", "error", err)
		}
		b.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *balancer) round(ctx context.Context) {
	b.mu.Lock()
	order := b.order
	b.mu.Unlock()
	var all sync.WaitGroup
	for _, name := range order {
		all.Go(func() {
			checking, cancel := context.WithTimeout(ctx, b.o.Patience)
			defer cancel()
			err := b.o.Check(checking, name)
			if ctx.Err() == nil {
				b.note(name, err)
			}
		})
	}
	all.Wait()
}

// note keeps how a check went.
func (b *balancer) note(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.servers[name]
	switch {
	case s == nil:
	case err == nil:
		if s.failed >= strikes {
			b.o.Logger.Info("the server is well again", "server", name)
		}
		s.failed = 0
	default:
		s.failed++
		if s.failed == strikes {
			b.o.Logger.Warn("the server is not well: cutting its connections", "server", name, "connections", len(s.conns), "error", err)
			s.cut()
		}
	}
}

// candidates are the servers to try for a connection: those that are well, each in its turn, then the others: a check may be wrong.
func (b *balancer) candidates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var well, unwell []string
	for i := range b.order {
		name := b.order[(b.next+i)%len(b.order)]
		if b.servers[name].failed == 0 {
			well = append(well, name)
		} else {
			unwell = append(unwell, name)
		}
	}
	b.next++
	return append(well, unwell...)
}

func (b *balancer) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }() // all there was to say has been said
	for _, name := range b.candidates() {
		upstream, err := (&net.Dialer{Timeout: b.o.Patience, KeepAlive: 10 * time.Second}).DialContext(ctx, "tcp", name)
		if err != nil {
			b.note(name, err)
			continue
		}
		if b.enter(name, upstream) {
			join(client, upstream)
			b.leave(name, upstream)
			return
		}
		_ = upstream.Close() // the server has gone from the list meanwhile
	}
	b.o.Logger.Warn("no server takes connections")
}

func (b *balancer) enter(name string, c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.servers[name]
	if s == nil {
		return false
	}
	s.conns[c] = true
	return true
}

func (b *balancer) leave(name string, c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.servers[name]; s != nil {
		delete(s.conns, c)
	}
}

// join copies both ways until both are done, or one fails.
func join(client, upstream net.Conn) {
	defer func() { _ = upstream.Close() }()
	var both sync.WaitGroup
	copyTo := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(*net.TCPConn); ok && err == nil {
			_ = half.CloseWrite() // the other way may go on
			return
		}
		_, _ = to.Close(), from.Close() // an end is an end for both
	}
	both.Go(func() { copyTo(upstream, client) })
	both.Go(func() { copyTo(client, upstream) })
	both.Wait()
}
