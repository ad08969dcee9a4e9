// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSH runs commands on a host over one connection, several at once. A connection that broke is made anew by
// the next Run, never in the middle of one. Close ends it.
type SSH struct {
	cfg   Config
	slots chan struct{} // one for each command that runs
	turn  chan struct{} // held while the connection is looked at or made, and denied is read or written
	// denied is how often in a row the login was refused, refusal the last time's error.
	denied  int
	refusal error
	// running is how many sessions are open.
	running atomic.Int64

	mu     sync.Mutex // guards what follows
	conn   *connection
	become become
	closed bool
}

// maxDenied is how often a login that has worked before is tried in vain: a host that boots may refuse it for a while, and one that counts
// wrong passwords would lock the account.
const maxDenied = 2

// Dial connects to a host, checks its key and logs in; with Sudo it also tries sudo, so that a run
// does not find out in the middle. Errors: *UnreachableError, *HostKeyError,
// *ChangedHostKeyError, *AuthError, *SudoError. The caller closes it.
func Dial(ctx context.Context, cfg Config) (*SSH, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("connecting to %q: %w", cfg.Address, err)
	}
	cfg = cfg.withDefaults()
	s := &SSH{cfg: cfg, slots: make(chan struct{}, cfg.Sessions), turn: make(chan struct{}, 1)}
	if _, err := s.connection(ctx); err != nil {
		return nil, err
	}
	if cfg.Sudo && cfg.User != "root" {
		if err := s.trySudo(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// String is the address, with the port where it is not 22.
func (s *SSH) String() string { return s.cfg.name() }

// Close ends the connection and with it every command that runs.
func (s *SSH) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil && s.conn.alive() {
		s.conn.fail(net.ErrClosed)
	}
	return nil
}

// DialContext opens a connection from the host to an address, as ssh -W does: for a host behind this
// one, or for a service that only the host can reach.
func (s *SSH) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.client.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%s: connecting to %s from there: %w", s, address, err)
	}
	return conn, nil
}

// connection is the one in use, or a new one where that has broken.
func (s *SSH) connection(ctx context.Context) (*connection, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: connecting: %w", s, context.Cause(ctx))
	}
	s.mu.Lock()
	conn, closed := s.conn, s.closed
	s.mu.Unlock()
	if closed {
		return nil, &UnreachableError{s.String(), net.ErrClosed}
	}
	if conn != nil && conn.alive() {
		return conn, nil
	}
	if conn != nil {
		s.cfg.Logger.Warn("connecting again", "host", s.String(), "lost", conn.reason())
	}
	if s.denied == maxDenied {
		return nil, s.refusal
	}
	conn, err := connect(ctx, s.cfg)
	if _, denied := errors.AsType[*AuthError](err); denied {
		s.denied, s.refusal = s.denied+1, err
	}
	if err != nil {
		return nil, err
	}
	s.denied = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.fail(net.ErrClosed)
		return nil, &UnreachableError{s.String(), net.ErrClosed}
	}
	s.conn = conn
	return conn, nil
}

// Run runs c on the host. When ctx ends, the command's process group is sent TERM, three seconds later
// KILL, and Run returns the cause of ctx.
func (s *SSH) Run(ctx context.Context, c Command) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: running %s: %w", s, c, context.Cause(ctx))
	}
	defer func() { <-s.slots }()
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	err = s.run(ctx, conn, c, s.how())
	s.cfg.Logger.Debug("ran", "host", s.String(), "command", c.String(), "took", time.Since(start), "error", err)
	return err
}

func (s *SSH) how() become {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.become
}

func (s *SSH) run(ctx context.Context, conn *connection, c Command, b become) error {
	session, conn, done, err := s.open(ctx, conn, c)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	token := newToken()
	out, stdout, stderr := newOutput(c, token, cancel)
	defer out.close()
	session.Stdout, session.Stderr = stdout, stderr
	stdin, err := session.StdinPipe()
	if err == nil {
		err = session.Start("exec " + quoteAll(shellArgv(b, prelude, "sealer", token)))
	}
	if err != nil {
		_ = session.Close() // it never started
		return s.lost(ctx, conn, c, err)
	}
	go feed(stdin, preamble(c, b, s.cfg.SudoPassword, token), c.Stdin, cancel)

	var failure error // read once ended is closed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failure = session.Wait()
	}()
	select {
	case <-ended:
		err = failure
	case <-ctx.Done():
		s.stop(context.WithoutCancel(ctx), conn, session, b, out, ended)
		return fmt.Errorf("%s: running %s: %w", s, c, context.Cause(ctx))
	}
	var exit *ssh.ExitError
	switch {
	case err == nil && ctx.Err() != nil: // its input or output failed in the last moment
		return fmt.Errorf("%s: running %s: %w", s, c, context.Cause(ctx))
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{s.String(), c.String(), exit.ExitStatus(), exit.Signal(), out.lastOutput()}
	default:
		return s.lost(ctx, conn, c, err)
	}
}

// A host that allows fewer sessions than we like says so only by refusing: it is asked again every askAgain, since a session that has
// ended is cleared by the host a moment later, for at most clearing. Where another of our commands holds a session, for whose end the
// new one may be what it waits, a connection of its own is made after otherWay.
const (
	askAgain = 50 * time.Millisecond
	otherWay = time.Second
	clearing = 10 * time.Second
)

// open opens a session, on conn or on a connection of its own; done is to be called at its end.
func (s *SSH) open(ctx context.Context, conn *connection, c Command) (_ *ssh.Session, _ *connection, done func(), err error) {
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for began := time.Now(); ; {
		session, err := conn.client.NewSession()
		if err == nil {
			s.running.Add(1)
			return session, conn, func() { s.running.Add(-1) }, nil
		}
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || time.Since(began) > clearing {
			return nil, nil, nil, s.lost(ctx, conn, c, err)
		}
		if s.running.Load() > 0 && time.Since(began) > otherWay {
			if session, own, err := s.apart(ctx); err == nil {
				go func() { // Close ends this one, too
					select {
					case <-conn.gone:
						own.fail(conn.reason())
					case <-own.gone:
					}
				}()
				return session, own, func() { own.fail(net.ErrClosed) }, nil
			}
		}
		select {
		case <-tick.C:
		case <-conn.gone:
		case <-ctx.Done():
			return nil, nil, nil, fmt.Errorf("%s: running %s: %w", s, c, context.Cause(ctx))
		}
	}
}

// apart is a session on a connection of its own.
func (s *SSH) apart(ctx context.Context) (*ssh.Session, *connection, error) {
	own, err := connect(ctx, s.cfg)
	if err != nil {
		return nil, nil, err
	}
	session, err := own.client.NewSession()
	if err != nil {
		own.fail(err)
		return nil, nil, err
	}
	s.cfg.Logger.Debug("the host allows fewer sessions: another connection", "host", s.String())
	return session, own, nil
}

// feed writes the preamble and the command's input. An input that cannot be read ends the command rather than look like its end.
func feed(w io.WriteCloser, preamble []byte, in io.Reader, fail func(error)) {
	_, err := w.Write(preamble)
	if err == nil && in != nil {
		r := &watchedReader{r: in}
		_, err = io.Copy(w, r)
		if r.err != nil {
			fail(fmt.Errorf("reading its input: %w", r.err))
			return
		}
	}
	if err == nil {
		_ = w.Close() // a program need not read all, or any, of its input: so it is no error that it does not take it
	}
}

// watchedReader tells errors of the reader from those of the writer in io.Copy.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// stop ends a command as well as it can: by a second session, since sshd passes no signal on to what sudo started.
func (s *SSH) stop(ctx context.Context, conn *connection, session *ssh.Session, b become, out *output, ended <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, (stopGraceSeconds+2)*time.Second)
	defer cancel()
	go func() {
		if pid := out.processID(ctx); pid > 1 {
			killer, err := conn.client.NewSession()
			if err != nil {
				return
			}
			killer.Stdin = strings.NewReader(sudoInput(b, s.cfg.SudoPassword))
			_ = killer.Run("exec " + quoteAll(shellArgv(b, stopScript(), "sealer", fmt.Sprint(pid))))
		}
	}()
	select {
	case <-ended:
	case <-conn.gone:
	case <-ctx.Done():
	}
	_ = session.Close() // that it is closed already is what we want
}

func sudoInput(b become, password Secret) string {
	if b != bySudoPassword {
		return ""
	}
	return password.Reveal() + "\n"
}

func (s *SSH) lost(ctx context.Context, conn *connection, c Command, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: running %s: %w", s, c, context.Cause(ctx))
	}
	select { // the reason is known a moment after the session's end
	case <-conn.gone:
		err = conn.reason()
	case <-time.After(100 * time.Millisecond):
	}
	return &LostError{s.String(), c.String(), err}
}

// trySudo finds out how sudo lets us in. A wrong password is tried once: standard input ends after it.
func (s *SSH) trySudo(ctx context.Context) error {
	b, err := trySudo(ctx, s.cfg.SudoPassword, func(ctx context.Context, argv []string, stdin string) (string, error) {
		conn, err := s.connection(ctx)
		if err != nil {
			return "", err
		}
		session, _, done, err := s.open(ctx, conn, Command{Argv: []string{"sudo"}})
		if err != nil {
			return "", err
		}
		defer done()
		defer context.AfterFunc(ctx, func() { _ = session.Close() })()
		var said bytes.Buffer
		session.Stdin, session.Stderr = strings.NewReader(stdin), &said
		err = session.Run("exec " + quoteAll(argv))
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return said.String(), err
	})
	if err != nil {
		err.Host, err.User = s.String(), s.cfg.User
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.become = b
	return nil
}

// trySudo asks sudo for nothing first, then gives the password.
func trySudo(ctx context.Context, password Secret, run func(ctx context.Context, argv []string, stdin string) (string, error)) (become, *SudoError) {
	said, err := run(ctx, shellArgv(bySudo, "exit 0"), "")
	if err == nil {
		return bySudo, nil
	}
	if password == "" {
		return 0, &SudoError{Output: said, Err: err}
	}
	if said, err = run(ctx, shellArgv(bySudoPassword, "exit 0"), password.Reveal()+"\n"); err != nil {
		return 0, &SudoError{Output: said, Err: err}
	}
	return bySudoPassword, nil
}
