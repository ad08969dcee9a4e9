// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"strings"

	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Adjuster = Distribution{}

// fixed are the settings below spec that k0s bakes into a cluster, with the reason. What stands below one is fixed, too.
func fixed() map[string]string {
	const (
		networks  = "addresses were given out by it"
		endpoints = "all nodes were made with it"
		data      = "a cluster does not change its datastore"
	)
	return map[string]string{
		"network.podCIDR": networks, "network.serviceCIDR": networks, "network.dualStack": networks, "network.clusterDomain": "pods were told of it",
		"network.provider":               "a pod network is not replaced under pods that run",
		"network.nodeLocalLoadBalancing": endpoints, "network.controlPlaneLoadBalancing": endpoints,
		"api.port": endpoints, "api.k0sApiPort": endpoints, "api.externalAddress": endpoints, "api.onlyBindToAddress": endpoints,
		"konnectivity": endpoints, "storage": data, "installConfig": "users were made with it",
	}
}

// Fixed says which settings k0s cannot change on a cluster that runs.
func (Distribution) Fixed(path ...string) string {
	if len(path) < 2 || path[0] != "ClusterConfig" || path[1] != "spec" {
		return ""
	}
	for n := 3; n <= len(path); n++ {
		if why := fixed()[strings.Join(path[2:n], ".")]; why != "" {
			return why
		}
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
