// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// guardToken holds where the unit names the token's file, and something is in it. A control plane that starts without
// either, and without data, makes a cluster of its own instead of joining.
const guardToken = `grep -q -- ` + tokenFlag + ` %s || { echo "the unit has no ` + tokenFlag + `: k0s would make a cluster of its own" >&2; exit 1; }
[ -s ` + tokenFile + ` ] || { echo "` + tokenFile + ` is empty: k0s would not join" >&2; exit 1; }`

// Join makes the host a node.
func (d Distribution) Join(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{
		d.configure(c, h, true, func(ctx context.Context) (bool, error) { return balancesOn(ctx, c, c.Server()) }),
		{
			Name: "joining the cluster (k0s)",
			Done: func(ctx context.Context) (bool, error) { return d.settled(ctx, c, h) },
			Do:   func(ctx context.Context, log io.Writer) error { return d.join(ctx, c, h, log) },
		},
	}
	if isController(h) {
		steps = append(steps, runtime.RootKubeconfig(h, keptDir, adminConf))
	}
	return steps
}

func (d Distribution) join(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	member := func(ctx context.Context) (bool, error) { return d.isNode(ctx, c, h) }
	guard := fmt.Sprintf(guardToken, service(h).File())
	begun, err := succeeds(ctx, h.Runner, "sh", "-c", `[ -e "$1" ] || [ -e "$2" ]`, "sh", joinedMark, etcdDir)
	if err != nil {
		return err
	}
	var known bool
	if begun {
		known, err = d.known(ctx, c, h)
	}
	if failed, _ := errors.AsType[*host.ExitError](err); err != nil && failed == nil {
		return err
	}
	if known || err != nil {
		// It may be a member that was stopped, or that must take up a new configuration. Where the cluster does not answer, it may
		// be that it waits for this very member: two of two are a majority.
		starting := d.start(ctx, c, h, guard, member, log)
		if late, _ := errors.AsType[*runtime.StartError](starting); late == nil {
			return starting
		}
		if err != nil {
			return errors.Join(starting, err)
		}
	}
	if begun {
		_, _ = fmt.Fprintln(log, "an earlier join was cut: resetting")
	}
	if err := d.clearHalf(ctx, c, h, begun, log); err != nil {
		return err
	}
	t, err := newToken(ctx, c, h)
	if err != nil {
		return err
	}
	err = t.place(ctx, h)
	if err == nil {
		err = markRestart(ctx, h, log) // a worker that waits with an old token has to look again
	}
	if err == nil {
		err = d.start(ctx, c, h, guard, member, log)
	}
	// The file stays: k0s 1.35.1 does not start again without one that holds a token. This one is worth nothing from here on.
	return errors.Join(err, t.invalidate(ctx, c))
}

// known tells whether the cluster counts on the host: it has its node, or its member of etcd.
func (d Distribution) known(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	node, err := hasNode(ctx, c.Server(), h)
	if err != nil || !node || !isController(h) || !ownEtcd(c) {
		return node, err
	}
	_, there, err := member(ctx, c, h)
	return there, err
}

// clearHalf takes away what a join that was cut, or an earlier life of the host, has left: first what the cluster knows of
// it, for a member of etcd that never comes counts all the same, then what is on the host.
func (d Distribution) clearHalf(ctx context.Context, c *runtime.Cluster, h *runtime.Host, begun bool, log io.Writer) error {
	for _, s := range append(d.Leave(c, h), d.Forget(c, h)...) {
		done, err := s.Done(ctx)
		if err != nil {
			return err
		}
		if done {
			continue
		}
		if err := s.Do(ctx, log); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if begun {
		if err := d.reset(ctx, h, log); err != nil {
			return err
		}
	}
	return installUnit(ctx, h, installFlags(c, h, true), log)
}
