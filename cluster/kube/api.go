// SPDX-License-Identifier: Apache-2.0

// Package kube asks the Kubernetes API of a cluster for what the cluster engine needs of it, with kubectl on a control
// plane that answers: nodes, and pods that are made to leave them.
package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// API is the Kubernetes API of a cluster, asked with kubectl on Cluster.Server(), which may be another one each time.
type API struct {
	Cluster *runtime.Cluster
	Kubectl runtime.Kubectl
}

// Get asks, and reads the JSON answer into out.
func (a API) Get(ctx context.Context, out any, args ...string) error {
	c := a.Kubectl.Command(append(args, "--output", "json", "--request-timeout", "30s")...)
	data, err := host.Output(ctx, a.Cluster.Server().Runner, c)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c, err)
	}
	return nil
}

// Change runs a kubectl command that changes something; its output goes to log.
func (a API) Change(ctx context.Context, log io.Writer, args ...string) error {
	c := a.Kubectl.Command(args...)
	c.Stdout, c.Stderr, c.Mutates = log, log, true
	return a.Cluster.Server().Runner.Run(ctx, c)
}

// Node is the node of a name; nil where there is none.
func (a API) Node(ctx context.Context, name string) (*Node, error) {
	nodes, err := a.Nodes(ctx)
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

// Nodes are all of the cluster.
func (a API) Nodes(ctx context.Context) ([]Node, error) {
	var list struct{ Items []Node }
	err := a.Get(ctx, &list, "get", "nodes")
	return list.Items, err
}
