// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// begun tells whether the cluster was started on this host, by an earlier run.
func (r *run) begun(h *runtime.Host) bool {
	return h.Spec.Role == clusterfile.ControlPlane && did(h, r.distribution.Init(r.cluster, h))
}

// joined tells whether the host became part of the cluster by an earlier run.
func (r *run) joined(h *runtime.Host) bool {
	return did(h, r.distribution.Join(r.cluster, h))
}

// did tells whether the host's state has one of the steps.
func did(h *runtime.Host, steps []runtime.Step) bool {
	return h.Facts.State != nil && slices.ContainsFunc(steps, func(s runtime.Step) bool {
		return s.Key != "" && h.Facts.State.Steps[s.Name] != ""
	})
}

// starters are the control plane on which the cluster starts, or none where another one answers already: a cluster is never
// started twice.
func (r *run) starters() []*runtime.Host {
	c := r.cluster
	if c.Contact != nil && (c.Contact != c.First() || r.joined(c.Contact)) {
		return nil
	}
	return []*runtime.Host{c.First()}
}

// starting starts the cluster on its first control plane; those that will join fetch what they need for it.
func (r *run) starting(h *runtime.Host) []runtime.Step {
	if slices.Contains(r.starters(), h) {
		return r.distribution.Init(r.cluster, h)
	}
	if p, ok := r.distribution.(runtime.Prefetcher); ok && !r.begun(h) && !r.joined(h) {
		return p.Prefetch(r.cluster, h)
	}
	return nil
}

// joiners are the control planes that become part of the cluster through another one.
func (r *run) joiners() []*runtime.Host {
	var list []*runtime.Host
	for _, h := range r.cluster.ControlPlanes() {
		if h != r.cluster.Server() && !r.begun(h) {
			list = append(list, h)
		}
	}
	return list
}

// apiServerIP is where a host finds an API server: control planes that are part of the cluster at themselves, workers at the virtual address
// or at their own balancer, where they have one, and all others at the control plane that is asked.
func (r *run) apiServerIP(h *runtime.Host) string {
	switch {
	case h == r.cluster.Server() || r.begun(h) || r.joinedBefore(h):
		return h.IP()
	case h.Spec.Role == clusterfile.Worker && r.cluster.File.Endpoint.VIP != "":
		return r.cluster.File.Endpoint.Address().String()
	case balancedPort(r.cluster, r.distribution, h) != 0:
		return balancedAddress(r.cluster, h)
	}
	return r.cluster.Server().IP()
}

// lead is the control plane on which what is done once for the whole cluster is done: where it was done before, so that it is
// not done again, or else the one through which the cluster is asked.
func (r *run) lead() *runtime.Host {
	for _, h := range r.cluster.ControlPlanes() {
		if launchedOn(h) {
			return h
		}
	}
	return r.cluster.Server()
}

func launchedOn(h *runtime.Host) bool {
	if h.Facts.State == nil {
		return false
	}
	for name := range h.Facts.State.Steps {
		if strings.HasPrefix(name, "CMD ") || strings.HasPrefix(name, "LAUNCH ") {
			return true
		}
	}
	return false
}

// launchOnce is launch, but for a cluster whose image was launched on a control plane that is gone: of that only the wait for
// all nodes is left.
func (r *run) launchOnce(h *runtime.Host) []runtime.Step {
	steps := r.launch(h)
	if len(steps) == 0 || launchedOn(h) || r.cluster.Contact == nil || !r.complete(r.cluster.Contact) {
		return steps
	}
	return steps[len(steps)-1:]
}

// complete: an earlier run of this image has come to its end on the host.
func (r *run) complete(h *runtime.Host) bool {
	s := h.Facts.State
	return s != nil && s.Complete && s.ImageDigest == r.cluster.Digest
}

// shared are the cluster's registries.
func (r *run) shared() *registries {
	if r.registries == nil {
		r.registries = &registries{cluster: r.cluster, changed: map[*runtime.Host]bool{}}
	}
	return r.registries
}

// look finds the control plane that the cluster is asked through, and what depends on it.
func (r *run) look(ctx context.Context) error {
	contact, err := findContact(ctx, r.cluster, r.distribution)
	if err != nil {
		return err
	}
	r.cluster.Contact = contact
	// A first control plane that is only down may still come; another one would found a second cluster.
	if contact == nil && !r.begun(r.cluster.First()) && (len(r.lost) > 0 || slices.ContainsFunc(r.cluster.Hosts, r.joined)) {
		return noContact(r.cluster, r.distribution)
	}
	return nil
}
