//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func writeKey(t *testing.T, file string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
}

// link is a way to a host that may be slow, and may be cut.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	open  []net.Conn
	rate  int   // bytes a second towards the host; 0: as fast as may be
	left  int64 // bytes towards the host until it is cut once; 0: it is not
	times int
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{listener: listener, target: target}
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) limit(bytesPerSecond int) { l.mu.Lock(); defer l.mu.Unlock(); l.rate = bytesPerSecond }
func (l *link) cutAfter(n int64)         { l.mu.Lock(); defer l.mu.Unlock(); l.left = n }
func (l *link) cuts() int                { l.mu.Lock(); defer l.mu.Unlock(); return l.times }

// cut ends all connections. New ones may be made.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open, l.times = nil, l.times+1
}

func (l *link) serve(from net.Conn) {
	to, err := net.Dial("tcp", l.target)
	if err != nil {
		_ = from.Close()
		return
	}
	l.mu.Lock()
	l.open = append(l.open, from, to)
	l.mu.Unlock()
	go func() { _, _ = io.Copy(from, to) }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			return
		}
		l.passed(n)
	}
}

// passed waits as long as n bytes take, and cuts the link where it is time.
func (l *link) passed(n int) {
	l.mu.Lock()
	rate, now := l.rate, false
	if l.left > 0 {
		l.left -= int64(n)
		now = l.left <= 0
		l.left = max(l.left, 0)
	}
	l.mu.Unlock()
	if now {
		l.cut()
	}
	if rate > 0 {
		<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
	}
}
