// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
)

// EnvSecondIP is the variable of a host's environment that names its address of the other family, for clusters of both.
const EnvSecondIP = "SecondIP"

// Networks are what pods and services have their addresses from: a network, or one of IPv4 and one of IPv6 with a comma
// between. The family of the first one is that of the cluster.
type Networks struct{ Pods, Services string }

// Networked is a Distribution that says where services are.
type Networked interface {
	// ServiceIPs are the addresses of the API servers' service and of the cluster's DNS; empty where they are not known.
	ServiceIPs(c *Cluster) (api, dns string)
}

// ServiceIPs are those that every distribution takes in a network of services. Of two, the first one has them.
func (n Networks) ServiceIPs() (api, dns string) {
	first, _, _ := strings.Cut(n.Services, ",")
	return clusterfile.ServiceIPs(first)
}

// Dual tells whether pods have addresses of both families.
func (n Networks) Dual() bool {
	pods := families(n.Pods)
	return slices.Contains(pods, v4) && slices.Contains(pods, v6)
}

// SameFamilies is a list of networks as the other list has them: of its families, in its order.
func SameFamilies(list, network4, network6 string) string {
	var networks []string
	for _, f := range families(list) {
		if f == v6 {
			networks = append(networks, network6)
		} else {
			networks = append(networks, network4)
		}
	}
	return strings.Join(networks, ",")
}

const (
	v4 = "IPv4"
	v6 = "IPv6"
)

// families of a list of networks or addresses, one for each entry.
func families(list string) []string {
	var all []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, family(part))
		}
	}
	return all
}

func family(address string) string {
	if strings.Contains(address, ":") {
		return v6
	}
	return v4
}

// IsIPv6 tells of an address which family it has.
func IsIPv6(address string) bool { return family(address) == v6 }

// Loopback is the address of a host for itself, of the family that it is known by.
func (h *Host) Loopback() string {
	if IsIPv6(h.IP()) {
		return "::1"
	}
	return "127.0.0.1"
}

// SecondIP is the host's address of the other family than IP: the one that its environment names (EnvSecondIP), the one it was
// installed with, or else the first on the interface that has IP. Empty: it has none.
func (c *Cluster) SecondIP(h *Host) string {
	if given := c.HostEnv(h)[EnvSecondIP]; given != "" {
		if ip, err := netip.ParseAddr(strings.Trim(given, "[]")); err == nil {
			return ip.Unmap().String()
		}
		return given
	}
	if s := h.Facts.State; s != nil && s.SecondAddress != "" {
		return s.SecondAddress
	}
	own, err := netip.ParseAddr(h.IP())
	if err != nil {
		return ""
	}
	link := ""
	for p, l := range h.Facts.LinkOf {
		if p.Addr() == own {
			link = l
		}
	}
	for _, p := range h.Facts.Addresses {
		if p.Addr().Is4() != own.Is4() && h.Facts.LinkOf[p] == link {
			return p.Addr().String()
		}
	}
	return ""
}

// NodeIPs are the addresses that the host's node has in a cluster with these networks: one, or one of each family.
func (c *Cluster) NodeIPs(h *Host, n Networks) []string {
	if second := c.SecondIP(h); n.Dual() && second != "" && IsIPv6(second) != IsIPv6(h.IP()) {
		return []string{h.IP(), second}
	}
	return []string{h.IP()}
}

// serviceBits: an API server takes no more addresses for services (kube-apiserver's validation of --service-cluster-ip-range).
const serviceBits = 20

// nodeBits: a controller manager gives out no more networks to nodes (its range allocator).
const nodeBits = 16

// NodeMask6 is the length of the network of IPv6 that a controller manager with these arguments, NAME=VALUE, gives to each node;
// standard where they do not say, and 0 where it gives none.
func NodeMask6(standard int, args []string) int {
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch n, err := strconv.Atoi(value); {
		case name == "allocate-node-cidrs" && value == "false":
			return 0
		case err == nil && (name == "node-cidr-mask-size-ipv6" || name == "node-cidr-mask-size"):
			standard = n
		}
	}
	return standard
}

// NetworkProblems finds networks that do not fit one another, or the addresses of the hosts. nodeMask6 is the length of the
// network of IPv6 that each node gets of the pods'; 0: whoever gives them out knows.
func NetworkProblems(c *Cluster, n Networks, nodeMask6 int) []Problem {
	k := &networkChecker{c: c}
	pods, services := k.parse("pods", n.Pods), k.parse("services", n.Services)
	if len(k.problems) > 0 {
		return k.problems
	}
	k.networks(n, pods, services, nodeMask6)
	k.hosts(n, slices.Concat(pods, services))
	return k.problems
}

type networkChecker struct {
	c        *Cluster
	problems []Problem
}

func (k *networkChecker) add(h *Host, check, fix, format string, args ...any) {
	p := Problem{Check: check, What: fmt.Sprintf(format, args...), Fix: fix}
	if h != nil {
		p.Host = h.String()
	}
	k.problems = append(k.problems, p)
}

func (k *networkChecker) parse(whose, list string) []netip.Prefix {
	var networks []netip.Prefix
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			k.add(nil, "network", "write 10.244.0.0/16, fd00:10:244::/56, or both with a comma between", "the network %q of the %s is no address with a length", part, whose)
			continue
		}
		networks = append(networks, p.Masked())
	}
	if len(networks) > 2 || len(networks) == 2 && networks[0].Addr().Is4() == networks[1].Addr().Is4() {
		k.add(nil, "network", "give one network of IPv4, one of IPv6, or one of each", "the %s have the networks %s", whose, list)
	}
	return networks
}

func (k *networkChecker) networks(n Networks, pods, services []netip.Prefix, nodeMask6 int) {
	ofPods, ofServices := families(n.Pods), families(n.Services)
	switch {
	case len(pods) == 0 || len(services) == 0 || slices.Equal(ofPods, ofServices):
	case len(ofPods) == len(ofServices) && len(ofPods) == 2:
		k.add(nil, "network", "write both in one order, the family of the hosts' addresses first", "the pods have %s first (%s), the services %s (%s)", ofPods[0], n.Pods, ofServices[0], n.Services)
	default:
		k.add(nil, "network", "give pods and services networks of the same families", "the pods have %s (%s), the services %s (%s)",
			strings.Join(ofPods, " and "), n.Pods, strings.Join(ofServices, " and "), n.Services)
	}
	for _, s := range services {
		for _, p := range pods {
			if s.Overlaps(p) {
				k.add(nil, "network", "give pods and services networks that have no address in common", "the network %s of the services and %s of the pods overlap", s, p)
			}
		}
		if least := s.Addr().BitLen() - serviceBits; s.Bits() < least {
			k.add(nil, "network", fmt.Sprintf("give services a network of /%d or smaller", least), "the network %s of the services is too large", s)
		}
	}
	for _, p := range pods {
		if p.Addr().Is6() && nodeMask6 > 0 && (p.Bits() > nodeMask6 || p.Bits() < nodeMask6-nodeBits) {
			k.add(nil, "network", fmt.Sprintf("give pods a network of /%d to /%d, or nodes another size with the controller manager's node-cidr-mask-size-ipv6", nodeMask6-nodeBits, nodeMask6),
				"of the network %s of the pods, nodes cannot get a /%d each", p, nodeMask6)
		}
	}
}

func (k *networkChecker) hosts(n Networks, networks []netip.Prefix) {
	first := k.c.First()
	of := family(first.IP())
	ipv6 := of == v6 || slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if pods := families(n.Pods); len(pods) > 0 && first.IP() != "" && pods[0] != of {
		fix := "give pods and services networks of the hosts' family, or name the hosts by addresses of the other"
		if n.Dual() {
			fix = "write the network of the hosts' family first, for pods and for services, or name the hosts by addresses of the other"
		}
		k.add(nil, "network", fix, "the hosts have %s addresses (%s), and %s comes first among the networks of the pods (%s)", of, first.IP(), pods[0], n.Pods)
	}
	for _, h := range k.c.Hosts {
		if h.Lost != nil || h.IP() == "" {
			continue
		}
		if family(h.IP()) != of {
			k.add(h, "address", "name all hosts by addresses of one family: a dual stack finds the others itself", "%s is no %s address as that of %s is", h.IP(), of, first)
			continue
		}
		if ip, err := netip.ParseAddr(h.IP()); err == nil {
			for _, p := range networks {
				if p.Contains(ip) {
					k.add(h, "network", "give pods and services networks in which no host is", "%s lies in the network %s of pods or services", ip, p)
				}
			}
		}
		if ipv6 && !h.Facts.IPv6 {
			k.add(h, "ipv6", "boot the host without ipv6.disable=1, and without net.ipv6.conf.default.disable_ipv6 = 1 in /etc/sysctl.d", "IPv6 is off on it")
			continue
		}
		if n.Dual() {
			k.second(h)
		}
	}
}

func (k *networkChecker) second(h *Host) {
	other := v6
	if IsIPv6(h.IP()) {
		other = v4
	}
	const fix = "give the interface one, or name it as " + EnvSecondIP + " in the host's env"
	second := k.c.SecondIP(h)
	ip, err := netip.ParseAddr(second)
	switch {
	case second == "":
		k.add(h, "address", fix, "it has no %s address beside %s on its interface, and pods and services have both families", other, h.IP())
	case err != nil || family(second) != other:
		k.add(h, "address", "name its "+other+" address", "%s %q is no %s address", EnvSecondIP, second, other)
	case !slices.ContainsFunc(h.Facts.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip }):
		k.add(h, "address", fix, "%s %s is on none of its interfaces", EnvSecondIP, second)
	}
}
