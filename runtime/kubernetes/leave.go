// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"io"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// Leave takes a control plane's member out of etcd. Members are named like nodes, by kubeadm.
func (Distribution) Leave(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if h.Spec.Role != clusterfile.ControlPlane || externalEtcd(c) {
		return nil
	}
	return []runtime.Step{{
		Name: "removing " + h.Facts.NodeName() + " from etcd",
		Done: func(ctx context.Context) (bool, error) {
			_, there, err := etcdMember(ctx, c, h)
			return err == nil && !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			id, there, err := etcdMember(ctx, c, h)
			if err != nil || !there {
				return err
			}
			return run(ctx, c.Server(), log, etcd().Command(c.Server(), "remove", "--id", id)...)
		},
	}}
}

// etcd asks the member on the host where it runs, as its health check does.
func etcd() runtime.Etcd {
	const pki = "/etc/kubernetes/pki/etcd/"
	return runtime.Etcd{CA: pki + "ca.crt", Cert: pki + "healthcheck-client.crt", Key: pki + "healthcheck-client.key"}
}

// etcdMember is the id of the host's member. One that has not started yet has no name.
func etcdMember(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (id string, there bool, err error) {
	members, err := etcd().Members(ctx, c.Server())
	for _, m := range members {
		if m.Name == h.Facts.NodeName() || m.On(h) {
			return m.ID, true, nil
		}
	}
	return "", false, err
}

// Forget deletes the Node object.
func (Distribution) Forget(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "deleting the node " + h.Facts.NodeName(),
		Done: func(ctx context.Context) (bool, error) {
			there, err := hasNode(ctx, c, h)
			return err == nil && !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error { return deleteNode(ctx, c, h, log) },
	}}
}

func deleteNode(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	k := Distribution{}.Kubectl().Command("delete", "node", h.Facts.NodeName(), "--ignore-not-found", "--timeout", "60s")
	k.Stdout, k.Stderr, k.Mutates = log, log, true
	return c.Server().Runner.Run(ctx, k)
}
