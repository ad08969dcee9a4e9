// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/vip"
	"github.com/sealerio/sealer/runtime"
)

// beginMove notes on a control plane where the change leads, before anything is changed. A change that goes back keeps what was noted.
func (r *run) beginMove(*runtime.Host) []runtime.Step {
	to := r.move.to
	if n, err := notedEndpoint(r.cluster.Hosts); err == nil && n.half {
		to = n.next
	}
	return []runtime.Step{{Name: stepMoving, Key: to.String()}}
}

// certify has a control plane's certificate say the new endpoint, and waits for its API server.
func (r *run) certify(h *runtime.Host) []runtime.Step {
	if r.move.to.Host() == "" {
		return nil
	}
	return r.distribution.ServerNames(r.cluster, h)
}

// tellMove has the cluster itself keep the endpoint.
func (r *run) tellMove(h *runtime.Host) []runtime.Step {
	if d, ok := r.distribution.(runtime.Mover); ok {
		return d.TellEndpoint(r.cluster, h, r.move.from)
	}
	return nil
}

// follow leads one host to the new endpoint, and waits until the cluster has heard of a worker from there; control planes ask themselves. A
// balancer that is needed no more goes when nothing uses it.
func (r *run) follow(h *runtime.Host) []runtime.Step {
	var steps []runtime.Step
	worker := h.Spec.Role == clusterfile.Worker
	if worker {
		steps = append(steps, r.hostsFile(h, r.apiServerIP(h)))
	}
	if d, ok := r.distribution.(runtime.Mover); ok {
		steps = append(steps, d.FollowEndpoint(r.cluster, h, r.move.from)...)
	}
	if worker {
		steps = append(steps, r.heard(h))
	}
	if worker && balancedPort(r.cluster, r.distribution, h) == 0 {
		steps = append(steps, unbalance(h))
	}
	return steps
}

// unbalance takes a worker's balancer away.
func unbalance(h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "removing the balancer of the API servers",
		Done: func(ctx context.Context) (bool, error) {
			there, err := asks(ctx, h, "test", "-e", endpointFile)
			return !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "endpoint", "uninstall")
		},
	}
}

// heard waits until the node is Ready, and its kubelet has told the cluster once more that it is there.
func (r *run) heard(h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "hearing from the node by the new endpoint", Key: r.move.key(),
		Do: func(ctx context.Context, log io.Writer) error {
			ctx, cancel := context.WithTimeoutCause(ctx, r.ReadyTimeout, &NotReadyError{r.ReadyTimeout, []string{h.String() + ": its kubelet has not reported by the new endpoint"}})
			defer cancel()
			tick := time.NewTicker(r.PollInterval)
			defer tick.Stop()
			first := ""
			for asked := false; ; {
				at, ready, err := r.renewed(ctx, h)
				switch {
				case err != nil && ctx.Err() == nil:
					return err
				case err == nil && !asked:
					first, asked = at, true
					say(log, "the kubelet was heard of last at %s", at)
				case err == nil && ready && at != first:
					return nil
				}
				if err == nil && ready && at == "" { // a cluster without leases of nodes
					return nil
				}
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-tick.C:
				}
			}
		},
	}
}

// renewed is when the kubelet has renewed the lease of its node, which it does every ten seconds, and whether the node is Ready.
func (r *run) renewed(ctx context.Context, h *runtime.Host) (at string, ready bool, err error) {
	n, err := r.api().Node(ctx, h.Facts.NodeName())
	if err != nil {
		return "", false, err
	}
	if n == nil {
		return "", false, fmt.Errorf("%s: the cluster has no node %s", h, h.Facts.NodeName())
	}
	var leases struct {
		Items []struct {
			Spec struct{ RenewTime string }
		}
	}
	err = r.kubectl(ctx, &leases, "get", "leases", "--namespace", "kube-node-lease", "--field-selector", "metadata.name="+h.Facts.NodeName())
	if err != nil || len(leases.Items) == 0 {
		return "", readiness(*n) == "", err
	}
	return leases.Items[0].Spec.RenewTime, readiness(*n) == "", nil
}

// leaveBefore has a control plane carry the address before no more.
func (r *run) leaveBefore(h *runtime.Host) []runtime.Step {
	before := r.move.from
	d, ok := r.distribution.(runtime.Addressed)
	switch {
	case !ok || before.VIP == "":
		return nil
	case r.move.to.VIP != "":
		steps := r.carryingBeside(h, clusterfile.Endpoint{})
		for i := range steps {
			steps[i].Name = fmt.Sprintf("no longer carrying the virtual address %s", before.Address())
		}
		return steps
	}
	return []runtime.Step{{
		Name: fmt.Sprintf("no longer carrying the virtual address %s", before.Address()),
		Done: func(ctx context.Context) (bool, error) {
			there, err := asks(ctx, h, "test", "-e", vip.Dir)
			return !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			for _, script := range [][]string{append([]string{giveUp, "sh"}, surrenderArgs(d)...), {takeAway, "sh", vip.Dir}} {
				if err := h.Runner.Run(ctx, host.Command{Argv: append([]string{"sh", "-c"}, script...), Stdout: log, Stderr: log, Mutates: true}); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// endMove keeps the new endpoint in the definition, notes it, and forgets that there was another.
func (r *run) endMove(h *runtime.Host) []runtime.Step {
	return append(define(r.cluster, h), runtime.Step{
		Name: "noting how the API servers are found now",
		Do: func(ctx context.Context, _ io.Writer) error {
			steps := r.executor.states[h].Steps
			steps[stepEndpoint] = r.move.to.String()
			delete(steps, stepMoving)
			return r.executor.writeState(ctx, h, true)
		},
	})
}

// beside is what a control plane carries, too, while one address takes the place of the other.
func (r *run) beside(h *runtime.Host) clusterfile.Endpoint {
	if r.follows(h) && r.move.from.VIP != "" {
		return r.move.from
	}
	return clusterfile.Endpoint{}
}
