// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/sealerio/sealer/test/components/programs/podnet/plan"
)

// everything is the only item of the queue: whatever has changed, the whole node is set up again, which is cheap
// and cannot miss anything.
const everything = "everything"

// agent keeps one node's network as the cluster's nodes say.
type agent struct {
	log    *slog.Logger
	node   string
	nodes  corelisters.NodeLister
	synced cache.InformerSynced
	queue  workqueue.TypedRateLimitingInterface[string]
}

func newAgent(log *slog.Logger, node string, nodes coreinformers.NodeInformer) (*agent, error) {
	a := &agent{
		log:   log,
		node:  node,
		nodes: nodes.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](500*time.Millisecond, 30*time.Second)),
	}
	// Added, not AddRateLimited: many changes at once are one item in the queue anyway.
	changed := func() { a.queue.Add(everything) }
	registration, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(any, any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return nil, fmt.Errorf("watching nodes: %w", err)
	}
	a.synced = registration.HasSynced
	return a, nil
}

// run sets the node up on every change until ctx ends. A failure is tried again, later each time.
func (a *agent) run(ctx context.Context) error {
	context.AfterFunc(ctx, a.queue.ShutDown)
	if !cache.WaitForCacheSync(ctx.Done(), a.synced) {
		return nil // ctx has ended; without it the wait goes on
	}
	for {
		item, shutdown := a.queue.Get()
		if shutdown {
			return nil
		}
		if err := a.setUp(); err != nil {
			a.log.Error("setting up the node, will try again", "attempt", a.queue.NumRequeues(item)+1, "error", err)
			a.queue.AddRateLimited(item)
		} else {
			a.queue.Forget(item)
		}
		a.queue.Done(item)
	}
}

// setUp brings the host in line. The CNI configuration comes last, as it is what makes the node ready for pods; it
// is written even when another node cannot be reached, for pods on this one do not depend on that.
func (a *agent) setUp() error {
	listed, err := a.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	nodes := make([]plan.Node, 0, len(listed))
	for _, n := range listed {
		node, err := nodeOf(n)
		if err != nil {
			a.log.Warn("leaving a node out", "node", n.Name, "error", err)
			continue
		}
		nodes = append(nodes, node)
	}
	network, ok := plan.For(a.node, nodes)
	if !ok {
		a.log.Info("waiting until the cluster gives this node a pod network", "node", a.node)
		return nil
	}
	routesErr := setRoutes(network.Routes)
	masqueradeErr := setMasquerade(network)
	return errors.Join(routesErr, masqueradeErr, a.writeConfig(network))
}

func (a *agent) writeConfig(network plan.Network) error {
	config, err := network.Config()
	if err != nil {
		return err
	}
	written, err := writeConfig(configFolder, config)
	if err != nil {
		return err
	}
	if written {
		a.log.Info("wrote the CNI configuration", "networks", network.Own)
	}
	return nil
}

func nodeOf(n *corev1.Node) (plan.Node, error) {
	node := plan.Node{Name: n.Name}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, cidr := range cidrs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return plan.Node{}, fmt.Errorf("reading its pod network: %w", err)
		}
		node.Networks = append(node.Networks, prefix.Masked())
	}
	for _, address := range n.Status.Addresses {
		if address.Type != corev1.NodeInternalIP {
			continue
		}
		ip, err := netip.ParseAddr(address.Address)
		if err != nil {
			return plan.Node{}, fmt.Errorf("reading its address: %w", err)
		}
		node.Addresses = append(node.Addresses, ip)
	}
	return node, nil
}
