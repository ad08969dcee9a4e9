// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/vip"
	"github.com/sealerio/sealer/runtime"
)

// The endpoint of a cluster that runs becomes another without anybody losing the way: what is new is made before anything points at it, hosts
// follow one by one, and what was before goes last. Control planes keep both ends on the way, so that whoever is cut can go on, or go back.

// stepMoving is noted on control planes as long as the endpoint becomes another; its key is that one's String.
const stepMoving = "beginning to change how the API servers are found"

// noted is how the API servers are found, as control planes keep it.
type noted struct {
	have clusterfile.Endpoint
	made bool // something has been made with it
	next clusterfile.Endpoint
	half bool // it is becoming next
}

// notedEndpoint is what control planes that are part of the cluster keep, or else those of a cluster that is being made.
func notedEndpoint(hosts []*runtime.Host) (n noted, err error) {
	states := func(complete bool) []*runtime.Host {
		return slices.DeleteFunc(slices.Clone(hosts), func(h *runtime.Host) bool {
			return h.Lost != nil || h.Facts.State == nil || h.Spec.Role != clusterfile.ControlPlane || h.Facts.State.WasComplete() != complete
		})
	}
	list := states(true)
	n.made = len(list) > 0
	if !n.made {
		list = slices.DeleteFunc(states(false), func(h *runtime.Host) bool { return h.Facts.State.Steps[stepEndpoint] == "" })
		n.made = len(list) > 0
	}
	for i, h := range list {
		moving := h.Facts.State.Steps[stepMoving]
		if i == 0 || moving != "" && !n.half {
			n.have = clusterfile.Endpoint{}
			if text := h.Facts.State.Steps[stepEndpoint]; text != "" {
				if n.have, err = clusterfile.ParseEndpoint(text); err != nil {
					return n, fmt.Errorf("%s: %w", h, err)
				}
			}
		}
		if moving != "" && !n.half {
			n.half = true
			if n.next, err = clusterfile.ParseEndpoint(moving); err != nil {
				return n, fmt.Errorf("%s: %w", h, err)
			}
		}
	}
	return n, nil
}

// move is a change of the endpoint: from is what some hosts may still use.
type move struct{ from, to clusterfile.Endpoint }

func (m *move) key() string { return runtime.MoveKey(m.from, m.to) }

// toward is the move that makes want of what is noted; nil: there is nothing to do.
func (n noted) toward(want clusterfile.Endpoint) *move {
	switch {
	case !n.made:
		return nil
	case n.half && want.String() == n.have.String(): // back
		return &move{n.next, want}
	case n.half || want.String() != n.have.String():
		return &move{n.have, want}
	}
	return nil
}

// astray: a change was cut, and want is neither end of it.
func (n noted) astray(want clusterfile.Endpoint) bool {
	return n.half && want.String() != n.have.String() && want.String() != n.next.String()
}

// HalfMovedError is a cluster whose endpoint was being changed when that was cut.
type HalfMovedError struct{ Cluster, Have, Next string }

func (e *HalfMovedError) Error() string {
	return fmt.Sprintf("the endpoint of the cluster %q is on its way from %q to %q, and only sealer apply goes on with that; nothing was touched", e.Cluster, e.Have, e.Next)
}

// Hint says which Clusterfile.
func (e *HalfMovedError) Hint() string {
	return "apply the Clusterfile with the one or the other as its controlPlaneEndpoint: sealer apply -f"
}

// obstacles are why the endpoint cannot become want.
func (n noted) obstacles(c *runtime.Cluster, d runtime.Distribution, want clusterfile.Endpoint, leaving bool) []string {
	m := n.toward(want)
	if m == nil {
		return nil
	}
	refused := func(format string, args ...any) []string {
		return []string{fmt.Sprintf("controlPlaneEndpoint: it is %q, not %q: ", n.have, want) + fmt.Sprintf(format, args...)}
	}
	mover, ok := d.(runtime.Mover)
	switch program, _ := vip.Find(c.Images, runtime.Repository); {
	case n.astray(want):
		return refused("it is on its way to %q: apply that first, or the one before", n.next)
	case !ok:
		return refused("%s takes no other", d.Name())
	case mover.Stuck(c, m.from, m.to) != "":
		return refused("%s", mover.Stuck(c, m.from, m.to))
	case m.from.IPVS || m.to.IPVS:
		return refused("a cluster has IPVS from its beginning or not at all: workers would be without API servers while the one gives way to the other")
	case leaving:
		return refused("workers leave at the same time, which must find the API servers until they are gone: apply the one, then the other")
	case m.from.VIP == "" || m.to.VIP == "":
		return nil
	case m.from.Address() == m.to.Address():
		return refused("the address is the same: apply {balancer: true} first, then the address with its new network or interface")
	case vip.RouterID(m.from.Address()) == vip.RouterID(m.to.Address()):
		return refused("the last bytes of the two addresses are the same, by which control planes tell them apart: choose another, or apply {balancer: true} first")
	case program == vip.KubeVIP:
		return refused("kube-vip carries one address at a time: apply {balancer: true} first, then the new address")
	}
	return nil
}

// endpoint is the change of how the API servers are found, and what it is to each host.
func (c comparison) endpoint() ([]Change, error) {
	n, err := notedEndpoint(c.hosts)
	if err != nil {
		return nil, err
	}
	want := c.want.Endpoint
	if !want.Said() {
		if want = n.have; n.half {
			want = n.next
		}
	}
	m := n.toward(want)
	if m == nil {
		return nil, nil
	}
	whole := Change{Op: OpChange, About: AboutEndpoint, From: m.from.String(), To: m.to.String()}
	if n.half {
		whole.Note = "it is on its way already"
	}
	list := []Change{whole}
	for _, machine := range c.want.Machines() {
		h := c.member(machine)
		if h == nil || !h.Facts.State.WasComplete() {
			continue
		}
		var notes []string
		if h.Spec.Role == clusterfile.ControlPlane {
			if host := m.to.Host(); host != "" {
				notes = append(notes, "its API server's certificate names "+host)
			}
			if m.to.VIP != "" {
				notes = append(notes, "it takes its turn with the address")
			}
			if m.from.VIP != "" {
				notes = append(notes, "it gives up "+m.from.Host())
			}
			if len(notes) == 0 {
				continue
			}
		} else {
			where := m.to.Host()
			if where == "" {
				where = "its own balancer"
			}
			notes = append(notes, "it finds the API servers by "+where)
		}
		list = append(list, Change{Op: OpChange, About: AboutEndpoint, Host: h.String(), Note: strings.Join(notes, ", ")})
	}
	return list, nil
}

// findMove takes over the endpoint that the cluster has where none is asked for. Another one is taken up by an Apply alone.
func (r *run) findMove() error {
	n, err := notedEndpoint(r.cluster.Hosts)
	if err != nil || !n.made {
		return err
	}
	want := r.cluster.File.Endpoint
	if !want.Said() {
		if want = n.have; n.half && r.applied != nil {
			want = n.next
		}
		f := *r.cluster.File
		f.Endpoint = want
		r.cluster.File, r.Clusterfile = &f, &f
	}
	m := n.toward(want)
	switch {
	case m == nil:
	case r.applied != nil:
		r.move = m
	case n.half:
		return &HalfMovedError{Cluster: r.cluster.File.Name, Have: n.have.String(), Next: n.next.String()}
	default:
		return &EndpointChangeError{Cluster: r.cluster.File.Name, Have: n.have.String(), Want: want.String()}
	}
	return nil
}

// follows: the host is part of the cluster, and goes from one endpoint to the other.
func (r *run) follows(h *runtime.Host) bool {
	return r.move != nil && h.Facts.State.WasComplete()
}

// followers are those of the hosts that are part of the cluster.
func (r *run) followers(list []*runtime.Host) []*runtime.Host {
	return slices.DeleteFunc(slices.Clone(list), func(h *runtime.Host) bool { return !r.follows(h) })
}
