//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
	"github.com/sealerio/sealer/test/testregistry"
)

// moving is a real cluster of three control planes and two workers whose endpoint and whose registry become others while it runs.
type moving struct {
	*virtual
	file, text string // the Clusterfile, and its other documents
	image      string
	reg        *testregistry.Registry
	front      string // host:port of a balancer of the user's own
}

// newFront is a balancer of the user's own before the API servers of hosts, on the hosts' network, until the test ends: sealer-node's, as a
// process of this machine. It does what such balancers do: asks its servers whether they are ready, and cuts connections to those that are not.
func newFront(t *testing.T, l *lab.Lab, servers ...hosts.Host) (listens string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(l.Hosts.Gateway.String(), "0"))
	require.NoError(t, err)
	listens = ln.Addr().String()
	require.NoError(t, ln.Close())
	config := map[string]any{"listen": listens}
	var list []string
	for _, h := range servers {
		list = append(list, net.JoinHostPort(h.Address.String(), "6443"))
	}
	config["servers"] = list
	data, err := json.Marshal(config)
	require.NoError(t, err)
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "endpoint"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "endpoint", "config.json"), data, 0o600))
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(l.Source, "bin", "sealer-node"), "--root", root, "endpoint", "serve")
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait(), "it goes on until it is killed")
	})
	require.NoError(t, lab.Poll(t.Context(), 20*time.Second, func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", listens)
		if err != nil {
			return err
		}
		return conn.Close()
	}))
	return listens
}

// write writes the Clusterfile with an endpoint, and with the registry of the user's own or without.
func (m *moving) write(t *testing.T, endpoint string, external bool) {
	t.Helper()
	spec := fmt.Sprintf("spec:\n  ssh: {pk: %s}\n  hosts:\n  - {ips: [%s, third.corp.example], roles: [master]}\n  - {ips: [%s], roles: [node]}\n"+
		"  hostAliases: [{ip: %s, hostnames: [hub.corp.example, api.corp.example]}, {ip: %s, hostnames: [third.corp.example]}]\n  controlPlaneEndpoint: {%s}\n",
		m.lab.Hosts.KeyFile, addresses(m.h[:2]...), addresses(m.h[3:]...), m.lab.Hosts.Gateway, m.h[2].Address, endpoint)
	if external {
		_, port, err := net.SplitHostPort(m.reg.Address)
		require.NoError(t, err)
		spec += fmt.Sprintf("  registry:\n    externalRegistry: {domain: hub.corp.example, port: %s, path: mirror/all, username: robot, password: \"env:CORP_PASSWORD\", ca: \"file:%s\"}\n",
			port, m.reg.CAFile)
	}
	require.NoError(t, os.WriteFile(m.file, []byte(strings.Replace(m.text, "spec:\n", spec, 1)), 0o600))
}

// external is the endpoint of the user's own balancer, by a name that only the Clusterfile knows.
func (m *moving) external(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(m.front)
	require.NoError(t, err)
	return "api.corp.example:" + port
}

func (m *moving) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.reg.AccessLog)
	require.NoError(t, err)
	return string(text)
}

// well requires of status that all is as it should be, and what the endpoint is.
func (m *moving) well(t *testing.T, endpoint string) {
	t.Helper()
	var status struct {
		Endpoint      string
		Unwell, Drift []string
	}
	require.NoError(t, json.Unmarshal([]byte(m.sealer(t, m.args("status", "-o", "json")...)), &status))
	require.Equal(t, endpoint, status.Endpoint)
	require.Empty(t, status.Unwell)
	require.Empty(t, status.Drift)
	require.Contains(t, m.sealer(t, m.args("kubeconfig")...), "server: https://"+endpoint+"\n")
}

// hangs has a control plane say nothing any more, without closing a connection. Workers and users find another one by the balancer, and
// no node is missed.
func (m *moving) hangs(t *testing.T) {
	m.well(t, m.external(t))
	worker, other := m.h[3], m.h[1]
	require.Contains(t, m.exec(t, worker, "cat", "/etc/kubernetes/kubelet.conf"), "server: https://"+m.external(t)+"\n")
	require.Contains(t, m.on(t, other, "--namespace", "kube-system", "get", "configmap", "kube-proxy", "-o", "yaml"), "server: https://"+m.external(t)+"\n")
	config := m.sealer(t, m.args("kubeconfig")...)
	require.NoError(t, worker.Pipe(t.Context(), strings.NewReader(config), nil, os.Stderr, "sh", "-c", "umask 077; cat >/run/users.conf"))
	began := time.Now()
	require.NoError(t, m.h[0].Pause(t.Context()))
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			require.NoError(t, m.h[0].Resume(context.WithoutCancel(t.Context())))
		}
	}
	defer resume()
	require.NoError(t, lab.Poll(t.Context(), time.Minute, func(ctx context.Context) error {
		out, err := worker.Exec(ctx, "kubectl", "--kubeconfig", "/run/users.conf", "--cache-dir", "/run/users-cache", "get", "nodes", "--request-timeout", "5s")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}))
	t.Logf("kubectl goes on %s after %s has stopped to answer", time.Since(began).Round(100*time.Millisecond), m.h[0].Name)
	for _, w := range m.h[3:] {
		require.NoError(t, lab.Poll(t.Context(), time.Minute, func(ctx context.Context) error {
			at, err := m.renewed(ctx, other, w)
			if err == nil && !at.After(began) {
				err = fmt.Errorf("%s has not been heard of since %s", w, at)
			}
			return err
		}))
	}
	t.Logf("both workers were heard of %s after it", time.Since(began).Round(100*time.Millisecond))
	resume()
	m.exec(t, worker, "rm", "-rf", "/run/users.conf", "/run/users-cache")
	m.eventuallyReady(t, m.h[0], len(m.h))
	require.NoError(t, lab.Poll(t.Context(), time.Minute, func(ctx context.Context) error {
		_, err := m.h[0].Exec(ctx, append(append([]string{}, m.kubectl...), "get", "--raw", "/readyz")...)
		return err
	}))
}

// moves gives the API servers an address of the control planes' own, and has the control planes serve the images, in one go; then another
// address, and the images come from the other registry again.
func (m *moving) moves(t *testing.T) {
	m.write(t, "vip: "+m.address.String(), false)
	m.refused(t, []string{"run", m.image, "-f", m.file}, "only sealer apply makes it", "nothing was touched")
	out, err := m.lab.Run(t.Context(), m.site, "status", "-f", m.file, "-o", "json")
	require.Error(t, err, "it is not so yet")
	require.Contains(t, out, "the endpoint is external "+m.external(t)+", not vip "+m.address.String())
	apply := []string{"apply", "-f", m.file, "--yes"}
	plan := m.sealer(t, apply...)
	require.Contains(t, plan, "~ endpoint: external "+m.external(t)+" → vip "+m.address.String())
	require.Contains(t, plan, "~ registry: hub.corp.example:")
	require.Contains(t, m.sealer(t, apply...), "nothing to do")
	m.ready(t, m.h...)
	m.well(t, m.address.String()+":6443")
	require.Len(t, m.holders(t, m.h...), 1)
	for _, w := range m.h[3:] {
		require.Contains(t, m.exec(t, w, "cat", "/etc/kubernetes/kubelet.conf"), "server: https://apiserver.cluster.local:6443\n")
		require.Contains(t, m.exec(t, w, "cat", "/etc/hosts"), m.address.String()+" apiserver.cluster.local\n")
	}
	for _, cm := range [][2]string{{"kube-system", "kube-proxy"}, {"kube-system", "kubeadm-config"}, {"kube-public", "cluster-info"}} {
		require.NotContains(t, m.on(t, m.h[0], "--namespace", cm[0], "get", "configmap", cm[1], "-o", "jsonpath={.data}"), m.external(t))
	}
	before := m.log(t)
	for _, h := range m.h {
		m.pulls(t, h)
	}
	require.Equal(t, before, m.log(t), "the other registry is asked no more")
	m.exec(t, m.h[0], "systemctl", "is-active", "sealer-registry.service")

	was := m.address
	m.address = was.Next()
	m.write(t, "vip: "+m.address.String()+", interface: "+apartLink, true) // by which control planes do not hear one another
	plan = m.sealer(t, apply...)
	require.Contains(t, plan, "~ endpoint: vip "+was.String()+" → vip "+m.address.String())
	require.Contains(t, plan, "~ registry: sea.hub:5000 → hub.corp.example:")
	require.Contains(t, m.sealer(t, apply...), "nothing to do")
	m.ready(t, m.h...)
	m.well(t, m.address.String()+":6443")
	require.NoError(t, m.ask(t.Context()))
	require.Len(t, m.holders(t, m.h...), 1)
	require.Contains(t, m.exec(t, m.holders(t, m.h...)[0], "ip", "-o", "addr", "show", "dev", apartLink), " "+m.address.String()+"/")
	for _, h := range m.h {
		require.NotContains(t, m.exec(t, h, "ip", "-o", "addr", "show"), " "+was.String()+"/")
		require.NotContains(t, m.exec(t, h, "cat", "/etc/hosts"), was.String())
	}
	before = m.log(t)
	for _, h := range m.h {
		m.pulls(t, h)
		_, err := h.Exec(t.Context(), "systemctl", "is-active", "sealer-registry.service")
		require.Error(t, err, "no registry of the cluster's own")
	}
	require.Contains(t, strings.TrimPrefix(m.log(t), before), "GET /v2/mirror/all/docker.io/sealer-test/multi/manifests/")
}
