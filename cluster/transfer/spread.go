// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// How many hosts one host gives the program to at once, and how long a host waits for one that does.
const (
	maxLent      = 2
	lendPatience = time.Minute
	fetchTries   = 2
)

// Program brings sealer-node to a host, from another one where Spread was called.
func (t *Transfer) Program(h *runtime.Host) runtime.Step {
	step := t.Binaries.Send(h)
	there, upload := step.Done, step.Do
	step.Done = func(ctx context.Context) (bool, error) {
		yes, err := there(ctx)
		if yes && err == nil && !t.single() {
			t.sharing().idle(ctx, h)
		}
		return yes, err
	}
	step.Do = func(ctx context.Context, log io.Writer) error {
		if t.single() {
			return upload(ctx, log)
		}
		s := t.sharing()
		got, release := s.program(ctx, h, t.Binaries[h.Facts.Arch])
		defer release()
		if !got {
			if err := upload(ctx, log); err != nil {
				return err
			}
		}
		s.idle(ctx, h)
		return nil
	}
	return step
}

// program has a host get sealer-node from another of its architecture: only the first of them is sent it from here. Where it
// says no, the caller sends it, and calls release then.
func (s *sharing) program(ctx context.Context, h *runtime.Host, b program.Binary) (got bool, release func()) {
	arch := h.Facts.Arch
	timeout := time.NewTimer(lendPatience)
	defer timeout.Stop()
	for tries := 0; ; {
		s.mu.Lock()
		if from := s.lender(arch); from != nil && tries < fetchTries {
			from.lent++
			s.mu.Unlock()
			err := s.fetch(ctx, h, from, b)
			s.mu.Lock()
			from.lent--
			s.broadcast()
			s.mu.Unlock()
			if err == nil {
				return true, func() {}
			}
			tries++
			continue
		}
		waits := tries < fetchTries && (s.uploads[arch] > 0 || s.hopeful(ctx, arch))
		if !waits {
			s.uploads[arch]++
			s.mu.Unlock()
			return false, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.uploads[arch]--
				s.broadcast()
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			tries = fetchTries
		case <-ctx.Done():
			return false, func() {}
		}
	}
}

// lender is a host that may give the program now; s.mu is held.
func (s *sharing) lender(arch string) *session {
	var best *session
	for _, sess := range s.sessions {
		if sess.port > 0 && sess.h.Facts.Arch == arch && sess.lent < maxLent && (best == nil || sess.lent < best.lent) {
			best = sess
		}
	}
	return best
}

// hopeful tells whether some host will lend soon, and sees to it; s.mu is held.
func (s *sharing) hopeful(ctx context.Context, arch string) bool {
	for _, sess := range s.sessions {
		if sess.h.Facts.Arch == arch && (!sess.joined || sess.port > 0) {
			return true
		}
	}
	i := slices.IndexFunc(s.ready, func(h *runtime.Host) bool { return h.Facts.Arch == arch && !s.failed[h] && s.byHost[h] == nil })
	if i < 0 {
		return false
	}
	_, err := s.session(ctx, s.ready[i])
	s.failed[s.ready[i]] = err != nil
	return err == nil
}

func (s *sharing) fetch(ctx context.Context, h *runtime.Host, from *session, b program.Binary) error {
	ctx, cancel := context.WithTimeout(ctx, lendPatience)
	defer cancel()
	return host.Fetch(ctx, h.Runner, host.Source{IP: from.h.IP(), Port: from.port, Word: "sealer-node " + s.token}, b.Digest, runtime.NodeBinary, 0o755)
}
