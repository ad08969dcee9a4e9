// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/sealerio/sealer/runtime"
)

// QuorumError is a control plane that may not go: what stays of the datastore could decide nothing.
type QuorumError struct {
	Host    string
	Members int // control planes that are members of the datastore, with Host
	Healthy int // of these
	Unwell  []string
	Without bool // it is the removal of Host that takes the majority, not what is lost already
}

func (e *QuorumError) Error() string {
	s := fmt.Sprintf("%d of %d members of the datastore are well", e.Healthy, e.Members)
	if e.Without {
		s += fmt.Sprintf(": without %s there would be no majority", e.Host)
	} else {
		s += ", which is no majority: nothing can be changed"
	}
	if len(e.Unwell) > 0 {
		s += "; not well: " + strings.Join(e.Unwell, "; ")
	}
	return s
}

// Hint is to mend first.
func (e *QuorumError) Hint() string {
	if e.Without {
		return "mend or delete first the control planes that are not well, or join others"
	}
	return "bring control planes back; where they are gone for good, restore the cluster from a snapshot of its datastore without them: sealer etcd restore --force"
}

// checkQuorum makes sure that a majority of the datastore's members is well now, and would be without h (nil: only now).
// lost are control planes that are not among c.Hosts. A datastore that is none of the hosts' has no members.
func checkQuorum(ctx context.Context, c *runtime.Cluster, d runtime.Distribution, h *runtime.Host, lost ...*runtime.Host) error {
	e := QuorumError{}
	hWell := false
	counted := false
	for _, cp := range append(c.ControlPlanes(), lost...) {
		if cp.Lost != nil {
			e.Members++
			e.Unwell = append(e.Unwell, named(cp, cp.Lost))
			continue
		}
		for _, p := range d.Health(c, cp) {
			if p.Name != runtime.ProbeDatastore {
				continue
			}
			counted = true
			e.Members++
			if err := p.Ask(ctx); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				e.Unwell = append(e.Unwell, named(cp, err))
				continue
			}
			e.Healthy++
			hWell = hWell || cp == h
		}
	}
	if !counted {
		return nil
	}
	if e.Healthy < majority(e.Members) {
		return &e
	}
	if h == nil {
		return nil
	}
	after := e.Healthy
	if hWell {
		after--
	}
	if after < majority(e.Members-1) {
		e.Host, e.Without = h.String(), true
		return &e
	}
	return nil
}

// named is an error with its host, which some name themselves.
func named(h *runtime.Host, err error) string {
	if strings.HasPrefix(err.Error(), h.String()+": ") {
		return err.Error()
	}
	return h.String() + ": " + err.Error()
}

// majority of n members.
func majority(n int) int { return n/2 + 1 }
