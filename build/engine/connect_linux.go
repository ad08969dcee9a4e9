// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"golang.org/x/sys/unix"
)

// connect gives a client whose connections never leave this process. The session (build context, exported blobs) has a
// socket pair of its own: as a stream inside the control connection it would cost half as much CPU time again.
func (e *Engine) connect(ctx context.Context, sessions *session.Manager) (*client.Client, error) {
	return client.New(ctx, "passthrough:///embedded",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.pipe.dial(ctx)
		}),
		client.WithSessionDialer(func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			here, there, err := socketPair()
			if err != nil {
				return nil, err
			}
			// HandleConn closes its end; it must outlive the call that dials, but not the session: BuildKit would go on
			// asking a peer that has left how it is, and complain.
			alive, cancel := context.WithCancel(context.WithoutCancel(ctx))
			forget := e.worker.local.ours(meta)
			go func() {
				defer forget()
				_ = sessions.HandleConn(alive, there, meta)
			}()
			return &sessionConn{Conn: here, ended: cancel}, nil
		}))
}

// sessionConn is the client's end of a session, which ends when it is closed.
type sessionConn struct {
	net.Conn
	ended context.CancelFunc
}

func (c *sessionConn) Close() error {
	c.ended()
	return c.Conn.Close()
}

func socketPair() (net.Conn, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the build engine: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "session")
		conns[i], err = net.FileConn(f) // a copy of the descriptor
		_ = f.Close()
		if err != nil {
			if i == 0 {
				_ = unix.Close(fds[1])
			} else {
				_ = conns[0].Close()
			}
			return nil, nil, fmt.Errorf("connecting to the build engine: %w", err)
		}
	}
	return conns[0], conns[1], nil
}

// pipeListener accepts the socket pairs that dial makes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there, err := socketPair()
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = here.Close()
	_ = there.Close()
	return nil, err
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "embedded", Net: "unix"} }
