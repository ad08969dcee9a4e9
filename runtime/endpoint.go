// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealerio/sealer/clusterfile"
)

// Addressed is a Distribution whose API servers may have an endpoint that is not of one host.
type Addressed interface {
	// APIPort is the port of the API servers.
	APIPort(c *Cluster) int
	// StaticPods is the folder whose pods the kubelet of a control plane runs, so that sealer can have one carry a virtual address.
	// Empty: the distribution carries it by itself.
	StaticPods() string
	// VirtualAddressPrograms are the ends of the names of images, one of which must be packed for a virtual address; none: the distribution
	// has it in itself.
	VirtualAddressPrograms() []string
}

// EndpointNames are what the certificates of API servers say for the sake of the endpoint.
func (c *Cluster) EndpointNames() []string {
	if host := c.File.Endpoint.Host(); host != "" {
		return []string{host}
	}
	if c.File.Endpoint.IPVS {
		return []string{c.ServiceAddress().String()}
	}
	return nil
}

// FurtherNames are those of the API servers' certificates that are asked for besides: in the environment, or AltNames.
func (c *Cluster) FurtherNames() []string {
	return append(clusterfile.CertSANs(c.HostEnv(c.First())[clusterfile.EnvCertSANs]), c.AltNames...)
}

// ServiceAddress is where workers have the API servers with IPVS.
func (c *Cluster) ServiceAddress() netip.Addr {
	return c.File.Endpoint.ServiceAddress(IsIPv6(c.First().IP()))
}

// ipvsProblems finds what keeps the kernels of workers from balancing.
func ipvsProblems(c *Cluster, d Distribution) []Problem {
	const balancer = "controlPlaneEndpoint: {balancer: true}, which is the default"
	if _, ok := d.(Balanced); !ok {
		return []Problem{{"", "endpoint", fmt.Sprintf("%s has balancers of its own on its nodes, and no place for IPVS rules of sealer's", d.Name()), "leave ipvs out: " + balancer}}
	}
	var problems []Problem
	address := c.ServiceAddress()
	for _, h := range c.Hosts {
		if h.Lost != nil {
			continue
		}
		add := func(check, fix, format string, args ...any) {
			problems = append(problems, Problem{h.String(), check, fmt.Sprintf(format, args...), fix})
		}
		if IsIPv6(h.IP()) != address.Is6() {
			add("endpoint", "choose an ipvsAddress of the same family as the hosts', or none", "it is %s, and the virtual address %s of IPVS is of another family", h.IP(), address)
		}
		for _, p := range h.Facts.Addresses {
			if p.Masked().Contains(address) {
				add("endpoint", "choose an ipvsAddress that lies in no network of a host, or none", "the virtual address %s of IPVS lies in its network %s", address, p.Masked())
				break
			}
		}
		if h.Spec.Role == clusterfile.Worker && !h.Facts.IPVS {
			add("ipvs", "install the kernel's modules (some distributions keep ip_vs in a package of its own), or use the balancer: "+balancer,
				"its kernel %s has no IPVS: there are no modules ip_vs and ip_vs_rr", h.Facts.Kernel)
		}
	}
	return problems
}

// VirtualLink is the interface on which a control plane carries the virtual address, with the length of its network there; empty: there
// is none that fits.
func VirtualLink(e clusterfile.Endpoint, h *Host) (link string, bits int) {
	address := e.Address()
	if e.Interface != "" {
		if slices.Contains(h.Facts.Links, e.Interface) {
			link = e.Interface
		}
	}
	for _, p := range h.Facts.Addresses {
		if on := h.Facts.LinkOf[p]; p.Contains(address) && p.Addr() != address && (e.Interface == "" || on == e.Interface) {
			return on, p.Bits()
		}
	}
	return link, address.BitLen()
}

// endpointProblems finds endpoints that the hosts or the image cannot have.
func endpointProblems(c *Cluster, d Distribution) []Problem {
	e := c.File.Endpoint
	if e.IPVS {
		return ipvsProblems(c, d)
	}
	if e.VIP == "" {
		return nil
	}
	var problems []Problem
	add := func(h, fix, format string, args ...any) {
		problems = append(problems, Problem{h, "endpoint", fmt.Sprintf(format, args...), fix})
	}
	a, ok := d.(Addressed)
	if !ok {
		add("", "choose another endpoint", "%s has no virtual address", d.Name())
		return problems
	}
	programs := a.VirtualAddressPrograms()
	packed := func(name string) bool {
		return slices.ContainsFunc(c.Images, func(image string) bool { return Repository(image) == name })
	}
	if len(programs) > 0 && !slices.ContainsFunc(programs, packed) {
		add("", fmt.Sprintf("list an image of keepalived in the imageList of the Kubefile's context, such as registry.example.com/net/keepalived:2.2.7, and build again: "+
			"its name must end in /%s", programs[0]),
			"the image packs nothing that carries the virtual address %s: neither an image named %s nor one named %s", e.Address(), programs[0], programs[len(programs)-1])
	}
	for _, h := range c.Hosts {
		if h.Lost != nil {
			continue
		}
		switch address := e.Address(); {
		case h.IP() == address.String():
			add(h.String(), "choose an address that no host has", "the virtual address %s is its own", address)
		case h.Facts.State == nil && slices.ContainsFunc(h.Facts.Addresses, func(p netip.Prefix) bool { return p.Addr() == address }):
			add(h.String(), "choose an address that no host has", "the virtual address %s stands on one of its interfaces already", address)
		}
		if h.Spec.Role != clusterfile.ControlPlane {
			continue
		}
		if own, err := netip.ParseAddr(h.IP()); err == nil && own.Is4() != e.Address().Is4() {
			add(h.String(), "choose an address of the same family as the hosts'", "it is %s, and the virtual address %s is of another family", own, e.Address())
			continue
		}
		if link, _ := VirtualLink(e, h); link == "" {
			what := fmt.Sprintf("none of its interfaces has a network with the virtual address %s", e.Address())
			fix := "choose an address of the control planes' network, or say on which interface it is to be: controlPlaneEndpoint.interface, --vip-interface"
			if e.Interface != "" {
				what, fix = fmt.Sprintf("it has no interface %s for the virtual address", e.Interface), "name an interface that all control planes have"
			}
			add(h.String(), fix, "%s", what)
		}
	}
	return problems
}
