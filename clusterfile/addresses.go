// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxRange bounds a range of addresses: more hosts than a cluster can have is a slip of the pen.
const maxRange = 5000

// ParseAddresses reads IP addresses and host names separated by commas, and ranges of addresses:
// "10.0.0.2,10.0.0.5-10.0.0.9,db-1.example.com". IPv6 addresses may stand in brackets. The order is kept; empty parts are passed
// over. Names stay names: File.ResolveHosts finds their addresses. The error is an *AddressError.
func ParseAddresses(list string) ([]string, error) {
	var addresses []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		expanded, err := parseRange(part)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, expanded...)
	}
	return addresses, nil
}

func parseRange(part string) ([]string, error) {
	if name := strings.ToLower(part); isHostName(name) {
		return []string{name}, nil
	}
	first, last, isRange := strings.Cut(part, "-")
	from, err := parseAddress(first)
	if err != nil {
		if hasPort(part) {
			return nil, &AddressError{part, "names a port: --port, or ssh.port of the hosts in a Clusterfile, is where sshd listens"}
		}
		return nil, &AddressError{part, "is neither an IP address nor a host name"}
	}
	if !isRange {
		last = first
	}
	to, err := parseAddress(last)
	if err != nil {
		return nil, &AddressError{part, "does not end in an IP address"}
	}
	switch {
	case from.BitLen() != to.BitLen():
		return nil, &AddressError{part, "mixes IPv4 and IPv6"}
	case to.Less(from):
		return nil, &AddressError{part, "ends before it begins"}
	}
	var addresses []string
	for a := from; ; a = a.Next() {
		if len(addresses) == maxRange {
			return nil, &AddressError{part, "holds more than 5000 addresses"}
		}
		if why := unfit(a); why != "" {
			return nil, &AddressError{part, why}
		}
		addresses = append(addresses, a.String())
		if a == to {
			return addresses, nil
		}
	}
}

// parseAddress reads an address as it stands in lists and in URLs.
func parseAddress(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			s = inner
		}
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err
}

// hasPort tells whether a text is a host with a port behind it, as in an URL.
func hasPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.Trim(port, "0123456789") != "" {
		return false
	}
	_, err = parseAddress(host)
	return err == nil || isHostName(strings.ToLower(host))
}

// unfit is why a node cannot be known by an address: other hosts do not reach it, or kubelets refuse it (--node-ip).
func unfit(a netip.Addr) string {
	switch {
	case a.Zone() != "" || a.IsLinkLocalUnicast():
		return "is an address of one link alone: nodes are known by one that every host reaches"
	case a.IsMulticast() || a.IsUnspecified():
		return "is no address of one host"
	}
	return ""
}

// isHostName: a domain name whose last part is no number, as a mistyped address has it.
func isHostName(s string) bool {
	if !domainRule.MatchString(s) {
		return false
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	first, _, _ := strings.Cut(s, "-")
	_, notAddress := netip.ParseAddr(first) // 10.0.0.1-x is a range that went wrong
	return strings.Trim(last, "0123456789-") != "" && notAddress != nil
}

// ResolveHosts puts addresses in the place of the host names among the hosts, and in what plugins say of them: nodes register with
// addresses, and a name may later lead to another machine. lookup gives the addresses of a name; hostAliases go before it. Of several,
// one that a host of the cluster has is taken (cluster: as the run before has kept it; nil: there is none); or the first of the
// family of the other hosts' addresses, or where there are none the first IPv4 one, or else the first. The error joins a *NameError for
// each name that has none by which nodes can be known.
func (f *File) ResolveHosts(lookup func(name string) ([]netip.Addr, error), cluster *File) error {
	r := resolver{lookup: lookup, file: f}
	var have []Host
	if cluster != nil {
		have = cluster.Hosts
	}
	for _, h := range have {
		if a, err := netip.ParseAddr(h.Address); err == nil {
			r.have = append(r.have, a)
		}
	}
	for _, h := range slices.Concat(f.Hosts, have) { // the first one decides
		if a, err := netip.ParseAddr(h.Address); err == nil {
			r.ipv6 = a.Is6()
			break
		}
	}
	known := map[string]string{}
	var errs []error
	f.Hosts = slices.Clone(f.Hosts)
	for i := range f.Hosts {
		h := &f.Hosts[i]
		if h.Local() {
			continue
		}
		if _, err := netip.ParseAddr(h.Address); err == nil {
			continue
		}
		address, err := r.address(h.Address)
		if err != nil {
			errs = append(errs, &NameError{Name: h.Address, Err: err})
			continue
		}
		known[h.Address] = address.String()
		h.Address = address.String()
	}
	f.Plugins = slices.Clone(f.Plugins)
	for i := range f.Plugins {
		said := maps.Clone(f.Plugins[i].PerHost)
		for name, address := range known {
			if text, there := said[name]; there {
				delete(said, name)
				said[address] = text
			}
		}
		f.Plugins[i].PerHost = said
	}
	return errors.Join(errs...)
}

// resolver finds the addresses of host names.
type resolver struct {
	lookup func(string) ([]netip.Addr, error)
	file   *File
	have   []netip.Addr // of the hosts that the cluster has
	ipv6   bool         // is preferred
}

func (r resolver) address(name string) (netip.Addr, error) {
	all, err := r.file.AddressesOf(name, r.lookup)
	if err != nil {
		return netip.Addr{}, err
	}
	fit := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return unfit(a) != "" })
	for _, good := range []func(netip.Addr) bool{
		func(a netip.Addr) bool { return slices.Contains(r.have, a) },
		func(a netip.Addr) bool { return a.Is6() == r.ipv6 },
		func(netip.Addr) bool { return true },
	} {
		if i := slices.IndexFunc(fit, good); i >= 0 {
			return fit[i], nil
		}
	}
	if len(all) == 0 {
		return netip.Addr{}, errors.New("it has no address")
	}
	return netip.Addr{}, fmt.Errorf("its address %s %s", all[0], unfit(all[0]))
}

// AddressesOf are the addresses of a host name: that of hostAliases, or those that lookup gives; those of IPv4 as such.
func (f *File) AddressesOf(name string, lookup func(string) ([]netip.Addr, error)) ([]netip.Addr, error) {
	for _, a := range f.Aliases {
		if slices.ContainsFunc(a.Hostnames, func(h string) bool { return strings.EqualFold(h, name) }) {
			ip, err := netip.ParseAddr(a.IP)
			return []netip.Addr{ip.Unmap()}, err
		}
	}
	found, err := lookup(name)
	all := make([]netip.Addr, len(found))
	for i, a := range found {
		all[i] = a.Unmap()
	}
	return all, err
}

// NameError is a host name of which this machine finds no address.
type NameError struct {
	Name string
	Err  error
}

func (e *NameError) Error() string {
	return fmt.Sprintf("finding the address of the host %q: %v", e.Name, e.Err)
}

func (e *NameError) Unwrap() error { return e.Err }

// Hint says where names may stand.
func (e *NameError) Hint() string {
	return "name hosts by addresses, or by names that this machine's DNS, its /etc/hosts or hostAliases of the Clusterfile know"
}
