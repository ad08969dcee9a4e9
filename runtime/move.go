// SPDX-License-Identifier: Apache-2.0

package runtime

import "github.com/sealerio/sealer/clusterfile"

// Mover is a Distribution whose nodes can be led to the API servers of a running cluster by another endpoint. Certificates are ServerNames',
// virtual addresses are sealer's; c.File.Endpoint is the new one in all of it.
type Mover interface {
	// Stuck is why one endpoint cannot follow another; empty: it can.
	Stuck(c *Cluster, from, to clusterfile.Endpoint) string
	// TellEndpoint has the cluster itself keep the endpoint, for nodes that join and programs that start later. It is done once, on
	// c.Server(), when the endpoint leads to the API servers, and before any host follows.
	TellEndpoint(c *Cluster, h *Host, from clusterfile.Endpoint) []Step
	// FollowEndpoint has a host that is part of the cluster use it, after its /etc/hosts: control planes go first, one by one, then workers.
	FollowEndpoint(c *Cluster, h *Host, from clusterfile.Endpoint) []Step
}

// MoveKey is for steps that are done again whenever the endpoint becomes another.
func MoveKey(from, to clusterfile.Endpoint) string { return to.String() + ", from " + from.String() }
