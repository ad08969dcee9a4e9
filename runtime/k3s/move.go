// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Mover = Distribution{}

// Stuck is never.
func (Distribution) Stuck(*runtime.Cluster, clusterfile.Endpoint, clusterfile.Endpoint) string {
	return ""
}

// TellEndpoint does nothing: agents alone keep it, each in its config.yaml.
func (Distribution) TellEndpoint(*runtime.Cluster, *runtime.Host, clusterfile.Endpoint) []runtime.Step {
	return nil
}

// FollowEndpoint starts an agent anew where its config.yaml names another server. k3s reads that whenever it starts, finds all servers by it,
// and forgets those that it found by another (docs.k3s.io/architecture, "how agent node registration works"). Servers ask themselves.
func (d Distribution) FollowEndpoint(c *runtime.Cluster, h *runtime.Host, _ clusterfile.Endpoint) []runtime.Step {
	if isServer(h) {
		return nil
	}
	following := func(ctx context.Context) (settings, error) {
		have, err := present(ctx, h)
		if err != nil {
			return nil, err
		}
		if have == nil {
			return nil, fmt.Errorf("%s: it has no %s: run the cluster's image again first", h, configFile)
		}
		have["server"] = agentServer(c)
		return have, nil
	}
	return []runtime.Step{{
		Name: "finding the servers at " + agentServer(c),
		Done: func(ctx context.Context) (bool, error) {
			want, err := following(ctx)
			if err != nil {
				return false, err
			}
			if same, err := written(ctx, h, want); err != nil || !same {
				return false, err
			}
			return runs(ctx, h)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			want, err := following(ctx)
			if err != nil {
				return err
			}
			if err := write(ctx, h, want); err != nil {
				return err
			}
			return d.restart(ctx, h, log, known(c, want), func(ctx context.Context) (bool, error) { return d.member(ctx, c, h) })
		},
	}}
}
