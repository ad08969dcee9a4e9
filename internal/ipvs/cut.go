// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxConnections bounds what is read of the kernel's list of connections: a line has some 100 bytes.
const maxConnections = 64 << 20

// cut ends the clients' connections at once on this side, as far as the kernel can do that (sock_diag(7), with CONFIG_INET_DIAG_DESTROY) and
// the library, which does it for IPv4. Others end with the next that their client sends.
func cut(service netip.AddrPort, connected []netip.AddrPort, log *slog.Logger) {
	n := 0
	for _, client := range connected {
		err := netlink.SocketDestroy(net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(service))
		switch {
		case err == nil:
			n++
		case errors.Is(err, netlink.ErrNotImplemented), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		default:
			log.Warn("cutting a connection", "client", client, "error", err)
		}
	}
	if n > 0 {
		log.Info("cut connections", "connections", n)
	}
}

// clientsOf are those that are connected to the servers through the service.
func clientsOf(service netip.AddrPort, servers map[netip.AddrPort]bool) ([]netip.AddrPort, error) {
	f, err := os.Open("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return clients(f, service, servers), nil
}

// clients that the kernel's list has with the service and one of the servers. Its fields: protocol, client, service and server each with
// address and port in hexadecimal, state.
func clients(list io.Reader, service netip.AddrPort, servers map[netip.AddrPort]bool) []netip.AddrPort {
	var found []netip.AddrPort
	lines := bufio.NewScanner(io.LimitReader(list, maxConnections))
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 7 || w[0] != "TCP" {
			continue
		}
		client, ok1 := hexAddrPort(w[1], w[2])
		at, ok2 := hexAddrPort(w[3], w[4])
		server, ok3 := hexAddrPort(w[5], w[6])
		if ok1 && ok2 && ok3 && at == service && servers[server] {
			found = append(found, client)
		}
	}
	return found
}

// hexAddrPort reads 0A000001 or fd00:…:0001, and 192B.
func hexAddrPort(address, port string) (netip.AddrPort, bool) {
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var ip netip.Addr
	if strings.Contains(address, ":") {
		ip, err = netip.ParseAddr(strings.Trim(address, "[]"))
	} else {
		var raw []byte
		raw, err = hex.DecodeString(address)
		ip, _ = netip.AddrFromSlice(raw)
	}
	return netip.AddrPortFrom(ip, uint16(n)), err == nil && ip.IsValid()
}
