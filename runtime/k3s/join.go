// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Join makes the host a node. A second server first moves the datastore of a single one from SQLite to etcd.
func (d Distribution) Join(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	var steps []runtime.Step
	if isServer(h) {
		steps = append(steps, runtime.Step{
			Name: "making the datastore one that control planes can share",
			Done: func(ctx context.Context) (bool, error) { return shared(ctx, c) },
			Do:   func(ctx context.Context, log io.Writer) error { return d.share(ctx, c, log) },
		})
	}
	steps = append(steps, runtime.Step{
		Name: "joining the cluster (k3s " + command(h) + ")",
		Done: func(ctx context.Context) (bool, error) { return d.joined(ctx, c, h) },
		Do:   func(ctx context.Context, log io.Writer) error { return d.join(ctx, c, h, log) },
	})
	if isServer(h) {
		steps = append(steps, runtime.RootKubeconfig(h, keptDir, kubeconfig))
	}
	return steps
}

// shared: the cluster's datastore is etcd, or an external one.
func shared(ctx context.Context, c *runtime.Cluster) (bool, error) {
	have, err := present(ctx, c.Server())
	if err != nil {
		return false, err
	}
	if have["datastore-endpoint"] != nil {
		return true, nil
	}
	return succeeds(ctx, c.Server(), "test", "-e", etcdData)
}

// share has k3s copy SQLite's data to etcd, which it does when it is started with cluster-init
// (docs.k3s.io/datastore/ha-embedded). There is no way back.
func (d Distribution) share(ctx context.Context, c *runtime.Cluster, log io.Writer) error {
	server := c.Server()
	have, err := present(ctx, server)
	if err != nil {
		return err
	}
	if have == nil {
		return fmt.Errorf("%s: it has no %s: run the cluster's image again first", server, configFile)
	}
	t, err := d.ownTokens(ctx, server, have)
	if err != nil {
		return err
	}
	have["cluster-init"] = true
	if err := write(ctx, server, have); err != nil {
		return err
	}
	return d.restart(ctx, server, log, secrets(c, t), func(ctx context.Context) (bool, error) {
		if moved, err := succeeds(ctx, server, "test", "-e", etcdData); err != nil || !moved {
			return false, err
		}
		return d.serves(ctx, server)
	})
}

// joined: the host runs with the settings that it should have, and the cluster has the node.
func (d Distribution) joined(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	have, err := present(ctx, h)
	if err != nil || have == nil {
		return false, err
	}
	want, _, err := d.joinSettings(ctx, c, h, have)
	if err != nil {
		return false, err
	}
	if same, err := written(ctx, h, want); err != nil || !same {
		return false, err
	}
	if fresh, err := runs(ctx, h); err != nil || !fresh {
		return false, err
	}
	return d.member(ctx, c, h)
}

// member: the cluster has the node, and a control plane serves.
func (d Distribution) member(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	if isServer(h) {
		if ready, err := d.apiReady(ctx, h); err != nil || !ready {
			return false, err
		}
	}
	return d.hasNode(ctx, c.Server(), h)
}

func (d Distribution) join(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	have, err := present(ctx, h)
	if err != nil {
		return err
	}
	begun, err := hasBegun(ctx, h)
	if err != nil {
		return err
	}
	if begun {
		if err := ownCluster(ctx, c, h); err != nil {
			return err
		}
	} else if err := d.forgetStale(ctx, c, h, log); err != nil {
		return err
	}
	want, t, err := d.joinSettings(ctx, c, h, have)
	if err != nil {
		return err
	}
	if err := write(ctx, h, want); err != nil {
		return err
	}
	return d.restart(ctx, h, log, secrets(c, t), func(ctx context.Context) (bool, error) { return d.member(ctx, c, h) })
}

// joinSettings are the host's, with what it takes from the control plane that it joins through.
func (d Distribution) joinSettings(ctx context.Context, c *runtime.Cluster, h *runtime.Host, have settings) (settings, tokens, error) {
	var t tokens
	server := c.Server()
	theirs, err := present(ctx, server)
	if err != nil {
		return nil, t, err
	}
	secure, err := readToken(ctx, server)
	if err != nil {
		return nil, t, fmt.Errorf("asking for the cluster's token: %w", err)
	}
	agent, _ := theirs["agent-token"].(string)
	if agent == "" {
		return nil, t, fmt.Errorf("%s: %s has no agent-token: run the cluster's image again first", server, configFile)
	}
	t = tokens{secure.whole, host.Secret(agent)}
	var want settings
	if isServer(h) {
		want = serverSettings(c, h, t, endpoint(c))
		if c.File.K3s == nil { // a cluster that is grown without its Clusterfile
			base := maps.Clone(theirs)
			maps.DeleteFunc(base, func(key string, _ any) bool { return own(key) })
			maps.Copy(base, want)
			want = base
		}
		want.take(theirs, append(append(critical(), external()...), "disable"))
		if theirs["datastore-endpoint"] != nil {
			delete(want, "server")
		}
	} else {
		want = agentSettings(c, h, host.Secret("K10"+secure.hash+"::node:"+agent))
	}
	up, err := wasUp(ctx, h)
	if err != nil || !up || have == nil {
		return want, t, err
	}
	if isServer(h) {
		return want, t, want.settle(c, h, have)
	}
	want.take(have, atFirstStart())
	return want, t, nil
}

// own are keys of one host, which another does not take over.
func own(key string) bool {
	switch key {
	case "token", "server", "cluster-init", "node-name", "node-ip", "advertise-address", "tls-san", "node-taint", "node-label":
		return true
	}
	return false
}

// hasBegun: k3s has run here in this role, and has been given credentials.
func hasBegun(ctx context.Context, h *runtime.Host) (bool, error) {
	mark := agentCert
	if isServer(h) {
		mark = serverToken
	}
	return succeeds(ctx, h, "test", "-e", mark)
}

// ownCluster refuses a host with the credentials of another cluster than the one that it would join.
func ownCluster(ctx context.Context, c *runtime.Cluster, h *runtime.Host) error {
	theirs, err := readToken(ctx, c.Server())
	if err != nil {
		return err
	}
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"sh", "-c", `[ ! -f "$1" ] || sha256sum <"$1"`, "sh", caOf(h)}})
	if err != nil {
		return err
	}
	if len(out) >= len(theirs.hash) && string(out[:len(theirs.hash)]) != theirs.hash {
		return &OtherClusterError{Host: h.String(), Server: c.Server().String()}
	}
	return nil
}

// caOf is the CA that the host's k3s holds the API server against.
func caOf(h *runtime.Host) string {
	if isServer(h) {
		return dataDir + "/server/tls/server-ca.crt"
	}
	return dataDir + "/agent/server-ca.crt"
}

// OtherClusterError is a host that is part of another cluster than the one that it is to join.
type OtherClusterError struct{ Host, Server string }

func (e *OtherClusterError) Error() string {
	return fmt.Sprintf("%s: its k3s has joined another cluster than that of %s", e.Host, e.Server)
}

// Hint says how it becomes free.
func (e *OtherClusterError) Hint() string {
	return "delete that cluster first: sealer delete --all, or use another host"
}

// forgetStale removes what the cluster knows of a node of this name, when the host itself knows nothing: its new
// password would be refused.
func (d Distribution) forgetStale(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	there, err := d.hasNode(ctx, c.Server(), h)
	if err != nil {
		return err
	}
	if there {
		_, _ = fmt.Fprintln(log, "an earlier node of this name is forgotten first")
		if err := d.deleteNode(ctx, c, h, log); err != nil {
			return err
		}
	}
	return d.deletePassword(ctx, c, h, log)
}
