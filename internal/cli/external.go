// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// dialTime is how long a registry may take to accept a connection.
const dialTime = 5 * time.Second

// imagePusher pushes from the local store: over the network of this machine, or where that does not lead to the registry, through a
// host's SSH connection.
type imagePusher struct {
	app   *app
	cmd   *cobra.Command
	store *store.Store
}

// Check implements cluster.ImagePusher.
func (p *imagePusher) Check(ctx context.Context, push cluster.ImagePush) error {
	if err := registry.CheckPacked(ctx, p.store, push.Image, target(push)); err != nil {
		return err
	}
	_, err := p.reach(ctx, push, io.Discard)
	return err
}

// Lacks implements cluster.ImagePusher.
func (p *imagePusher) Lacks(ctx context.Context, push cluster.ImagePush) ([]string, error) {
	dial, err := p.reach(ctx, push, io.Discard)
	if err != nil {
		return nil, err
	}
	client, err := p.client(push, dial, nil, 0)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.LacksPacked(ctx, p.store, push.Image, target(push))
}

// Push implements cluster.ImagePusher.
func (p *imagePusher) Push(ctx context.Context, push cluster.ImagePush, log io.Writer) error {
	dial, err := p.reach(ctx, push, log)
	if err != nil {
		return err
	}
	task, _ := log.(*progress.Task)
	client, err := p.client(push, dial, task, 0)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.PushPacked(ctx, p.store, push.Image, target(push))
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// reach finds the way to the registry, and sees that it takes the login.
func (p *imagePusher) reach(ctx context.Context, push cluster.ImagePush, log io.Writer) (dialFunc, error) {
	direct := named(push.Aliases, (&net.Dialer{Timeout: dialTime}).DialContext)
	err := p.ask(ctx, push, direct)
	if err == nil || push.Through == nil || answered(err) {
		return direct, err
	}
	through := named(push.Aliases, push.Through)
	_, _ = fmt.Fprintf(log, "this machine does not reach the registry (%v): going through %s\n", err, push.ThroughHost)
	if second := p.ask(ctx, push, through); second != nil {
		if answered(second) {
			return nil, second
		}
		return nil, fmt.Errorf("%w; through %s: %w", err, push.ThroughHost, second)
	}
	return through, nil
}

// answered tells whether a registry has said no, so that another way to it would not help.
func answered(err error) bool {
	_, said := errors.AsType[*registry.StatusError](err)
	return said
}

func (p *imagePusher) ask(ctx context.Context, push cluster.ImagePush, dial dialFunc) error {
	client, err := p.client(push, dial, nil, -1)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Check(ctx, push.Registry.Host())
}

func (p *imagePusher) client(push cluster.ImagePush, dial dialFunc, task *progress.Task, retries int) (*registry.Client, error) {
	o, err := p.app.registryOptions(p.cmd)
	if err != nil {
		return nil, err
	}
	host := push.Registry.Host()
	o.Mirrors, o.Insecure, o.Dial, o.Retries = nil, nil, dial, retries
	if push.Registry.CA != "" {
		o.Authorities = map[string][]byte{host: []byte(push.Registry.CA)}
	}
	if push.Registry.Username != "" {
		o.Logins = []registry.Login{{Host: host, Username: push.Registry.Username, Password: push.Registry.Password}}
	}
	if task != nil {
		o.Track = func(name string, total int64) registry.Tracker { return task.Track(name, total) }
	}
	return registry.NewClient(o)
}

func target(push cluster.ImagePush) registry.Target {
	return registry.Target{Host: push.Registry.Host(), Prefix: push.Registry.Path}
}

// named dials the names of the Clusterfile's hostAliases at their addresses.
func named(aliases []clusterfile.Alias, dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if name, port, err := net.SplitHostPort(address); err == nil {
			for _, a := range aliases {
				if slices.Contains(a.Hostnames, name) {
					address = net.JoinHostPort(a.IP, port)
				}
			}
		}
		return dial(ctx, network, address)
	}
}
