// SPDX-License-Identifier: Apache-2.0

// Package ipvs has the kernel itself hand on connections to a cluster's API servers (IP Virtual Server, masquerading): a service at a virtual
// address of this host, and rules that follow the list of servers and how they are. Programs of this host use it, others do not.
package ipvs

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sealerio/sealer/internal/balance"
)

// Options configure Serve.
type Options struct {
	Service netip.AddrPort // the virtual address, with the port
	// Servers are the IP:port of all servers. They are asked for again with every round of checks; an error leaves the last ones.
	Servers func() ([]string, error)
	Logger  *slog.Logger // default: silent
	// Check tells whether a server is well. Default: that of package balance.
	Check    func(ctx context.Context, server string) error
	Interval time.Duration // between rounds; default 2 s
	Patience time.Duration // with a check; default 2 s
}

// strikes is how many checks in a row a server fails before its connections are cut. With the first one it gets no new ones.
const strikes = 2

// Serve keeps the rules until ctx ends. They stay then, so that connections outlive this program: Remove takes them away. What others do to
// the rules is mended with the next round: a kube-proxy flushes all that there are when it begins to use nftables.
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
		o.Check = balance.Ready(o.Patience, (&apart{}).dial)
	}
	if _, err := Prepare(); err != nil {
		return err
	}
	r := &rounds{o: o, failed: map[netip.AddrPort]int{}}
	if err := r.follow(); err != nil {
		return fmt.Errorf("keeping IPVS rules: %w", err)
	}
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for first := true; ; first = false {
		if err := r.follow(); err != nil {
			o.Logger.Warn("reading the list of servers", "error", err)
		}
		if !first {
			r.check(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := apply(o.Service, r.weights(), o.Logger); err != nil {
			if first {
				return err
			}
			o.Logger.Warn("keeping IPVS rules", "error", err)
		}
		if first {
			continue // rules before checks: those may take their time, and a host that boots waits for neither
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type rounds struct {
	o      Options
	order  []netip.AddrPort
	failed map[netip.AddrPort]int // checks in a row
}

func (r *rounds) follow() error {
	list, err := r.o.Servers()
	if err != nil {
		return err
	}
	var order []netip.AddrPort
	for _, text := range list {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("%q is not an IP address with a port", text)
		}
		if server.Addr().Is4() != r.o.Service.Addr().Is4() {
			return fmt.Errorf("%s is of another family than the virtual address %s", server, r.o.Service.Addr())
		}
		order = append(order, server)
	}
	r.order = order
	for server := range r.failed {
		if !slices.Contains(order, server) {
			delete(r.failed, server)
		}
	}
	return nil
}

func (r *rounds) check(ctx context.Context) {
	results := make([]error, len(r.order))
	var all sync.WaitGroup
	for i, server := range r.order {
		all.Go(func() {
			checking, cancel := context.WithTimeout(ctx, r.o.Patience)
			defer cancel()
			results[i] = r.o.Check(checking, server.String())
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return
	}
	for i, server := range r.order {
		err := results[i]
		if err == nil {
			if r.failed[server] >= strikes {
				r.o.Logger.Info("the server is well again", "server", server)
			}
			delete(r.failed, server)
			continue
		}
		r.failed[server]++
		if r.failed[server] == strikes {
			r.o.Logger.Warn("the server is not well: cutting its connections", "server", server, "error", err)
		}
	}
}

// weights of the servers that the rules name: 1 for those that are well, 0 for those that keep what is connected and get nothing new. With
// nobody well all get connections: a check may be wrong.
func (r *rounds) weights() map[netip.AddrPort]int {
	w := map[netip.AddrPort]int{}
	well := false
	for _, server := range r.order {
		switch failed := r.failed[server]; {
		case failed == 0:
			w[server], well = 1, true
		case failed < strikes:
			w[server] = 0
		}
	}
	if !well {
		for _, server := range r.order {
			w[server] = 1
		}
	}
	return w
}
