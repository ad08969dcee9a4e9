//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sealerio/sealer/test/hosts"
)

// client asks the workload of the lab through hosts in turn, on a new connection each time.
type client struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	asked  int
	lost   []string
}

func startClient(t *testing.T, list ...hosts.Host) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{cancel: cancel}
	ask := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	c.done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			h := list[i%len(list)]
			if err := getOnce(ctx, ask, h); err != nil && ctx.Err() == nil {
				c.lost = append(c.lost, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format(time.StampMilli), h.Name, err))
			}
			c.asked++
		}
	})
	t.Cleanup(func() { cancel(); c.done.Wait() })
	return c
}

func getOnce(ctx context.Context, ask *http.Client, h hosts.Host) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.Address.String()+":30080/", nil)
	if err != nil {
		return err
	}
	resp, err := ask.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// stop ends it and tells how often it asked, and what went wrong.
func (c *client) stop() (asked int, lost []string) {
	c.cancel()
	c.done.Wait()
	return c.asked, c.lost
}
