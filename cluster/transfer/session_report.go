// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"fmt"
	"time"

	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/internal/swarm"
)

// reported takes one report. An error is a host that makes no sense.
func (sess *session) reported(r peers.Report) error {
	s := sess.s
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.heard = time.Now()
	if r.Fatal != "" {
		sess.fatal = r.Fatal
	}
	if r.Serving != nil {
		if err := sess.serving(r.Serving); err != nil {
			return err
		}
	}
	for _, at := range r.Have {
		if err := sess.check(at); err != nil {
			return err
		}
		s.swarm.Have(sess.id, at.Blob, at.Offset)
	}
	for _, id := range r.Done {
		a, asked := sess.flying[id]
		if !asked {
			return fmt.Errorf("%s: sealer-node has got what it was not asked to", sess.h)
		}
		sess.landed(a)
		s.swarm.Done(id)
		size := int64(0)
		for _, p := range a.Parts {
			size += p.Length
		}
		sess.counter.Advance(size)
		if a.From == swarm.Operator {
			s.sent += size
		} else {
			s.given += size
		}
	}
	if r.Failed != nil {
		if err := sess.failed(r.Failed); err != nil {
			return err
		}
	}
	s.dispatch()
	return nil
}

func (sess *session) check(at peers.At) error {
	if at.Blob < 0 || at.Blob >= len(sess.s.blobs) || at.Offset < 0 || at.Offset > sess.s.blobs[at.Blob].Size {
		return fmt.Errorf("%s: sealer-node tells of a blob that it was not asked about", sess.h)
	}
	return nil
}

// serving is the host's first report.
func (sess *session) serving(r *peers.Serving) error {
	s := sess.s
	n := len(s.blobs)
	j := swarm.Joining{Have: make([]int64, n), Begun: make([]int64, n), Needs: make([]bool, n), Serves: r.Port > 0}
	for i := range j.Have {
		j.Have[i] = swarm.Nothing
	}
	for _, b := range r.Have {
		if err := sess.check(peers.At{Blob: b}); err != nil {
			return err
		}
		j.Have[b] = s.blobs[b].Size
	}
	for _, at := range r.Begun {
		if err := sess.check(at); err != nil || at.Offset == s.blobs[at.Blob].Size {
			return err
		}
		j.Begun[at.Blob] = at.Offset
	}
	if sess.needs != nil {
		j.Needs = sess.needs
	}
	sess.joined, sess.port = true, r.Port
	s.swarm.Join(sess.id, j)
	missing := int64(0)
	for b, need := range j.Needs {
		if need && j.Have[b] == swarm.Nothing {
			missing += s.blobs[b].Size - j.Begun[b]
		}
	}
	if sess.needs != nil {
		sess.counter = progress.CounterOf(sess.log, "content", missing)
	}
	s.broadcast()
	return nil
}

// landed takes an assignment off the host's list.
func (sess *session) landed(a swarm.Assignment) {
	delete(sess.flying, a.ID)
	sess.working--
}

// failed notes a failure, and says what concerns the user.
func (sess *session) failed(f *peers.Failed) error {
	s := sess.s
	a, asked := sess.flying[f.ID]
	if !asked {
		return fmt.Errorf("%s: sealer-node has failed in what it was not asked to do", sess.h)
	}
	fail := swarm.Failure{ID: f.ID, Reason: swarm.Reason(f.Reason), At: map[int]int64{}}
	for _, at := range f.At {
		if err := sess.check(at); err != nil {
			return err
		}
		fail.At[at.Blob] = at.Offset
	}
	sess.landed(a)
	dropped := s.swarm.Failed(fail)
	if fail.Reason == swarm.Leftover {
		_, _ = fmt.Fprintf(sess.log, "%s: what it had from before is damaged, and comes again from its first byte: %s\n", sess.h, f.Text)
	}
	if a.From == swarm.Operator && fail.Reason != swarm.Dropped && fail.Reason != swarm.Leftover {
		return fmt.Errorf("%s: what was sent did not arrive: %s", sess.h, f.Text)
	}
	if from := s.sessions[a.From]; from != nil {
		switch {
		case fail.Reason == swarm.Wrong:
			s.say(sess, "wrong "+from.h.String(), "%s gives wrong content, and is asked no more: %s", from.h, f.Text)
		case dropped == a.From:
			s.say(sess, "left "+from.h.String(), "%s gives nothing to other hosts, and is asked no more: %s", from.h, f.Text)
		case fail.Reason == swarm.Slow, fail.Reason == swarm.Cut:
			s.say(sess, fmt.Sprint(fail.Reason, sess.h, from.h), "%s: %s: others are asked", sess.h, f.Text)
		}
	}
	if s.swarm.Alone(sess.id) && len(s.sessions) > 1 {
		s.say(sess, "alone "+sess.h.String(), "%s reaches no other host on TCP port %d: it is sent everything from here (%s)", sess.h, peers.DefaultPort, f.Text)
	}
	return nil
}

// say tells the user once.
func (s *sharing) say(sess *session, key, format string, args ...any) {
	if !s.said[key] {
		s.said[key] = true
		_, _ = fmt.Fprintf(sess.log, format+"\n", args...)
	}
}
