// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
)

// pool connects to each host once, for all parts of a command.
type pool struct {
	dial DialFunc
	mu   sync.Mutex
	open map[string]*pooled // by address
}

// pooled is a connection that its users do not close: Close is hidden from them.
type pooled struct{ host.Runner }

// get is a DialFunc.
func (p *pool) get(ctx context.Context, m clusterfile.Host) (host.Runner, error) {
	p.mu.Lock()
	open := p.open[m.Address]
	p.mu.Unlock()
	if open != nil {
		return open, nil
	}
	r, err := p.dial(ctx, m)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[m.Address] = &pooled{r}
	return p.open[m.Address], nil
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, r := range p.open {
		if closer, ok := r.Runner.(io.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}
