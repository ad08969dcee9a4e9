// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Annotations by which k3s' controller is asked to take a member out of etcd, and says that it has
// (docs.k3s.io/cli/etcd-snapshot and k3s' pkg/etcd).
const (
	annotationRemove  = "etcd.k3s.cattle.io/remove"
	annotationRemoved = "etcd.k3s.cattle.io/removed-node-name"
	labelEtcd         = "node-role.kubernetes.io/etcd"
)

// leaveTimeout bounds how long the members of etcd may take to agree.
const leaveTimeout = 3 * time.Minute

// Leave takes a server's member out of etcd. The server's k3s ends by itself then.
func (d Distribution) Leave(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if !isServer(h) {
		return nil
	}
	return []runtime.Step{{
		Name: "removing " + h.Facts.NodeName() + " from etcd",
		Done: func(ctx context.Context) (bool, error) {
			if left, err := d.left(ctx, c, h); err != nil || left {
				return left, err
			}
			// A node that a snapshot brought back says that it is a member, of the etcd that was.
			there, err := hasMember(ctx, c, h)
			return err == nil && !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			if err := d.kubectl(ctx, c.Server(), log, "annotate", "node", h.Facts.NodeName(), "--overwrite", annotationRemove+"=true"); err != nil {
				return err
			}
			return d.awaitLeft(ctx, c, h)
		},
	}}
}

// left: the node is none of etcd's, or is no longer.
func (d Distribution) left(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	out, err := host.Output(ctx, c.Server().Runner, d.Kubectl().Command(
		"get", "node", h.Facts.NodeName(), "--ignore-not-found", "--output", "json", "--request-timeout", "20s"))
	if err != nil || len(out) == 0 {
		return err == nil, err
	}
	var node struct {
		Metadata struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(out, &node); err != nil {
		return false, fmt.Errorf("%s: reading the node %s: %w", c.Server(), h.Facts.NodeName(), err)
	}
	_, member := node.Metadata.Labels[labelEtcd]
	_, removed := node.Metadata.Annotations[annotationRemoved]
	return !member || removed, nil
}

// hasMember: etcd itself has a member on the host.
func hasMember(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	const tls = dataDir + "/server/tls/etcd/"
	members, err := runtime.Etcd{CA: tls + "server-ca.crt", Cert: tls + "client.crt", Key: tls + "client.key"}.Members(ctx, c.Server())
	return slices.ContainsFunc(members, func(m runtime.EtcdMember) bool { return m.On(h) }), err
}

func (d Distribution) awaitLeft(ctx context.Context, c *runtime.Cluster, h *runtime.Host) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leaveTimeout, fmt.Errorf(
		"%s: etcd has not let the member %s go after %s", c.Server(), h.Facts.NodeName(), leaveTimeout))
	defer cancel()
	tick := time.NewTicker(d.Poll)
	defer tick.Stop()
	for {
		done, err := d.left(ctx, c, h)
		if err == nil && done {
			return nil
		}
		if err, ok := err.(*host.LostError); ok && ctx.Err() == nil { //nolint:errorlint // as the runner gives it; the API server may be away for a moment
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Forget deletes the password that the node had, since the next host of this name has another, and the Node object.
func (d Distribution) Forget(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "deleting the node " + h.Facts.NodeName(),
		Done: func(ctx context.Context) (bool, error) {
			out, err := host.Output(ctx, c.Server().Runner, d.Kubectl().Command("--namespace", "kube-system", "get",
				"node/"+h.Facts.NodeName(), "secret/"+passwordSecret(h), "--ignore-not-found", "--output", "name", "--request-timeout", "20s"))
			return err == nil && len(out) == 0, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			if err := d.deletePassword(ctx, c, h, log); err != nil {
				return err
			}
			return d.deleteNode(ctx, c, h, log)
		},
	}}
}

// deleteNode waits for k3s' finalizer, which takes a member out of etcd where that is still to be done.
func (d Distribution) deleteNode(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	return d.kubectl(ctx, c.Server(), log, "delete", "node", h.Facts.NodeName(), "--ignore-not-found", "--timeout", "120s")
}

func (d Distribution) deletePassword(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	return d.kubectl(ctx, c.Server(), log, "--namespace", "kube-system", "delete", "secret", passwordSecret(h), "--ignore-not-found", "--timeout", "60s")
}

func passwordSecret(h *runtime.Host) string { return h.Facts.NodeName() + ".node-password.k3s" }
