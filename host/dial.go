// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// connection is one SSH connection; gone is closed when it is over, and then err says why.
type connection struct {
	client *ssh.Client
	gone   chan struct{}
	mu     sync.Mutex
	err    error
}

// fail ends the connection for a reason; the first one stays.
func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	_ = c.client.Close() // that it is closed already is no news
}

func (c *connection) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return io.ErrUnexpectedEOF
	}
	return c.err
}

func (c *connection) alive() bool {
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// connect dials and logs in: one connection per round of credentials until one is let in.
func connect(ctx context.Context, cfg Config) (*connection, error) {
	keys, err := newHostKeys(cfg)
	if err != nil {
		return nil, err
	}
	creds := gather(ctx, cfg)
	defer creds.close()
	rounds := creds.rounds()
	refused := &AuthError{Host: cfg.name(), User: cfg.User, Tried: creds.tried, Skipped: creds.skipped}
	if len(rounds) == 0 {
		refused.Err = errors.New("no key and no password")
		return nil, refused
	}
	for _, methods := range rounds {
		client, err := handshake(ctx, cfg, keys, methods)
		if auth, ok := errors.AsType[*AuthError](err); ok {
			refused.Err = auth.Err
			continue
		}
		if err != nil {
			return nil, err
		}
		c := &connection{client: client, gone: make(chan struct{})}
		go func() {
			err := client.Wait()
			c.fail(err)
			close(c.gone)
		}()
		go c.keepAlive(cfg.KeepAlive)
		return c, nil
	}
	return nil, refused
}

// handshake makes one connection and logs in by the given methods.
func handshake(ctx context.Context, cfg Config, keys *hostKeys, methods []ssh.AuthMethod) (*ssh.Client, error) {
	asked := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("no answer in %s", cfg.Timeout))
	defer cancel()
	conn, err := cfg.Dial(ctx, "tcp", cfg.hostPort())
	if err != nil && asked.Err() != nil {
		return nil, fmt.Errorf("%s: connecting: %w", cfg.name(), context.Cause(asked))
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, &UnreachableError{cfg.name(), err}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the handshake, which knows no ctx
	var hostKey ssh.PublicKey
	var hostKeyErr error
	c, chans, reqs, err := ssh.NewClientConn(conn, cfg.hostPort(), &ssh.ClientConfig{
		User:              cfg.User,
		Auth:              methods,
		HostKeyAlgorithms: keys.algorithms(),
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			hostKeyErr = keys.check(name, remote, key)
			if hostKeyErr == nil {
				hostKey = key
			}
			return hostKeyErr
		},
	})
	if !stop() && err == nil { // ctx ended in the last moment
		err = errors.Join(context.Cause(ctx), c.Close())
	}
	if err == nil {
		if err := keys.remember(ctx, hostKey); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return ssh.NewClient(c, chans, reqs), nil
	}
	_ = conn.Close() // the handshake failed; this can add nothing
	switch {
	case hostKeyErr != nil:
		return nil, hostKeyError(cfg, hostKeyErr)
	case asked.Err() != nil:
		return nil, fmt.Errorf("%s: connecting: %w", cfg.name(), context.Cause(asked))
	case ctx.Err() != nil:
		return nil, &UnreachableError{cfg.name(), context.Cause(ctx)}
	case hostKey == nil || broke(err):
		return nil, &UnreachableError{cfg.name(), fmt.Errorf("opening an SSH connection: %w", err)}
	default: // all that is left between the host key and a session is the login
		return nil, &AuthError{Host: cfg.name(), User: cfg.User, Err: err}
	}
}

func hostKeyError(cfg Config, err error) error {
	var unknown *HostKeyError
	var changed *ChangedHostKeyError
	if errors.As(err, &unknown) || errors.As(err, &changed) {
		return err
	}
	return fmt.Errorf("%s: checking the host key: %w", cfg.name(), err)
}

// broke tells a connection that was cut from a host that said no.
func broke(err error) bool {
	var netErr net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.As(err, &netErr)
}

// keepAlive asks the host for a sign of life and ends the connection after three silent turns. "keepalive@openssh.com"
// is what OpenSSH sends; a server that does not know it answers too (RFC 4254, 4).
func (c *connection) keepAlive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _, _ = c.client.SendRequest("keepalive@openssh.com", true, nil) // an error ends Wait too
		}()
		silent := time.NewTimer(3 * every)
		select {
		case <-answered:
		case <-c.gone:
		case <-silent.C:
			c.fail(fmt.Errorf("no sign of life for %s", 3*every))
		}
		silent.Stop()
	}
}
