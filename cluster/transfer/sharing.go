// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/swarm"
	"github.com/sealerio/sealer/runtime"
)

// sharing spreads the image's blobs: from here to one host, and from hosts that have them to the others. It begins with
// the first host that lacks something and ends with the phase. Hosts that lack nothing help.
type sharing struct {
	t *Transfer

	mu        sync.Mutex
	changed   chan struct{} // closed, and made anew, when something has changed that others wait for
	authority *peers.Authority
	token     host.Secret
	swarm     *swarm.Swarm
	blobs     []peers.Blob
	index     map[digest.Digest]int
	sums      *partSums
	sessions  map[swarm.HostID]*session
	byHost    map[*runtime.Host]*session
	lastID    swarm.HostID
	ready     []*runtime.Host // that have the program, and may help
	failed    map[*runtime.Host]bool
	uploads   map[string]int // of the program, by architecture
	sent      int64          // bytes of blobs from here
	given     int64          // bytes from host to host
	group     sync.WaitGroup
	stop      context.CancelFunc
	said      map[string]bool
}

// maxHelpers is how many hosts that lack nothing give what the others lack.
const maxHelpers = 16

// sharing is that of the phase under way.
func (t *Transfer) sharing() *sharing {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.share == nil {
		t.share = &sharing{
			t: t, changed: make(chan struct{}), sessions: map[swarm.HostID]*session{}, byHost: map[*runtime.Host]*session{},
			failed: map[*runtime.Host]bool{}, uploads: map[string]int{}, said: map[string]bool{}, index: map[digest.Digest]int{},
		}
	}
	return t.share
}

// endSharing takes leave of all hosts: on none of them is anything left of it.
func (t *Transfer) endSharing() {
	t.mu.Lock()
	s := t.share
	t.share = nil
	t.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// single: there is nobody to share with.
func (t *Transfer) single() bool { return len(t.among) < 2 }

// begin prepares everything once; s.mu is held.
func (s *sharing) begin(ctx context.Context) error {
	if s.swarm != nil {
		return nil
	}
	var sizes []int64
	for _, h := range s.t.among {
		blobs, err := s.t.Blobs(ctx, h)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if _, known := s.index[b.Digest]; !known {
				s.index[b.Digest] = len(s.blobs)
				s.blobs = append(s.blobs, peers.Blob{Digest: b.Digest, Size: b.Size})
				sizes = append(sizes, b.Size)
			}
		}
	}
	var err error
	if s.authority, err = peers.NewAuthority(time.Now()); err != nil {
		return err
	}
	s.token = host.Secret(rand.Text())
	s.sums = newPartSums(s.t.Content, s.blobs)
	s.swarm = swarm.New(sizes)
	ctx, s.stop = context.WithCancel(ctx)
	s.group.Go(func() { s.tick(ctx) })
	return nil
}

// tick tells all hosts that the operator is there, and gives up those that have work and say nothing.
func (s *sharing) tick(ctx context.Context) {
	every := time.NewTicker(peers.Tick)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		s.mu.Lock()
		s.dispatch()
		for _, sess := range s.sessions {
			sess.order(queued{})
			if sess.working > 0 && time.Since(sess.heard) > silence {
				sess.cancel(errSilent)
			}
		}
		s.mu.Unlock()
	}
}

// silence is how long a host may work without saying anything.
const silence = 5 * time.Minute

var errSilent = fmt.Errorf("it has said nothing for %s", silence)

// broadcast wakes those who wait; s.mu is held.
func (s *sharing) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// bring has a host get what it needs. Errors of a connection, and of the host's program when it was killed, are *sharingError.
func (s *sharing) bring(ctx context.Context, h *runtime.Host, log io.Writer) error {
	wanted, err := s.t.Blobs(ctx, h)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.begin(ctx); err != nil {
		s.mu.Unlock()
		return err
	}
	needs := make([]bool, len(s.blobs))
	for _, b := range wanted {
		needs[s.index[b.Digest]] = true
	}
	sess, err := s.session(ctx, h)
	if err == nil {
		sess.needs, sess.complete, sess.done, sess.log = needs, make(chan struct{}), false, log
		s.swarm.Needs(sess.id, needs)
		s.help(ctx)
		s.dispatch()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-sess.complete:
		err = nil
	case <-sess.over:
		err = sess.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.counter.Done(err)
	sess.log, sess.counter = io.Discard, nil
	return err
}

// help starts hosts that lack nothing as sources; s.mu is held.
func (s *sharing) help(ctx context.Context) {
	if s.swarm == nil {
		return
	}
	helpers := 0
	for _, sess := range s.sessions {
		if sess.needs == nil {
			helpers++
		}
	}
	for _, h := range s.ready {
		if helpers >= maxHelpers {
			return
		}
		if s.byHost[h] == nil && !s.failed[h] {
			helpers++
			if _, err := s.session(ctx, h); err != nil {
				s.failed[h] = true
			}
		}
	}
}

// idle says that a host has the program.
func (s *sharing) idle(ctx context.Context, h *runtime.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.ready, h) {
		s.ready = append(s.ready, h)
	}
	if len(s.sessions) > 0 {
		s.help(ctx)
	}
	s.broadcast()
}

// dispatch gives orders; s.mu is held.
func (s *sharing) dispatch() {
	for _, sess := range s.sessions {
		if sess.complete != nil && sess.joined && !sess.done && s.swarm.Left(sess.id) == 0 {
			sess.done = true
			close(sess.complete)
		}
	}
	for _, a := range s.swarm.Next(!s.hoping()) {
		to := s.sessions[a.To]
		q := queued{get: &a}
		if a.From != swarm.Operator {
			q.from = s.sessions[a.From]
		}
		to.working++
		to.flying[a.ID] = a
		to.order(q)
	}
}

// hoping: hosts that may have everything have not yet said what they have, and nothing is sent from here until they have. s.mu is held.
func (s *sharing) hoping() bool {
	for _, sess := range s.sessions {
		if sess.needs == nil && !sess.joined && time.Since(sess.heard) < peers.Tick {
			return true
		}
	}
	return false
}

// end takes leave of all hosts and waits until they have gone.
func (s *sharing) end() {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for _, sess := range s.sessions {
		sess.order(queued{end: true})
		all = append(all, sess)
	}
	stop := s.stop
	s.mu.Unlock()
	patience := time.NewTimer(leave)
	defer patience.Stop()
	for _, sess := range all {
		select {
		case <-sess.over:
		case <-patience.C:
			for _, other := range all {
				other.cancel(errors.New("it does not end"))
			}
			<-sess.over
		}
	}
	if stop != nil {
		stop()
	}
	s.group.Wait()
	if s.given > 0 || s.sent > 0 && len(all) > 1 {
		task := s.t.Display.Task(fmt.Sprintf("content: %d MiB from here, %d MiB from host to host", mebibytes(s.sent), mebibytes(s.given)))
		task.Done(nil)
	}
}

// leave is how long hosts may take to say goodbye.
const leave = 15 * time.Second

func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }
