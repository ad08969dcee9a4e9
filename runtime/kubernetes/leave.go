// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// etcdPort is where members talk to one another.
const etcdPort = 2380

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
			return run(ctx, c.Server(), log, etcd(c.Server(), "remove", "--id", id)...)
		},
	}}
}

// etcd asks the member on the host where it runs, as its health check does.
func etcd(server *runtime.Host, verb string, args ...string) []string {
	const pki = "/etc/kubernetes/pki/etcd/"
	argv := []string{runtime.NodeBinary, "etcd", verb, "--cacert", pki + "ca.crt", "--cert", pki + "healthcheck-client.crt", "--key", pki + "healthcheck-client.key"}
	if runtime.IsIPv6(server.IP()) { // kubeadm lets etcd listen on the loopback address of the host's family
		argv = append(argv, "--endpoint", "https://"+net.JoinHostPort(server.Loopback(), "2379"))
	}
	return append(argv, args...)
}

// etcdMember is the id of the host's member. One that has not started yet has no name.
func etcdMember(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (id string, there bool, err error) {
	out, err := host.Output(ctx, c.Server().Runner, host.Command{Argv: etcd(c.Server(), "members")})
	if err != nil {
		return "", false, err
	}
	var members []struct {
		ID       string   `json:"id"`
		Name     string   `json:"name"`
		PeerURLs []string `json:"peerURLs"`
	}
	if err := json.Unmarshal(out, &members); err != nil {
		return "", false, fmt.Errorf("%s: reading the members of etcd: %w", c.Server(), err)
	}
	url := "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(etcdPort))
	for _, m := range members {
		if m.Name == h.Facts.NodeName() || slices.Contains(m.PeerURLs, url) {
			return m.ID, true, nil
		}
	}
	return "", false, nil
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
