// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
)

// keyLocks are locks that come and go with the names of what they guard.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is free
}

// lock waits for a key until ctx ends. release is called once.
func (l *keyLocks) lock(ctx context.Context, key string) (release func(), err error) {
	for {
		l.mu.Lock()
		held, taken := l.held[key]
		if !taken {
			break
		}
		l.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	free := make(chan struct{})
	l.held[key] = free
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, key)
		close(free)
	}, nil
}
