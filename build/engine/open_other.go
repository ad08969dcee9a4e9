// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package engine

import (
	"context"
	"net"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Engine cannot be opened here: use Dial.
type Engine struct{}

// LinkFunc puts a blob that lies in file into a store.
type LinkFunc func(ctx context.Context, desc ocispec.Descriptor, file string) (bool, error)

// Open always fails on this system.
func Open(context.Context, Options) (*Engine, error) {
	return nil, &PermissionError{Err: ErrUnsupported}
}

// Client is never called.
func (*Engine) Client() *client.Client { return nil }

// Share is never called.
func (*Engine) Share(context.Context, context.Context, time.Duration, func()) error {
	return ErrUnsupported
}

// Shared cannot be had here.
type Shared struct{ Served }

// Connect finds nothing on this system.
func Connect(context.Context, string) (*Shared, error) { return nil, nil } //nolint:nilnil // none is an answer

// Client is never called.
func (*Shared) Client() *client.Client { return nil }

// Close is never called.
func (*Shared) Close() error { return nil }

// Output is never called.
func (*Shared) Output(dst content.Store, _ LinkFunc) content.Store { return dst }

// Prune is never called.
func (*Shared) Prune(context.Context, PruneOptions) (int64, error) { return 0, ErrUnsupported }

// CacheSize is never called.
func (*Shared) CacheSize(context.Context) (int64, error) { return 0, ErrUnsupported }

// Stop is never called.
func (*Shared) Stop(context.Context, bool) error { return ErrUnsupported }

// Serve is never called.
func (*Engine) Serve(context.Context, net.Listener) error { return ErrUnsupported }

// Close is never called.
func (*Engine) Close() error { return nil }

// Output is never called.
func (*Engine) Output(dst content.Store, _ LinkFunc) content.Store { return dst }

// Import is never called.
func (*Engine) Import(context.Context, []ocispec.Descriptor, func(digest.Digest) string) (func(context.Context) error, error) {
	return nil, ErrUnsupported
}

// Prune is never called.
func (*Engine) Prune(context.Context, PruneOptions) (int64, error) { return 0, ErrUnsupported }

// CacheSize is never called.
func (*Engine) CacheSize(context.Context) (int64, error) { return 0, ErrUnsupported }

// Reexec has nothing to do on this system.
func Reexec() {}

// Isolated is never true on this system.
func Isolated() bool { return false }

// Rootless is never true on this system.
func Rootless() bool { return false }

// OneID is never true on this system.
func OneID() bool { return false }

// Isolate does nothing on this system: a build runs elsewhere.
func Isolate(context.Context) (code int, done bool, err error) { return 0, false, nil }
