// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// findContact is the first control plane whose API server answers, other than those to leave out; nil where none does. Hosts that
// sealer has not touched yet are not asked.
func findContact(ctx context.Context, c *runtime.Cluster, d runtime.Distribution, without ...*runtime.Host) (*runtime.Host, error) {
	for _, h := range c.ControlPlanes() {
		if h.Lost != nil || h.Facts.State == nil || slices.Contains(without, h) {
			continue
		}
		ready, err := answered(h.Runner.Run(ctx, d.Kubectl().Command("get", "--raw", "/readyz", "--request-timeout", "10s")))
		if err != nil {
			return nil, err
		}
		if ready {
			return h, nil
		}
	}
	return nil, nil
}

// NoContactError is a cluster of which no control plane answers.
type NoContactError struct {
	Cluster string
	Asked   []string
	look    string // where on the hosts
}

func (e *NoContactError) Error() string {
	if len(e.Asked) == 0 {
		return fmt.Sprintf("the cluster %q has no control plane that can be reached", e.Cluster)
	}
	return fmt.Sprintf("no control plane of the cluster %q answers; asked were %s", e.Cluster, strings.Join(e.Asked, ", "))
}

// Hint says where to look.
func (e *NoContactError) Hint() string {
	if e.look == "" {
		return "see that the operator's machine reaches the control planes by SSH"
	}
	return "look at " + e.look + " on the control planes; a cluster that has lost the majority of its etcd for good goes on from a snapshot, which a member that still runs can give: sealer etcd snapshot, sealer etcd restore --force"
}

// noContact is that none of d's control planes answers; d is nil where it is not known.
func noContact(c *runtime.Cluster, d runtime.Distribution, without ...*runtime.Host) error {
	e := &NoContactError{Cluster: c.File.Name}
	for _, h := range c.ControlPlanes() {
		if h.Lost == nil && !slices.Contains(without, h) {
			e.Asked = append(e.Asked, h.String())
			if d != nil && e.look == "" {
				e.look = d.Service(h).LogSource()
			}
		}
	}
	return e
}

// answered is the answer to a question that an exit status gives.
func answered(err error) (bool, error) {
	if _, exited := errors.AsType[*host.ExitError](err); exited {
		return false, nil
	}
	return err == nil, err
}
