// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/sealerio/sealer/runtime"
)

// APIPort is 6443, unless the ClusterConfig says otherwise.
func (Distribution) APIPort(c *runtime.Cluster) int { return portAt(c, apiPort, "api", "port") }

// StaticPods is none: k0s has a keepalived of its own.
func (Distribution) StaticPods() string { return "" }

// VirtualAddressPrograms are none, as StaticPods.
func (Distribution) VirtualAddressPrograms() []string { return nil }

// endpointDefaults are the parts of spec that the Cluster's endpoint asks for (docs.k0sproject.io/stable/cplb, /stable/high-availability).
func endpointDefaults(c *runtime.Cluster, api, network object) {
	e := c.File.Endpoint
	switch {
	case e.External != "":
		api["externalAddress"] = e.Host()
	case e.VIP != "":
		address := e.VIP
		link, bits := runtime.VirtualLink(e, c.First())
		if _, err := netip.ParsePrefix(address); err != nil {
			address = netip.PrefixFrom(e.Address(), bits).String()
		}
		instance := object{"virtualIPs": []any{address}, "authPass": c.AddressPassword.Reveal()}
		if e.Interface != "" {
			instance["interface"] = link
		}
		network["controlPlaneLoadBalancing"] = object{
			"enabled": true, "type": typeKeepalive, "keepalived": object{"vrrpInstances": []any{instance}},
		}
	}
}

// checkEndpoint: the endpoint has one place in the Clusterfile, and k0s has one port for it.
func checkEndpoint(c *runtime.Cluster) []runtime.Problem {
	e := c.File.Endpoint
	if !e.Own() {
		return nil
	}
	var problems []runtime.Problem
	add := func(fix, format string, args ...any) {
		problems = append(problems, runtime.Problem{Check: "endpoint", What: "the Clusterfile: " + fmt.Sprintf(format, args...), Fix: fix})
	}
	spec, _ := c.File.K0s["spec"].(object)
	api, _ := spec["api"].(object)
	network, _ := spec["network"].(object)
	if api["externalAddress"] != nil || network["controlPlaneLoadBalancing"] != nil {
		add("leave externalAddress and controlPlaneLoadBalancing out of the ClusterConfig", "its Cluster has a controlPlaneEndpoint, and its ClusterConfig another one")
	}
	port := (Distribution{}).APIPort(c)
	if e.External != "" && e.HostPort(port) != net.JoinHostPort(e.Host(), strconv.Itoa(port)) {
		add("have the balancer listen on it, or set the ClusterConfig's api.port", "the external endpoint is %s, and k0s reaches it at the port of its API servers alone, %d", e.External, port)
	}
	return problems
}
