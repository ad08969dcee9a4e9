// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// api is the Kubernetes API of a cluster, asked with kubectl on cluster.Server().
type api struct {
	cluster *runtime.Cluster
	kubectl runtime.Kubectl
}

// get asks, and reads the JSON answer into out.
func (a api) get(ctx context.Context, out any, args ...string) error {
	c := a.kubectl.Command(append(args, "--output", "json", "--request-timeout", "30s")...)
	data, err := host.Output(ctx, a.cluster.Server().Runner, c)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c, err)
	}
	return nil
}

// change runs a kubectl command that changes something; its output goes to log.
func (a api) change(ctx context.Context, log io.Writer, args ...string) error {
	c := a.kubectl.Command(args...)
	c.Stdout, c.Stderr, c.Mutates = log, log, true
	return a.cluster.Server().Runner.Run(ctx, c)
}

// node is the node of a name; nil where there is none.
func (a api) node(ctx context.Context, name string) (*nodeObject, error) {
	nodes, err := a.nodes(ctx)
	if err != nil {
		return nil, err
	}
	for i := range nodes {
		if nodes[i].Metadata.Name == name {
			return &nodes[i], nil
		}
	}
	return nil, nil
}

func (a api) nodes(ctx context.Context) ([]nodeObject, error) {
	var list struct{ Items []nodeObject }
	err := a.get(ctx, &list, "get", "nodes")
	return list.Items, err
}
