// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/internal/swarm"
	"github.com/sealerio/sealer/runtime"
)

// sharingError is a host that takes part no more, though nothing of its own stands in the way: it may be tried again.
type sharingError struct{ err error }

func (e *sharingError) Error() string { return "taking part in the transfer: " + e.err.Error() }
func (e *sharingError) Unwrap() error { return e.err }

// session is one host that takes part: a command there that obeys and reports.
type session struct {
	s      *sharing
	h      *runtime.Host
	id     swarm.HostID
	name   string // in its certificate
	cancel context.CancelCauseFunc
	over   chan struct{}
	err    error // read once over is closed

	// What follows is guarded by s.mu.
	joined   bool // it has said what is there
	port     int  // 0: it serves nobody
	lent     int  // hosts that it gives the program to
	needs    []bool
	complete chan struct{}
	done     bool // complete is closed
	log      io.Writer
	counter  *progress.Counter
	flying   map[int]swarm.Assignment
	working  int
	heard    time.Time
	fatal    string

	queue struct {
		sync.Mutex
		list []queued
		wake chan struct{}
	}
}

// queued is an order on its way; empty: a sign of life.
type queued struct {
	get  *swarm.Assignment
	from *session
	end  bool
}

// session finds or starts that of a host; s.mu is held.
func (s *sharing) session(ctx context.Context, h *runtime.Host) (*session, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if sess := s.byHost[h]; sess != nil {
		return sess, nil
	}
	s.lastID++
	sess := &session{
		s: s, h: h, id: s.lastID, name: fmt.Sprintf("h%d.sealer.internal", s.lastID), over: make(chan struct{}), log: io.Discard,
		flying: map[int]swarm.Assignment{}, heard: time.Now(),
	}
	sess.queue.wake = make(chan struct{}, 1)
	who, err := s.authority.Issue(sess.name)
	if err != nil {
		return nil, err
	}
	s.sessions[sess.id], s.byHost[h] = sess, sess
	ctx, sess.cancel = context.WithCancelCause(ctx)
	hello := &peers.Hello{Identity: who, Port: peers.DefaultPort, Blobs: s.blobs, Token: s.token.Reveal()}
	s.group.Go(func() { sess.run(ctx, hello) })
	return sess, nil
}

// order appends to what the host is told.
func (sess *session) order(q queued) {
	sess.queue.Lock()
	sess.queue.list = append(sess.queue.list, q)
	sess.queue.Unlock()
	select {
	case sess.queue.wake <- struct{}{}:
	default:
	}
}

// run is the session from its beginning to its end.
func (sess *session) run(ctx context.Context, hello *peers.Hello) {
	in, orders := io.Pipe()
	reports, out := io.Pipe()
	var both sync.WaitGroup
	both.Go(func() { _ = orders.CloseWithError(sess.write(ctx, orders, hello)) })
	both.Go(func() {
		if err := sess.read(reports); err != nil {
			sess.cancel(err)
		}
		_ = reports.Close()
	})
	// Secret: its orders hold a key, and its reports are no text for people, as errors would show them.
	err := sess.h.Runner.Run(ctx, host.Command{
		Argv: []string{runtime.NodeBinary, "content", "share"}, Stdin: in, Stdout: out, Mutates: true, Secret: true,
	})
	sess.cancel(errors.New("the session is over"))
	_ = in.Close()
	_ = out.Close()
	both.Wait()
	s := sess.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swarm.Leave(sess.id)
	delete(s.sessions, sess.id)
	delete(s.byHost, sess.h)
	switch {
	case sess.fatal != "":
		sess.err = fmt.Errorf("%s: %s", sess.h, sess.fatal)
	case err == nil:
		err = errors.New("it has ended too early")
		fallthrough
	default:
		sess.err = &sharingError{err}
	}
	if sess.needs == nil {
		s.failed[sess.h] = true // it was to help, and does not
	}
	close(sess.over)
	s.dispatch()
	s.broadcast()
}

// write tells the host what it is to do, until ctx ends or the end was told.
func (sess *session) write(ctx context.Context, w io.Writer, hello *peers.Hello) error {
	buf := bufio.NewWriterSize(w, 256<<10)
	if err := peers.Write(buf, peers.Order{Hello: hello}); err != nil {
		return err
	}
	known := map[swarm.HostID]bool{}
	for {
		sess.queue.Lock()
		list := sess.queue.list
		sess.queue.list = nil
		sess.queue.Unlock()
		for _, q := range list {
			if err := sess.tell(ctx, buf, q, known); err != nil {
				return err
			}
			if q.end {
				return buf.Flush()
			}
		}
		if err := buf.Flush(); err != nil {
			return err
		}
		if len(list) > 0 {
			continue // more may have come
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sess.queue.wake:
		}
	}
}

// tell writes one order, and what follows it.
func (sess *session) tell(ctx context.Context, w io.Writer, q queued, known map[swarm.HostID]bool) error {
	o := peers.Order{End: q.end}
	if q.get == nil {
		return peers.Write(w, o)
	}
	if q.from != nil && !known[q.from.id] {
		known[q.from.id] = true
		o.Peers = []peers.Peer{{ID: int(q.from.id), Address: q.from.address(), Name: q.from.name}}
	}
	o.Get = &peers.Get{ID: q.get.ID, From: int(q.get.From)}
	for _, p := range q.get.Parts {
		part := peers.Part{Blob: p.Blob, Offset: p.Offset, Length: p.Length}
		if p.End() < sess.s.blobs[p.Blob].Size {
			var err error
			if part.Sum, err = sess.s.sums.upTo(ctx, p.Blob, p.End()); err != nil {
				return err
			}
		}
		o.Get.Parts = append(o.Get.Parts, part)
	}
	if err := peers.Write(w, o); err != nil || q.get.From != swarm.Operator {
		return err
	}
	for _, p := range q.get.Parts {
		if err := sess.send(ctx, w, p); err != nil {
			return err
		}
	}
	return nil
}

// send writes a part's bytes.
func (sess *session) send(ctx context.Context, w io.Writer, p swarm.Part) (err error) {
	b := sess.s.blobs[p.Blob]
	at, err := sess.s.t.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: b.Digest, Size: b.Size})
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.Digest, err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	n, err := io.Copy(w, io.NewSectionReader(at, p.Offset, p.Length))
	if err == nil && n < p.Length {
		err = fmt.Errorf("reading %s: it has ended at byte %d: %w", b.Digest, p.Offset+n, io.ErrUnexpectedEOF)
	}
	return err
}

func (sess *session) address() string {
	return net.JoinHostPort(sess.h.IP(), strconv.Itoa(sess.port))
}

// read takes the host's reports.
func (sess *session) read(r io.Reader) error {
	buf := bufio.NewReaderSize(r, 64<<10)
	for {
		var report peers.Report
		err := peers.Read(buf, &report)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sess.reported(report); err != nil {
			return err
		}
	}
}
