// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// more adds hosts that the cluster does not have yet.
func (b *bed) more(role clusterfile.Role, addresses ...string) []clusterfile.Host {
	var list []clusterfile.Host
	for _, a := range addresses {
		m := clusterfile.Host{Address: a, Role: role}
		if b.hosts[a] == nil {
			b.hosts[a] = newFakeHost(m, fmt.Sprintf("h%d", len(b.hosts)+1))
		}
		list = append(list, m)
	}
	return list
}

func (b *bed) joinOptions(hosts []clusterfile.Host) cluster.JoinOptions {
	return cluster.JoinOptions{
		Name: "prod", Hosts: hosts, Content: b.opts.Content, Operator: b.opts.Operator,
		FindImage: func(_ context.Context, digest, name string) (*clusterimage.Image, string, error) {
			if digest != b.opts.Image.Descriptor.Digest.String() {
				return nil, "", fmt.Errorf("%s is another image", digest)
			}
			return b.opts.Image, name, nil
		},
	}
}

func (b *bed) join(t *testing.T, hosts []clusterfile.Host) error {
	t.Helper()
	b.out.Reset()
	return cluster.Join(t.Context(), b.joinOptions(hosts))
}

func (b *bed) kept(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(cluster.ClusterfilePath(b.opts.StateDir, "prod"))
	require.NoError(t, err)
	f, err := clusterfile.Parse("kept", data)
	require.NoError(t, err)
	var names []string
	for _, m := range f.Machines() {
		names = append(names, m.String())
	}
	return names
}

// newly is what changed each host since the marks were set.
func (b *bed) newly() func() map[string]string {
	before := map[string]int{}
	for name, h := range b.hosts {
		before[name] = len(h.did())
	}
	return func() map[string]string {
		lines := map[string]string{}
		for name, h := range b.hosts {
			lines[name] = strings.Join(h.did()[before[name]:], "\n")
		}
		return lines
	}
}

// Only the new hosts are installed, with what the cluster was made from; those that were there learn of new control planes.
func TestJoin(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	newly := b.newly()
	require.NoError(t, b.join(t, append(b.more(clusterfile.ControlPlane, "10.0.0.5"), b.more(clusterfile.Worker, "10.0.0.6")...)))
	require.Equal(t, "cluster \"prod\" runs on 6 hosts\n", b.out.String())
	did := newly()
	for _, name := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		require.NotContains(t, did[name], "dist ", name)
		require.NotContains(t, did[name], "echo done", name)
		require.NotContains(t, did[name], "content share", name)
	}
	require.Contains(t, did["10.0.0.5"], "dist install\ndist prefetch\ndist join")
	require.Contains(t, did["10.0.0.6"], "dist install\ndist prefetch\ndist join")
	require.Equal(t, b.hosts["10.0.0.1"].blobs, b.hosts["10.0.0.5"].blobs)
	require.Len(t, b.hosts["10.0.0.6"].blobs, 4)
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.3", "10.0.0.4", "10.0.0.6"}, b.kept(t))
	hosts := string(b.hosts["10.0.0.6"].Files()["/etc/hosts"].Data)
	require.Contains(t, hosts, "10.0.0.1 apiserver.cluster.local\n")
	for _, name := range []string{"10.0.0.1", "10.0.0.6"} {
		require.Contains(t, string(b.hosts[name].Files()["/etc/hosts"].Data), "10.0.0.5 sea.hub\n", name)
	}
	require.Contains(t, string(b.hosts["10.0.0.5"].Files()["/etc/hosts"].Data), "10.0.0.5 apiserver.cluster.local\n10.0.0.5 sea.hub\n")
	require.Equal(t, "v = 1\n", string(b.hosts["10.0.0.6"].Files()["/var/lib/sealer/node/rootfs/x/etc/x.toml.tmpl"].Data), "the Clusterfile's Config is known to the control planes")
	for _, c := range b.hosts["10.0.0.6"].Calls() {
		if strings.Contains(c.String(), "render") {
			require.Contains(t, string(c.Stdin), `"PLACE":"here"`)
		}
	}

	newly = b.newly()
	require.NoError(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.6")))
	require.NotContains(t, newly()["10.0.0.6"], "dist ")
}

// A host that was deleted may come back in another role, although control planes still remember it in the old one.
func TestJoin_InAnotherRole(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	delete(b.hosts, "10.0.0.4")
	require.NoError(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.4")))
	var state runtime.HostState
	require.NoError(t, json.Unmarshal(b.hosts["10.0.0.4"].Files()[runtime.StateFile].Data, &state))
	require.Equal(t, string(clusterfile.ControlPlane), state.Role)
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.3"}, b.kept(t))
}

// A host of the cluster that is gone does not stand in the way, the first control plane neither.
func TestJoin_WhileTheFirstIsLost(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	lost := &host.UnreachableError{Host: "10.0.0.1", Err: errors.New("no route to host")}
	b.hosts["10.0.0.1"].unreachable = lost
	newly := b.newly()
	require.NoError(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.5")))
	require.Equal(t, "cluster \"prod\" runs on 4 hosts\ncould not be reached, and are as they were: 10.0.0.1\n", b.out.String())
	did := newly()
	require.Contains(t, did["10.0.0.5"], "dist join")
	for name := range b.hosts {
		require.NotContains(t, did[name], "dist init", name)
		require.NotContains(t, did[name], "echo done", name)
	}
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.3", "10.0.0.4"}, b.kept(t), "it is still part of the cluster")

	// With nobody who answers nothing is done: the new host would found a cluster of its own.
	b.hosts["10.0.0.2"].On("get --raw /readyz", hosttest.Answer{Code: 1})
	b.hosts["10.0.0.5"].On("get --raw /readyz", hosttest.Answer{Code: 1})
	newly = b.newly()
	var none *cluster.NoContactError
	require.ErrorAs(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.7")), &none)
	require.Empty(t, newly()["10.0.0.7"])
}

func TestJoin_Refuses(t *testing.T) {
	b := newBed(t, three)
	var unknown *cluster.UnknownError
	require.ErrorAs(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.6")), &unknown)
	require.NoDirExists(t, b.opts.StateDir+"/prod")

	require.NoError(t, b.run(t))
	var role *cluster.RoleError
	require.ErrorAs(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.3")), &role)
	require.EqualError(t, role, "10.0.0.3 is a worker of the cluster, not a control-plane")

	b.more(clusterfile.Worker, "10.0.0.6")
	b.hosts["10.0.0.6"].unreachable = &host.UnreachableError{Host: "10.0.0.6", Err: errors.New("no route to host")}
	var connect *cluster.ConnectError
	require.ErrorAs(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.6")), &connect, "a new host has to be there")

	o := b.joinOptions(b.more(clusterfile.Worker, "10.0.0.7"))
	o.FindImage = func(context.Context, string, string) (*clusterimage.Image, string, error) {
		return nil, "", errors.New("it is not in the store")
	}
	newly := b.newly()
	require.EqualError(t, cluster.Join(t.Context(), o), "it is not in the store")
	require.Empty(t, newly()["10.0.0.7"])
}

// Run with more hosts grows the cluster as well; what it does not name stays.
func TestRun_Grows(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	f := *b.opts.Clusterfile
	f.Hosts = append(b.more(clusterfile.ControlPlane, "10.0.0.1"), b.more(clusterfile.Worker, "10.0.0.6")...)
	b.opts.Clusterfile = &f
	newly := b.newly()
	require.NoError(t, b.run(t))
	require.Contains(t, newly()["10.0.0.6"], "dist join")
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6"}, b.kept(t))
}

// balanced is a distribution whose workers reach the API servers through sealer's balancer.
type balanced struct{ distribution }

func (balanced) BalancedPort(*runtime.Cluster) int { return 6443 }

func TestRun_Balances(t *testing.T) {
	testBalances(t, three, "127.0.0.1 apiserver.cluster.local\n", "127.0.0.1:6443", "10.0.0.1:6443", "10.0.0.2:6443")
}

// On hosts that are known by IPv6 addresses it listens on their loopback address of that family.
func TestRun_BalancesIPv6(t *testing.T) {
	six := "spec:\n  hosts:\n  - {ips: [\"fd00::1-fd00::2\"], roles: [master]}\n  - {ips: [\"[fd00::3]\"], roles: [node]}\n"
	testBalances(t, six, "::1 apiserver.cluster.local\n", "[::1]:6443", "[fd00::1]:6443", "[fd00::2]:6443")
}

// With IPVS that is a virtual address, and control planes keep what the cluster was made with.
func TestRun_IPVS(t *testing.T) {
	spec := strings.Replace(three, "spec:\n", "spec:\n  controlPlaneEndpoint: {ipvs: true, ipvsAddress: 10.203.97.2}\n", 1)
	b := testBalances(t, spec, "10.203.97.2 apiserver.cluster.local\n", "10.203.97.2:6443", "10.0.0.1:6443", "10.0.0.2:6443")
	for _, e := range []clusterfile.Endpoint{{Balancer: true}, {IPVS: true}, {VIP: "10.0.0.100"}} {
		b.opts.Clusterfile.Endpoint = e
		err := b.run(t)
		var changed *cluster.EndpointChangeError
		require.ErrorAs(t, err, &changed)
		require.Equal(t, "ipvs 10.203.97.2", changed.Have)
	}
	b.opts.Clusterfile.Endpoint = clusterfile.Endpoint{}
	require.NoError(t, b.run(t))
}

func testBalances(t *testing.T, hosts, line, listen string, servers ...string) *bed {
	t.Helper()
	b := newBed(t, hosts)
	b.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	for _, h := range b.hosts {
		h.On("sealer-endpoint.service", hosttest.Answer{Code: 3})
	}
	require.NoError(t, b.run(t))
	for name, h := range b.hosts {
		var config struct {
			Listen  string
			Servers []string
			IPVS    bool
		}
		for _, c := range h.Calls() {
			if strings.Contains(c.String(), "endpoint install") {
				require.NoError(t, json.Unmarshal(c.Stdin, &config))
			}
		}
		if strings.HasSuffix(name, "1") || strings.HasSuffix(name, "2") {
			require.Empty(t, config.Listen, "control planes have an API server of their own")
			continue
		}
		require.Equal(t, listen, config.Listen)
		require.Equal(t, servers, config.Servers)
		require.Equal(t, b.opts.Clusterfile.Endpoint.IPVS, config.IPVS)
		require.Contains(t, string(h.Files()["/etc/hosts"].Data), line)
	}
	return b
}
