// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Ports of checks: those that bindresvport(3) takes.
const (
	lowPort  = 600
	highPort = 1023
)

// apart dials from ports that no client of the virtual address has. What the kernel hands on keeps its client's port: a check from the same one
// would be the same connection to the server, and each of the two would end the other.
type apart struct{ next atomic.Uint32 }

func (a *apart) dial(ctx context.Context, network, address string) (net.Conn, error) {
	for tries := 0; ; tries++ {
		port := lowPort + int(a.next.Add(1))%(highPort-lowPort+1)
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}).DialContext(ctx, network, address)
		switch {
		case errors.Is(err, unix.EADDRINUSE) && tries < highPort-lowPort:
			continue
		case err != nil:
			return nil, err
		}
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0) // the port is free again at once
		}
		return conn, nil
	}
}
