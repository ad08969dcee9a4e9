// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"net/netip"
	"strings"
)

// maxRange bounds a range of addresses: more hosts than a cluster can have is a slip of the pen.
const maxRange = 5000

// ParseAddresses reads IP addresses separated by commas, and ranges of them:
// "10.0.0.2,10.0.0.5-10.0.0.9". The order is kept; empty parts are passed
// over. The error is an *AddressError.
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
	first, last, isRange := strings.Cut(part, "-")
	from, err := netip.ParseAddr(strings.TrimSpace(first))
	if err != nil {
		return nil, &AddressError{part, "is not an IP address"}
	}
	from = from.Unmap()
	if !isRange {
		return []string{from.String()}, nil
	}
	to, err := netip.ParseAddr(strings.TrimSpace(last))
	if err != nil {
		return nil, &AddressError{part, "does not end in an IP address"}
	}
	to = to.Unmap()
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
		addresses = append(addresses, a.String())
		if a == to {
			return addresses, nil
		}
	}
}
