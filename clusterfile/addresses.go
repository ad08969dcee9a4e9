// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"errors"
	"fmt"
	"maps"
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
// addresses, and a name may later lead to another machine. lookup gives the addresses of a name; of several, the first of the
// family of the other hosts' addresses is taken, or where there are none the first IPv4 one, or else the first. hostAliases go before
// it. The error joins a *NameError for each name that has none.
func (f *File) ResolveHosts(lookup func(name string) ([]netip.Addr, error)) error {
	known := map[string]string{}
	var errs []error
	ipv6 := false
	for _, h := range slices.Backward(f.Hosts) { // the first one decides
		if a, err := netip.ParseAddr(h.Address); err == nil {
			ipv6 = a.Is6()
		}
	}
	f.Hosts = slices.Clone(f.Hosts)
	for i := range f.Hosts {
		h := &f.Hosts[i]
		if h.Local() {
			continue
		}
		if _, err := netip.ParseAddr(h.Address); err == nil {
			continue
		}
		address, err := f.resolve(h.Address, ipv6, lookup)
		if err != nil {
			errs = append(errs, &NameError{Name: h.Address, Err: err})
			continue
		}
		known[h.Address] = address
		h.Address = address
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

func (f *File) resolve(name string, ipv6 bool, lookup func(string) ([]netip.Addr, error)) (string, error) {
	for _, a := range f.Aliases {
		if slices.Contains(a.Hostnames, name) {
			return a.IP, nil
		}
	}
	all, err := lookup(name)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", errors.New("it has no address")
	}
	if i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Unmap().Is4() != ipv6 && unfit(a.Unmap()) == "" }); i >= 0 {
		return all[i].Unmap().String(), nil
	}
	return all[0].String(), nil
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
