// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/test/components/programs/podnet/plan"
)

const (
	// configName sorts before what other networks would write: the container runtime takes the first file.
	configName = "10-podnet.conflist"
	// routeProtocol marks our routes, so that those of nodes that have left can be told from the host's own.
	routeProtocol = 177
	tableName     = "podnet"
)

// writeConfig puts the CNI configuration into dir, unless it is there already. The container runtime watches the
// folder, so that the file has to appear whole.
func writeConfig(dir string, config []byte) (written bool, err error) {
	target := filepath.Join(dir, configName)
	current, err := os.ReadFile(target)
	if err == nil && bytes.Equal(current, config) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the CNI configuration: %w", err)
	}
	f, err := os.CreateTemp(dir, ".podnet-*") // no name that a container runtime would read
	if err != nil {
		return false, fmt.Errorf("writing the CNI configuration: %w", err)
	}
	_, err = f.Write(config)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("writing the CNI configuration: %w", err), os.Remove(f.Name()))
	}
	return true, nil
}

// setRoutes adds the routes and removes those it added before that are no longer wanted.
func setRoutes(routes []plan.Route) error {
	var errs []error
	for _, r := range routes {
		if err := netlink.RouteReplace(netlinkRoute(r)); err != nil {
			errs = append(errs, fmt.Errorf("routing %s via %s: %w", r.To, r.Via, err))
		}
	}
	present, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("listing routes: %w", err))...)
	}
	for _, p := range present {
		wanted := slices.ContainsFunc(routes, func(r plan.Route) bool {
			w := netlinkRoute(r)
			return p.Dst != nil && p.Dst.String() == w.Dst.String() && p.Gw.Equal(w.Gw)
		})
		if wanted {
			continue
		}
		if err := netlink.RouteDel(&p); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("removing the route to %s: %w", p.Dst, err))
		}
	}
	return errors.Join(errs...)
}

func netlinkRoute(r plan.Route) *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: r.To.Addr().AsSlice(), Mask: net.CIDRMask(r.To.Bits(), r.To.Addr().BitLen())},
		Gw:       r.Via.AsSlice(),
		Protocol: routeProtocol,
	}
}

// setMasquerade hides the node's pods behind the node's address from all but other pods: nobody else knows a way
// back to them. The table is replaced as a whole, in one transaction.
func setMasquerade(network plan.Network) error {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		own, all := ofFamily(family, network.Own), ofFamily(family, network.All)
		if len(own) == 0 {
			continue
		}
		if err := replaceTable(family, own, all); err != nil {
			return fmt.Errorf("masquerading pods of %s: %w", own, err)
		}
	}
	return nil
}

func ofFamily(family nftables.TableFamily, networks []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(networks), func(p netip.Prefix) bool {
		return p.Addr().Is4() != (family == nftables.TableFamilyIPv4)
	})
}

func replaceTable(family nftables.TableFamily, own, all []netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: family, Name: tableName}
	conn.AddTable(table) // or else there may be none to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name:     "postrouting",
		Table:    table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	})
	for _, network := range all {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(
			matchAddress(network, destination), &expr.Verdict{Kind: expr.VerdictReturn})})
	}
	for _, network := range own {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(
			matchAddress(network, source), &expr.Masq{})})
	}
	return conn.Flush()
}

// side is one of the two addresses in a packet's header.
type side int

const (
	source side = iota
	destination
)

// matchAddress matches packets whose source or destination is in the network.
func matchAddress(network netip.Prefix, s side) []expr.Any {
	size := uint32(network.Addr().BitLen() / 8)
	offset := uint32(12) // of the source address in an IPv4 header
	if network.Addr().Is6() {
		offset = 8
	}
	if s == destination {
		offset += size
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{
			SourceRegister: 1,
			DestRegister:   1,
			Len:            size,
			Mask:           net.CIDRMask(network.Bits(), network.Addr().BitLen()),
			Xor:            make([]byte, size),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: network.Addr().AsSlice()},
	}
}
