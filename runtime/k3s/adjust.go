// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"slices"

	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Adjuster = Distribution{}

// Fixed says which keys k3s reads when a cluster or a node starts for the first time, and which it holds servers
// together by.
func (Distribution) Fixed(path ...string) string {
	if len(path) < 3 || path[0] != "K3s" {
		return ""
	}
	switch key := path[2]; {
	case key == "node-label" || key == "node-taint":
		return "k3s reads it when a node starts for the first time: labels and taints of hosts stand in the Cluster's hosts"
	case slices.Contains(atFirstStart(), key):
		return "k3s reads it when a node starts for the first time"
	case key == "docker" || key == "container-runtime-endpoint":
		return "a node keeps the container runtime that it was started with"
	case slices.Contains(critical(), key):
		return "k3s wants it the same on all servers, and as the cluster was started with it"
	case slices.Contains(external(), key):
		return "a cluster does not change its datastore"
	case key == "https-listen-port" || key == "data-dir":
		return "all nodes were made with it"
	}
	return ""
}

// Adjust starts the control plane that is asked with its new settings, where no other step does: Init is for the first
// control plane, and Join for all others.
func (d Distribution) Adjust(c *runtime.Cluster, h *runtime.Host, _ [][]string) []runtime.Step {
	if h != c.Server() || h == c.First() {
		return nil
	}
	return d.Join(c, h)
}
