// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"

	kernel "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// Held tells whether the kernel hands on what is connected to the virtual address.
func Held(service netip.AddrPort) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	found, err := find(h, service)
	if err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("there is no IPVS service %s", service)
	}
	list, err := h.GetDestinations(found)
	if err != nil {
		return fmt.Errorf("reading the IPVS rules: %w", err)
	}
	if len(list) == 0 {
		return fmt.Errorf("the IPVS service %s has no server", service)
	}
	return nil
}

// Remove takes the service and the virtual address away. What is not there is no error, nor is a kernel without IPVS.
func Remove(service netip.AddrPort) error {
	err := dropRoute(service.Addr())
	if !loaded() {
		return err
	}
	h, openErr := open()
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer h.Close()
	found, findErr := find(h, service)
	if findErr == nil && found != nil {
		findErr = h.DelService(found)
	}
	if findErr != nil {
		err = errors.Join(err, fmt.Errorf("removing the IPVS service %s: %w", service, findErr))
	}
	return err
}

// apply makes the rules those of the weights. Servers that have gone lose their connections.
func apply(service netip.AddrPort, weights map[netip.AddrPort]int, log *slog.Logger) error {
	if err := setRoute(service.Addr(), weights); err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	s, err := find(h, service)
	if err != nil {
		return err
	}
	if s == nil {
		s = newService(service)
		if err := h.NewService(s); err != nil {
			return fmt.Errorf("making the IPVS service %s: %w", service, err)
		}
	}
	list, err := h.GetDestinations(s)
	if err != nil {
		return fmt.Errorf("reading the IPVS rules: %w", err)
	}
	missing := maps.Clone(weights)
	var gone []*kernel.Destination
	for _, d := range list {
		server := serverOf(d)
		weight, stays := weights[server]
		delete(missing, server)
		switch {
		case !stays:
			gone = append(gone, d)
		case d.Weight != weight:
			d.Weight = weight
			if err := h.UpdateDestination(s, d); err != nil {
				return fmt.Errorf("changing %s in the IPVS rules: %w", server, err)
			}
		}
	}
	for server, weight := range missing {
		if err := h.NewDestination(s, destination(server, weight)); err != nil {
			return fmt.Errorf("adding %s to the IPVS rules: %w", server, err)
		}
	}
	return drop(h, s, service, gone, log)
}

// drop takes servers out of the rules.
func drop(h *kernel.Handle, s *kernel.Service, service netip.AddrPort, gone []*kernel.Destination, log *slog.Logger) error {
	if len(gone) == 0 {
		return nil
	}
	servers := map[netip.AddrPort]bool{}
	for _, d := range gone {
		servers[serverOf(d)] = true
	}
	connected, err := clientsOf(service, servers) // the kernel forgets them with the server
	if err != nil {
		log.Warn("finding the connections to cut", "error", err)
	}
	for _, d := range gone {
		if err := h.DelDestination(s, d); err != nil {
			return fmt.Errorf("taking %s out of the IPVS rules: %w", serverOf(d), err)
		}
	}
	cut(service, connected, log)
	return nil
}

func serverOf(d *kernel.Destination) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(d.Address)
	return netip.AddrPortFrom(ip.Unmap(), d.Port)
}

func open() (*kernel.Handle, error) {
	h, err := kernel.New("") // it loads the module
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for IPVS: %w", err)
	}
	if !loaded() {
		h.Close()
		return nil, &MissingError{}
	}
	return h, nil
}

// find the service in the kernel; nil: there is none.
func find(h *kernel.Handle, service netip.AddrPort) (*kernel.Service, error) {
	list, err := h.GetServices()
	if err != nil {
		return nil, fmt.Errorf("reading the IPVS rules: %w", err)
	}
	for _, s := range list {
		ip, ok := netip.AddrFromSlice(s.Address)
		if ok && s.FWMark == 0 && s.Protocol == unix.IPPROTO_TCP && netip.AddrPortFrom(ip.Unmap(), s.Port) == service {
			return s, nil
		}
	}
	return nil, nil
}

func newService(service netip.AddrPort) *kernel.Service {
	s := &kernel.Service{
		AddressFamily: family(service.Addr()), Protocol: unix.IPPROTO_TCP, Address: net.IP(service.Addr().AsSlice()), Port: service.Port(),
		SchedName: "rr", Netmask: 0xffffffff,
	}
	if service.Addr().Is6() {
		s.Netmask = 128 // there it is a length
	}
	return s
}

func destination(server netip.AddrPort, weight int) *kernel.Destination {
	return &kernel.Destination{
		AddressFamily: family(server.Addr()), Address: net.IP(server.Addr().AsSlice()), Port: server.Port(), Weight: weight,
		ConnectionFlags: kernel.ConnectionFlagMasq,
	}
}

func family(a netip.Addr) uint16 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
