// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"log/slog"
	"net/netip"
)

// ClientsOf and Cut are halves of one thing, which no kernel here has both of.
func ClientsOf(service netip.AddrPort, servers map[netip.AddrPort]bool) ([]netip.AddrPort, error) {
	return clientsOf(service, servers)
}

func Cut(service netip.AddrPort, connected []netip.AddrPort, log *slog.Logger) {
	cut(service, connected, log)
}
