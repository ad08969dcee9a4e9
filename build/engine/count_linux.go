// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/stats"
)

// buildCounter knows how many builds run. (BuildKit's own history knows, too, but keeps the blobs of what is in it.)
type buildCounter struct {
	mu      sync.Mutex
	running int
	changed func(running int) // nil: nobody wants to know
}

// watch has f called now and whenever the number changes, one call at a time.
func (b *buildCounter) watch(f func(running int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = f
	if f != nil {
		f(b.running)
	}
}

type isSolve struct{}

// TagRPC implements stats.Handler.
func (b *buildCounter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, isSolve{}, info.FullMethodName == controlapi.Control_Solve_FullMethodName)
}

// HandleRPC implements stats.Handler.
func (b *buildCounter) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if solve, _ := ctx.Value(isSolve{}).(bool); !solve {
		return
	}
	var step int
	switch s.(type) {
	case *stats.Begin:
		step = 1
	case *stats.End:
		step = -1
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running += step
	if b.changed != nil {
		b.changed(b.running)
	}
}

// TagConn implements stats.Handler.
func (*buildCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*buildCounter) HandleConn(context.Context, stats.ConnStats) {}
