// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// plan has a phase for each host that goes, and one that points those that stay at one another.
func (m *removal) plan() (plan, error) {
	if err := m.findBinaries(); err != nil {
		return plan{}, err
	}
	c := m.cluster
	p := plan{title: fmt.Sprintf("taking %s out of the cluster %q", hosts(len(m.going)), c.File.Name)}
	p.phases = append(p.phases, phase{name: "preparing", work: []work{{c.Server(), []runtime.Step{m.currentBinary(c.Server())}}}})
	for _, h := range m.going {
		ph := phase{name: "removing " + h.Spec.String(), serial: true}
		ph.work = append(ph.work, work{c.Server(), m.leaving(h)})
		if h.Lost == nil && h.Facts.State != nil {
			ph.work = append(ph.work, m.cleaning(h))
		}
		ph.work = append(ph.work, work{c.Server(), slices.Concat([]runtime.Step{m.answering()}, m.distribution.Forget(c, h), []runtime.Step{m.strike(h)})})
		p.phases = append(p.phases, ph)
	}
	for _, h := range m.leftOver {
		p.phases = append(p.phases, phase{name: "cleaning " + h.Spec.String(), work: []work{m.cleaning(h)}})
	}
	rest := m.rest()
	// Those that a removal before has taken out may not have been told to the others.
	if slices.ContainsFunc(m.how.Hosts, func(h clusterfile.Host) bool { return h.Role == clusterfile.ControlPlane }) {
		p.phases = append(p.phases, rest.repointing()...)
	}
	if m.defined != nil {
		p.phases = append(p.phases, rest.defining()...)
	}
	return p, nil
}

// rest is the cluster as it is without those that go.
func (m *removal) rest() *run {
	settings := m.Clusterfile
	if m.defined != nil {
		settings = over(m.defined, m.Clusterfile)
	}
	f, c := *settings, *m.cluster
	goes := func(address string) bool {
		return slices.ContainsFunc(m.going, func(h *runtime.Host) bool { return h.Spec.Address == address })
	}
	f.Hosts = slices.DeleteFunc(slices.Clone(f.Hosts), func(k clusterfile.Host) bool { return goes(k.Address) })
	c.Hosts = slices.DeleteFunc(slices.Clone(c.Hosts), func(h *runtime.Host) bool { return goes(h.Spec.Address) || h.Facts.State == nil })
	c.File = &f
	useRegistry(&c)
	o := m.RunOptions
	o.Clusterfile = &f
	return &run{RunOptions: o, cluster: &c, distribution: m.distribution}
}

// cleaning puts a host back as it was before.
func (m *removal) cleaning(h *runtime.Host) work {
	hooks := func(phase clusterfile.Phase) []runtime.Step {
		return DeleteOptions{Clusterfile: m.cluster.File}.hooks(m.cluster, h, m.distribution, phase)
	}
	return work{h, slices.Concat(hooks(clusterfile.PreCleanHost), surrender(m.distribution, h), m.distribution.Reset(m.cluster, h), hooks(clusterfile.PostCleanHost), cleanSteps(h))}
}

// currentBinary brings sealer-node up to date where an earlier sealer has left another one.
func (m *removal) currentBinary(h *runtime.Host) runtime.Step {
	s := m.transfer().Program(h)
	key := s.Key
	s.Key = ""
	s.Done = func(context.Context) (bool, error) {
		return h.Facts.State != nil && h.Facts.State.Steps[s.Name] == key, nil
	}
	return s
}

// leaving is done while the host still runs, if it does: all of it on the control plane that is asked.
func (m *removal) leaving(h *runtime.Host) []runtime.Step {
	c, d := m.cluster, m.distribution
	name := h.Facts.NodeName()
	var steps []runtime.Step
	if h.Spec.Role == clusterfile.ControlPlane {
		steps = append(steps, runtime.Step{
			Name: "checking that a majority stays without " + h.Spec.String(),
			Done: func(ctx context.Context) (bool, error) { return m.left(ctx, h) },
			Do: func(ctx context.Context, _ io.Writer) error {
				return checkQuorum(ctx, c, d, h, m.lostControlPlanes()...)
			},
		})
	}
	if name != "" && h.Lost == nil {
		steps = append(steps, runtime.Step{
			Name: "draining " + name,
			Done: func(ctx context.Context) (bool, error) {
				n, err := m.api().Node(ctx, name)
				return err == nil && n == nil, err
			},
			Do: func(ctx context.Context, log io.Writer) error {
				if err := m.api().Sign(ctx, name, cordonedByDelete, "true", log); err != nil {
					return err
				}
				return m.api().DrainOrRelease(ctx, name, cordonedByDelete, kube.DrainOptions{Timeout: m.how.DrainTimeout, Force: m.how.Force}, log)
			},
		})
	}
	return append(steps, d.Leave(c, h)...)
}

const cordonedByDelete = kube.CordonedBy + "delete"

// answering waits for the API server, which may start anew when the datastore has lost a member.
func (m *removal) answering() runtime.Step {
	ask := func(ctx context.Context) (bool, error) {
		h := m.cluster.Server()
		return answered(h.Runner.Run(ctx, m.distribution.Kubectl().Command("get", "--raw", "/readyz", "--request-timeout", "10s")))
	}
	return runtime.Step{
		Name: "waiting for the API server",
		Done: ask,
		Do: func(ctx context.Context, _ io.Writer) error {
			ctx, cancel := context.WithTimeoutCause(ctx, m.ReadyTimeout, errTimeout)
			defer cancel()
			tick := time.NewTicker(m.PollInterval)
			defer tick.Stop()
			for {
				if ready, err := ask(ctx); err != nil || ready {
					return err
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

// left: the datastore has given up the host's member before, in a removal that was cut.
func (m *removal) left(ctx context.Context, h *runtime.Host) (bool, error) {
	steps := m.distribution.Leave(m.cluster, h)
	for _, s := range steps {
		if s.Done == nil {
			return false, nil
		}
		if done, err := s.Done(ctx); err != nil || !done {
			return false, err
		}
	}
	return len(steps) > 0, nil
}

func (m *removal) lostControlPlanes() []*runtime.Host {
	return slices.DeleteFunc(slices.Clone(m.lost), func(h *runtime.Host) bool { return h.Spec.Role != clusterfile.ControlPlane })
}

// stepStrike is the last step of a host's removal.
func stepStrike(h clusterfile.Host) string {
	return "taking " + h.String() + " off the list of hosts"
}

// strike takes the host off what is known of the cluster.
func (m *removal) strike(h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: stepStrike(h.Spec),
		Do: func(context.Context, io.Writer) error {
			same := func(o *runtime.Host) bool { return o == h }
			f := *m.Clusterfile
			f.Hosts = slices.DeleteFunc(slices.Clone(f.Hosts), func(k clusterfile.Host) bool { return k.Address == h.Spec.Address })
			id, err := m.kept.clusterID(f.Name, m.cluster.Hosts)
			if err != nil {
				return err
			}
			if err := m.kept.save(&f, id); err != nil {
				return err
			}
			m.Clusterfile, m.cluster.File = &f, &f
			m.cluster.Hosts = slices.DeleteFunc(slices.Clone(m.cluster.Hosts), same)
			m.lost = slices.DeleteFunc(slices.Clone(m.lost), same)
			useRegistry(m.cluster)
			return nil
		},
	}
}

// repointing points the hosts that stay at the control planes that stay: registries at their peers, container runtimes
// and balancers at all of them, names at addresses.
func (r *run) repointing() []phase {
	peers := func(list []*runtime.Host) []work {
		var all []work
		for _, h := range list {
			// The program is the one that the host has.
			all = append(all, work{h, []runtime.Step{r.shared().init(h), r.shared().start(h, h.Facts.State.Steps[program.StepSend])}})
		}
		return all
	}
	rest := phase{name: "pointing the hosts at the control planes that stay"}
	for _, h := range r.cluster.Hosts {
		steps := append(endpoint(r.cluster, r.distribution, h), r.hostsFile(h, r.apiServerIP(h)))
		steps = append(steps, r.carrying(h)...)
		if d, ok := r.distribution.(runtime.Repointer); ok && !r.external() { // an external registry stays where it is
			steps = append(steps, d.Repoint(r.cluster, h)...)
		}
		rest.work = append(rest.work, work{h, steps})
	}
	list := []phase{rest}
	if !r.external() {
		list = []phase{
			{name: "the registry's peers", work: peers([]*runtime.Host{r.shared().source()})},
			{name: "the registry's peers on the other control planes", work: peers(r.shared().others())},
			rest,
		}
	}
	return slices.DeleteFunc(list, func(p phase) bool { return len(p.work) == 0 })
}

// defining keeps which hosts the cluster has, on those that hosts ask who join it later.
func (r *run) defining() []phase {
	p := phase{name: "keeping the cluster's definition"}
	for _, h := range r.cluster.ControlPlanes() {
		p.work = append(p.work, work{h, define(r.cluster, h)})
	}
	return []phase{p}
}
