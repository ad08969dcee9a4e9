// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Endpoint says where workers and users find the API servers. One of its ways is chosen; the zero value chooses none, and is a
// Balancer in the end.
type Endpoint struct {
	// Balancer is a balancer on each worker, of sealer's or of the distribution's own.
	Balancer bool `json:",omitempty"`
	// IPVS is a balancer on each worker that the kernel is, at a virtual address that each has for itself. It is sealer's.
	IPVS bool `json:",omitempty"`
	// IPVSAddress is that address; empty: ServiceAddress' own.
	IPVSAddress string `json:",omitempty"`
	// VIP is an address that the control planes hand on among themselves: an IP address, with the length of its network or without.
	VIP string `json:",omitempty"`
	// Interface is where VIP is carried; empty: the one whose network it lies in.
	Interface string `json:",omitempty"`
	// External is host or host:port of a balancer that the user runs.
	External string `json:",omitempty"`
}

// Where nothing is said, IPVS is at a link-local address, which is in no network that is routed, and at a unique local one.
const (
	ipvsAddress  = "169.254.197.2"
	ipvsAddress6 = "fd00:169:254:197::2"
)

// linkRule is what Linux takes as the name of an interface, but for what would need quoting.
var linkRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)

// Said tells whether a way was chosen.
func (e Endpoint) Said() bool { return e != Endpoint{} }

// Own tells whether there is an address for the API servers as a whole.
func (e Endpoint) Own() bool { return e.VIP != "" || e.External != "" }

// Address of VIP without the length of its network.
func (e Endpoint) Address() netip.Addr {
	if p, err := netip.ParsePrefix(e.VIP); err == nil {
		return p.Addr()
	}
	a, err := parseAddress(e.VIP)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// ServiceAddress is where IPVS has the API servers on workers whose own addresses are of that family.
func (e Endpoint) ServiceAddress(ipv6 bool) netip.Addr {
	if a, err := parseAddress(e.IPVSAddress); err == nil {
		return a
	}
	if ipv6 {
		return netip.MustParseAddr(ipvsAddress6)
	}
	return netip.MustParseAddr(ipvsAddress)
}

// Host is the name or address by which the API servers are found; empty where there is none for all.
func (e Endpoint) Host() string {
	if e.VIP != "" {
		return e.Address().String()
	}
	host, _ := e.external()
	return host
}

// HostPort is Host with its port, which is that of the API servers unless another was given. Empty like Host.
func (e Endpoint) HostPort(apiPort int) string {
	host, port := e.Host(), apiPort
	if host == "" {
		return ""
	}
	if _, p := e.external(); p != 0 {
		port = p
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// external splits External; 0: it has no port.
func (e Endpoint) external() (host string, port int) {
	host, text, err := net.SplitHostPort(e.External)
	if err != nil {
		return strings.Trim(e.External, "[]"), 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// String is what the hosts keep of it, which ParseEndpoint reads.
func (e Endpoint) String() string {
	switch {
	case e.VIP != "":
		return strings.TrimSpace("vip " + e.Spelled().VIP + " " + e.Interface)
	case e.External != "":
		return "external " + e.External
	case e.IPVS:
		if a, err := parseAddress(e.IPVSAddress); err == nil && a != (Endpoint{}).ServiceAddress(a.Is6()) {
			return "ipvs " + a.String()
		}
		return "ipvs"
	}
	return "balancer"
}

// Spelled is e with its addresses as everyone spells them: the same address in other words is no other endpoint. What is no address stays.
func (e Endpoint) Spelled() Endpoint {
	if p, err := netip.ParsePrefix(e.VIP); err == nil {
		e.VIP = p.String()
	} else if a := e.Address(); a.IsValid() {
		e.VIP = a.String()
	}
	if a, err := parseAddress(e.IPVSAddress); err == nil {
		e.IPVSAddress = a.String()
	}
	return e
}

// ParseEndpoint reads what String gives.
func ParseEndpoint(text string) (Endpoint, error) {
	var e Endpoint
	kind, rest, _ := strings.Cut(text, " ")
	switch kind {
	case "vip":
		e.VIP, e.Interface, _ = strings.Cut(rest, " ")
	case "external":
		e.External = rest
	case "ipvs":
		e.IPVS, e.IPVSAddress = true, rest
	case "balancer":
		e.Balancer = true
	}
	if !e.Said() || len(e.mistakes()) > 0 {
		return Endpoint{}, fmt.Errorf("reading the endpoint %q: it is none", text)
	}
	return e, nil
}

func (e Endpoint) mistakes() []mistake {
	var list []mistake
	add := func(field, format string, args ...any) {
		list = append(list, mistake{field, fmt.Sprintf(format, args...)})
	}
	ways := 0
	for _, said := range []bool{e.Balancer, e.IPVS, e.VIP != "", e.External != ""} {
		if said {
			ways++
		}
	}
	if ways > 1 {
		add("", "the API servers have one endpoint: choose one of balancer, ipvs, vip and external")
	}
	if e.IPVSAddress != "" {
		switch a, err := parseAddress(e.IPVSAddress); {
		case !e.IPVS:
			add("ipvsAddress", "an address for IPVS is of no use without ipvs: true")
		case err != nil:
			add("ipvsAddress", "%q is not an IP address", e.IPVSAddress)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() || a.Zone() != "" || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			add("ipvsAddress", "%s cannot be a virtual address", a)
		}
	}
	if e.VIP != "" {
		switch a := e.Address(); {
		case !a.IsValid():
			add("vip", "%q is not an IP address, with the length of its network or without", e.VIP)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Zone() != "":
			add("vip", "%s cannot be the address of API servers", a)
		}
	}
	switch {
	case e.Interface == "":
	case e.VIP == "":
		add("interface", "an interface is of no use without a vip")
	case !linkRule.MatchString(e.Interface):
		add("interface", "%q is not the name of an interface", e.Interface)
	}
	if e.External != "" {
		host, port := e.external()
		_, notAddress := netip.ParseAddr(host)
		_, text, err := net.SplitHostPort(e.External)
		switch {
		case strings.Contains(e.External, "://"):
			add("external", "%q is an URL: write the host alone, with a port or without", e.External)
		case notAddress != nil && !domainRule.MatchString(host):
			add("external", "%q is neither a host name nor an IP address, with a port or without", e.External)
		case err == nil && (port < 1 || port > 65535):
			add("external", "%q is not a port", text)
		}
	}
	return list
}

func (s *source) endpoint(spec *node) Endpoint {
	n := spec.child("controlPlaneEndpoint")
	if n == nil || n.kind != mappingNode {
		return Endpoint{}
	}
	e := Endpoint{VIP: n.text("vip"), Interface: n.text("interface"), External: n.text("external")}
	if b := n.child("balancer"); b != nil {
		e.Balancer, _ = b.scalar.(bool)
	}
	if b := n.child("ipvs"); b != nil {
		e.IPVS, _ = b.scalar.(bool)
	}
	e.IPVSAddress = n.text("ipvsAddress")
	for _, m := range e.mistakes() {
		if m.field == "" {
			s.fail(n, "%s", m.what)
			continue
		}
		s.fail(n.at(m.field), "%s", m.what)
	}
	return e.Spelled()
}

// savedEndpoint is an Endpoint in a Clusterfile.
type savedEndpoint struct {
	Balancer    bool   `yaml:"balancer,omitempty"`
	IPVS        bool   `yaml:"ipvs,omitempty"`
	IPVSAddress string `yaml:"ipvsAddress,omitempty"`
	VIP         string `yaml:"vip,omitempty"`
	Interface   string `yaml:"interface,omitempty"`
	External    string `yaml:"external,omitempty"`
}

func (e Endpoint) saved() *savedEndpoint {
	if !e.Said() {
		return nil
	}
	s := savedEndpoint(e)
	return &s
}
