// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// flights lets one goroutine do what several want done; the others wait.
type flights struct {
	mu   sync.Mutex
	open map[string]*flight
}

type flight struct {
	landed chan struct{}
	host   string
	err    error
}

// lead says whether the caller is the one to do the work for key; it then
// calls done with the outcome. Where another did it meanwhile, lead is false,
// and err is that one's failure if it asked the same host; else the caller
// looks again, and may lead with its own source.
func (f *flights) lead(ctx context.Context, key, host string) (lead bool, done func(error), err error) {
	f.mu.Lock()
	if fl, ok := f.open[key]; ok {
		f.mu.Unlock()
		select {
		case <-fl.landed:
			if fl.host == host {
				return false, nil, fl.err
			}
			return false, nil, nil
		case <-ctx.Done():
			return false, nil, context.Cause(ctx)
		}
	}
	if f.open == nil {
		f.open = map[string]*flight{}
	}
	fl := &flight{landed: make(chan struct{}), host: host}
	f.open[key] = fl
	f.mu.Unlock()
	return true, func(err error) {
		if ctx.Err() == nil { // that a caller gave up says nothing to the others
			fl.err = err
		}
		f.mu.Lock()
		delete(f.open, key)
		f.mu.Unlock()
		close(fl.landed)
	}, nil
}

// syncSet is a set of digests for several goroutines.
type syncSet struct {
	mu  sync.Mutex
	set map[digest.Digest]bool
}

func (s *syncSet) has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[d]
}

func (s *syncSet) add(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[digest.Digest]bool{}
	}
	s.set[d] = true
}
