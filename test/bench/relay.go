// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// relay makes SSH to a network late, in both directions, without any program knowing of it: nft leads connections to port 22 there
// through this process. It keeps what is on its way in memory, as a long line does. (netem, which does it in the kernel, is not in every one.)
type relay struct {
	delay time.Duration // each way
	out   atomic.Int64  // bytes to the network
	l     net.Listener
	table string
}

// relayMark tells the relay's own connections from those that it takes.
const relayMark = 0x5ea1

// originalDst is SO_ORIGINAL_DST of linux/netfilter_ipv4.h.
const originalDst = 80

func startRelay(ctx context.Context, network netip.Prefix, delay time.Duration) (*relay, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	r := &relay{delay: delay, l: l, table: "sealer_bench"}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	rules := fmt.Sprintf("table ip %s { chain out { type nat hook output priority -100; ip daddr %s tcp dport 22 meta mark != %d redirect to :%s; }; }",
		r.table, network, relayMark, port)
	if err := nft(ctx, rules); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go r.accept(ctx)
	return r, nil
}

func nft(ctx context.Context, rules string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running nft: %w: %s", err, out)
	}
	return nil
}

func (r *relay) close(ctx context.Context) error {
	return errors.Join(nft(context.WithoutCancel(ctx), "delete table ip "+r.table), r.l.Close())
}

func (r *relay) accept(ctx context.Context) {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		go r.pass(ctx, c.(*net.TCPConn))
	}
}

func (r *relay) pass(ctx context.Context, c *net.TCPConn) {
	defer func() { _ = c.Close() }()
	to, err := wanted(c)
	if err != nil {
		return
	}
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, relayMark) })
		return errors.Join(err, set)
	}}
	there, err := d.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return
	}
	defer func() { _ = there.Close() }()
	back := make(chan struct{})
	go func() {
		defer close(back)
		r.carry(there, c, nil)
		_ = c.CloseWrite()
	}()
	r.carry(c, there, &r.out)
	_ = there.(*net.TCPConn).CloseWrite()
	<-back
}

// wanted is where a connection was to go.
func wanted(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var addr *syscall.IPv6Mreq // 16 bytes: as long as a sockaddr_in
	var got error
	if err := raw.Control(func(fd uintptr) { addr, got = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, originalDst) }); err != nil || got != nil {
		return netip.AddrPort{}, errors.Join(err, got)
	}
	b := addr.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// carry passes bytes on when they are old enough.
func (r *relay) carry(from io.Reader, to io.Writer, count *atomic.Int64) {
	type chunk struct {
		due  time.Time
		data []byte
	}
	line := make(chan chunk, 1024) // of 64 KiB: more than fits on a line of 1 Gbit/s
	gone := make(chan struct{})
	go func() {
		defer close(line)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case line <- chunk{time.Now().Add(r.delay), buf[:n]}:
				case <-gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer close(gone)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c := range line {
		timer.Reset(time.Until(c.due))
		<-timer.C
		if _, err := to.Write(c.data); err != nil {
			return
		}
		if count != nil {
			count.Add(int64(len(c.data)))
		}
	}
}

// parse reads a number that a program printed.
func parse(text []byte) (int64, error) {
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
