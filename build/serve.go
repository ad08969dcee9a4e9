// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/registry"
)

// ServeOptions are a builder that serves the builds of other processes.
type ServeOptions struct {
	StateDir        string
	Compression     Compression // of the builds that it serves; "" is Zstd
	Isolation       string      // as in Options
	Epoch           *time.Time  // builds with another one are served too, but slower; nil: as in Options
	RegistryOptions registry.Options
	Idle            time.Duration // how long to wait for the next build; 0: for ever
	Warn            func(line string)
	Ready           func() // called when builds can come; nil: nobody is told
}

// Serve keeps a builder open until ctx ends, or nobody builds for as long as Idle says. It then waits for the builds
// that run, until now ends. Where another process has the state, the error is an *engine.BusyError.
func Serve(ctx, now context.Context, o ServeOptions) (err error) {
	isolation, err := engine.ParseIsolation(o.Isolation)
	if err != nil {
		return err
	}
	if o.Compression, err = ParseCompression(string(o.Compression)); err != nil {
		return err
	}
	if o.Epoch == nil {
		t, err := environmentEpoch()
		if err != nil {
			return err
		}
		o.Epoch = &t
	}
	e, err := engine.Open(ctx, engine.Options{
		Root: o.Compression.stateDir(o.StateDir), Command: "sealer builder serve", Isolation: isolation, Epoch: *o.Epoch,
		Registries: registryHosts(o.RegistryOptions), Notice: o.Warn, NoWait: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Share(ctx, now, o.Idle, o.Ready)
}

// openShared takes the engine that `sealer builder serve` runs; nil: none does.
func openShared(ctx context.Context, o Options, root string, isolation engine.Isolation) (*builder, error) {
	s, err := engine.Connect(ctx, root)
	if s == nil || err != nil {
		return nil, err
	}
	if isolation != engine.Auto && isolation != s.Isolation {
		return nil, errors.Join(&IsolationError{Want: isolation, Have: s.Isolation}, s.Close())
	}
	return &builder{
		client: s.Client(), output: s.Output(o.Store.Content(), o.link),
		remote: s.Epoch != o.Epoch.Unix(), // it gives files the times of its own epoch
		close: func(ctx context.Context) error {
			var err error
			if ctx.Err() == nil {
				_, err = s.Prune(ctx, engine.PruneOptions{})
			}
			return errors.Join(err, s.Close())
		},
	}, nil
}

// IsolationError says that the builder that serves runs RUN in another way than this build asks for.
type IsolationError struct{ Want, Have engine.Isolation }

func (e *IsolationError) Error() string {
	return fmt.Sprintf("--isolation=%s: the builder that serves runs with %s", e.Want, e.Have)
}

// Hint says what to do.
func (*IsolationError) Hint() string {
	return "leave --isolation out, or start 'sealer builder serve' with it"
}
