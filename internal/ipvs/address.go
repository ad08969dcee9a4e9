// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes, as those of routing daemons are marked (rtnetlink(7), rtm_protocol). No daemon of iproute2's list has it.
const routeProtocol = 83

// setRoute makes the virtual address one of this host by a route of the local table, on the loopback interface. No interface has the address,
// so that nothing takes it for one of the host's own. What is sent to it comes from the address by which the host reaches the servers: from
// the virtual one no answer would find back.
func setRoute(address netip.Addr, servers map[netip.AddrPort]int) error {
	source, err := sourceFor(servers)
	if err != nil {
		return err
	}
	list, err := routes(address)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Src.Equal(source) {
			return nil
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback interface: %w", err)
	}
	if err := dropRoute(address); err != nil {
		return err
	}
	r := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: whole(address), Src: source, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Scope: netlink.SCOPE_HOST, Protocol: routeProtocol,
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("setting the virtual address %s: %w", address, err)
	}
	return nil
}

// sourceFor is the address that this host has for the servers; of those that it reaches by different ones the lowest decides.
func sourceFor(servers map[netip.AddrPort]int) (net.IP, error) {
	var first netip.Addr
	for server := range servers {
		if !first.IsValid() || server.Addr().Less(first) {
			first = server.Addr()
		}
	}
	if !first.IsValid() {
		return nil, errors.New("setting the virtual address: there is no server")
	}
	list, err := netlink.RouteGet(net.IP(first.AsSlice()))
	if err != nil {
		return nil, fmt.Errorf("asking for the way to %s: %w", first, err)
	}
	for _, r := range list {
		if r.Src != nil {
			return r.Src, nil
		}
	}
	return nil, fmt.Errorf("asking for the way to %s: no address leads there", first)
}

// dropRoute takes the virtual address away.
func dropRoute(address netip.Addr) error {
	list, err := routes(address)
	if err != nil {
		return err
	}
	for _, r := range list {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the virtual address %s: %w", address, err)
		}
	}
	return nil
}

// routes are ours to the address.
func routes(address netip.Addr) ([]netlink.Route, error) {
	filter := &netlink.Route{Dst: whole(address), Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol}
	list, err := netlink.RouteListFiltered(int(family(address)), filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("reading the local routes: %w", err)
	}
	return list, nil
}

func whole(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
