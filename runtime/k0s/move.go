// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Mover = Distribution{}

// Stuck is said of all but a virtual address that comes or goes: externalAddress and nodeLocalLoadBalancing exclude each other, and nodes join with
// the one or the other; keepalived's two addresses would be of one router (docs.k0sproject.io/stable/nllb, /stable/cplb).
func (Distribution) Stuck(_ *runtime.Cluster, from, to clusterfile.Endpoint) string {
	switch {
	case to.External != "":
		return "nodes of k0s have joined with balancers of their own (nodeLocalLoadBalancing), which exclude an api.externalAddress; " +
			"a balancer of yours may serve users all the same: sealer cert --alt-names " + to.Host()
	case from.External != "":
		return "nodes of k0s have joined by its api.externalAddress, which excludes balancers and addresses of their own; make that name lead elsewhere instead"
	case from.VIP != "" && to.VIP != "":
		return "k0s carries one address at a time: apply {balancer: true} first, by which workers reach the API servers anyway, then the new address"
	}
	return ""
}

// TellEndpoint does nothing: it stands in each controller's k0s.yaml.
func (Distribution) TellEndpoint(*runtime.Cluster, *runtime.Host, clusterfile.Endpoint) []runtime.Step {
	return nil
}

// FollowEndpoint starts a controller anew with the address or without it. Workers keep their own balancers.
func (d Distribution) FollowEndpoint(c *runtime.Cluster, h *runtime.Host, _ clusterfile.Endpoint) []runtime.Step {
	return d.ServerNames(c, h)
}
