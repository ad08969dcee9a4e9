// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/swarm"
	"github.com/sealerio/sealer/store"
)

// maxGet bounds what one order asks for, in bytes: a part, or small blobs of which the last goes over its size.
const maxGet = 2 * swarm.PartSize

// Share takes part in spreading content: it gets blobs from other hosts and from the operator as the orders on in say, and gives
// what it has to hosts that the same authority has made certificates for. Everything is verified by digest before it is given on or
// counts. It ends with the order to end, and with an error where in ends without one or brings nothing for peers.Lease. What came of a
// blob by then is kept for the next time; of the certificate and the key nothing is.
func (n *Node) Share(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	st, err := n.openStore()
	if err != nil {
		return err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lease := time.AfterFunc(peers.Lease, func() { cancel(errLease) })
	defer lease.Stop()
	s := &sharing{n: n, st: st, in: bufio.NewReaderSize(&leasedReader{in, lease}, 256<<10), out: out, fail: cancel}
	defer s.close()
	ended := make(chan error, 1)
	go func() { ended <- s.obey(ctx) }() // a read of in that blocks cannot be cancelled
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cancel(err)
	s.end()
	return errors.Join(err, syncDir(filepath.Dir(st.BlobPath(digest.FromString("")))))
}

var errLease = fmt.Errorf("taking part in a transfer: the operator has said nothing for %s", peers.Lease)

// leasedReader renews the lease with everything that comes.
type leasedReader struct {
	r     io.Reader
	lease *time.Timer
}

func (l *leasedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.lease.Reset(peers.Lease)
	}
	return n, err
}

// sharing is one run of Share.
type sharing struct {
	n     *Node
	st    *store.Store
	in    *bufio.Reader
	fail  context.CancelCauseFunc
	hello *peers.Hello

	blobs    []*sharedBlob
	byDigest map[digest.Digest]*sharedBlob
	client   *peerClient
	server   io.Closer
	work     sync.WaitGroup

	orders sync.Mutex // guards ended, and what an order begins against the end
	ended  bool

	mu  sync.Mutex // guards out
	out io.Writer
}

func (s *sharing) report(r peers.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := peers.Write(s.out, r); err != nil {
		s.fail(fmt.Errorf("reporting to the operator: %w", err))
	}
}

// unlessEnded does what an order wants, or nothing where Share has ended meanwhile. do must not read the operator's stream, which may
// never bring anything.
func (s *sharing) unlessEnded(do func() error) error {
	s.orders.Lock()
	defer s.orders.Unlock()
	if s.ended {
		return errEnded
	}
	return do()
}

var errEnded = errors.New("taking part in a transfer: it has ended")

// end waits for what orders have begun; no order begins anything after it.
func (s *sharing) end() {
	s.orders.Lock()
	s.ended = true
	s.orders.Unlock()
	s.work.Wait()
}

// obey carries out order after order.
func (s *sharing) obey(ctx context.Context) error {
	var first peers.Order
	if err := peers.Read(s.in, &first); err != nil {
		return fmt.Errorf("reading the first order: %w", err)
	}
	if first.Hello == nil {
		return errors.New("reading the first order: it is none that comes first")
	}
	if err := s.unlessEnded(func() error { return s.begin(ctx, first.Hello) }); err != nil {
		return err
	}
	for {
		var o peers.Order
		err := peers.Read(s.in, &o)
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("taking part in a transfer: the operator is gone")
		case err != nil:
			return err
		case o.End:
			return nil
		}
		s.client.add(o.Peers)
		if o.Get != nil {
			if err := s.get(ctx, *o.Get); err != nil {
				return err
			}
		}
	}
}

// begin looks at what is there, listens, and reports.
func (s *sharing) begin(ctx context.Context, hello *peers.Hello) error {
	s.hello = hello
	config, err := hello.TLS()
	if err != nil {
		return err
	}
	s.client = newPeerClient(config)
	s.byDigest = map[digest.Digest]*sharedBlob{}
	var serving peers.Serving
	for i, b := range hello.Blobs {
		if err := b.Digest.Validate(); err != nil {
			return fmt.Errorf("looking for %q: %w", b.Digest, err)
		}
		blob := &sharedBlob{st: s.st, Blob: b}
		if err := blob.look(ctx); err != nil {
			return err
		}
		s.blobs, s.byDigest[b.Digest] = append(s.blobs, blob), blob
		switch {
		case blob.whole:
			serving.Have = append(serving.Have, i)
		case blob.at > 0:
			serving.Begun = append(serving.Begun, peers.At{Blob: i, Offset: blob.at})
		}
	}
	if hello.Port >= 0 {
		if s.server, serving.Port, err = s.listen(ctx, config); err != nil {
			s.n.log.Warn("cannot listen for other hosts", "error", err) // the operator sends what they need
		}
	}
	s.report(peers.Report{Serving: &serving})
	return nil
}

func (s *sharing) close() {
	if s.server != nil {
		_ = s.server.Close()
	}
	if s.client != nil {
		s.client.close()
	}
	for _, b := range s.blobs {
		b.close()
	}
}

// get begins what an order asks for. What the operator sends is read here, since the next order comes after it.
func (s *sharing) get(ctx context.Context, g peers.Get) error {
	total := int64(0)
	for _, p := range g.Parts {
		if p.Blob < 0 || p.Blob >= len(s.blobs) || p.Offset < 0 || p.Length < 0 || p.Length > maxGet || p.Offset+p.Length > s.blobs[p.Blob].Size {
			return fmt.Errorf("carrying out the order %d: there is no such part of a blob", g.ID)
		}
		total += p.Length
	}
	if total > maxGet || len(g.Parts) == 0 {
		return fmt.Errorf("carrying out the order %d: %d bytes at once", g.ID, total)
	}
	var sent []byte
	if g.From == 0 {
		sent = make([]byte, total)
		if _, err := io.ReadFull(s.in, sent); err != nil {
			return fmt.Errorf("reading what the operator sends: %w", err)
		}
	}
	// Orders for one blob are carried out in turn.
	var before []<-chan struct{}
	done := make(chan struct{})
	for _, p := range g.Parts {
		b := s.blobs[p.Blob]
		if b.last != nil {
			before = append(before, b.last)
		}
		b.last = done
	}
	return s.unlessEnded(func() error {
		s.work.Go(func() {
			defer close(done)
			for _, c := range before {
				select {
				case <-c:
				case <-ctx.Done():
					return
				}
			}
			s.carryOut(ctx, g, sent)
		})
		return nil
	})
}

// carryOut gets the parts and reports.
func (s *sharing) carryOut(ctx context.Context, g peers.Get, sent []byte) {
	var r io.Reader = bytes.NewReader(sent)
	ranges, fail := s.ranges(g), s.ready(g)
	if fail == nil && g.From != 0 {
		var body io.ReadCloser
		if body, fail = s.client.open(ctx, g.From, ranges); fail == nil {
			defer func() { _ = body.Close() }()
			r = body
		}
	}
	var report peers.Report
	for i, p := range g.Parts {
		if fail != nil {
			break
		}
		bytes := &io.LimitedReader{R: r, N: ranges[i].Length}
		if fail = s.blobs[p.Blob].take(ctx, p, bytes, g.From == 0); fail == nil {
			report.Have = append(report.Have, peers.At{Blob: p.Blob, Offset: p.Offset + p.Length})
			_, _ = io.Copy(io.Discard, bytes) // what was there already; an error shows at the next one
		}
	}
	switch {
	case ctx.Err() != nil:
		return
	case fail == nil:
		report.Done = []int{g.ID}
	case fail.reason == "":
		report.Fatal = fail.Error()
		defer s.fail(fail)
	default:
		report.Failed = &peers.Failed{ID: g.ID, Reason: string(fail.reason), Text: fail.Error()}
		for _, p := range g.Parts {
			report.Failed.At = append(report.Failed.At, peers.At{Blob: p.Blob, Offset: s.blobs[p.Blob].next()})
		}
	}
	s.report(report)
}

// ready tells whether the blobs are where the order takes them to be.
func (s *sharing) ready(g peers.Get) *partError {
	for _, p := range g.Parts {
		if at := s.blobs[p.Blob].next(); at < p.Offset || at > p.Offset && at >= p.Offset+p.Length && at < s.blobs[p.Blob].Size {
			return &partError{swarm.Dropped, fmt.Errorf("getting %s from byte %d: the host is at %d", s.blobs[p.Blob].Digest, p.Offset, at)}
		}
	}
	return nil
}

// ranges are the parts; where another host is asked for them, less what is there already.
func (s *sharing) ranges(g peers.Get) []blobRange {
	var list []blobRange
	for _, p := range g.Parts {
		b, skip := s.blobs[p.Blob], int64(0)
		if g.From != 0 {
			skip = min(max(0, b.next()-p.Offset), p.Length)
		}
		list = append(list, blobRange{b.Digest, p.Offset + skip, p.Length - skip})
	}
	return list
}

// partError is a part that did not come. Without a reason it is the host's own trouble, and nothing can go on.
type partError struct {
	reason swarm.Reason
	error
}

func (e *partError) Unwrap() error { return e.error }

// listenTCP listens on the port of the order, or on any where that is taken.
func (s *sharing) listenTCP(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", s.hello.Port))
	if err != nil && s.hello.Port != 0 {
		l, err = lc.Listen(ctx, "tcp", ":0")
	}
	return l, err
}
