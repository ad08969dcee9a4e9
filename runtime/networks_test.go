// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime"
)

const (
	both4 = "10.244.0.0/16,fd00:10:244::/56"
	both6 = "fd00:10:244::/56,10.244.0.0/16"
	svc4  = "10.96.0.0/12,fd00:10:96::/112"
	svc6  = "fd00:10:96::/112,10.96.0.0/12"
)

// dual is a cluster whose hosts have addresses of both families on eth0.
func dual(t *testing.T) *runtime.Cluster {
	t.Helper()
	c := cluster(t)
	for _, h := range c.Hosts {
		own, other := h.Facts.Addresses[0], netip.MustParsePrefix("fd00::"+h.Spec.Address[len(h.Spec.Address)-1:]+"/64")
		pod := netip.MustParsePrefix("fd00:10:244::1/64")
		h.Facts.IPv6, h.Facts.Addresses = true, []netip.Prefix{pod, own, other}
		h.Facts.LinkOf = map[netip.Prefix]string{pod: "cni0", own: "eth0", other: "eth0"}
	}
	return c
}

func TestNetworkProblems(t *testing.T) {
	off := func(c *runtime.Cluster) { c.Hosts[1].Facts.IPv6 = false }
	six := func(c *runtime.Cluster) {
		for _, h := range c.Hosts {
			h.Spec.Address = "fd00::" + h.Spec.Address[len(h.Spec.Address)-1:]
		}
	}
	for name, c := range map[string]struct {
		pods, services string
		change         func(*runtime.Cluster)
		want           []string
	}{
		"IPv4":                 {pods: "10.244.0.0/16", services: "10.96.0.0/12", change: off},
		"IPv6":                 {pods: "fd00:10:244::/56", services: "fd00:10:96::/112", change: six},
		"dual":                 {pods: both4, services: svc4},
		"dual, IPv6 first":     {pods: both6, services: svc6, change: six},
		"nothing said of pods": {services: "10.96.0.0/12"},
		"no networks": {pods: "10.244.0.0", services: "10.96.0.0/12,x", want: []string{
			`the network "10.244.0.0" of the pods is no address with a length [network]`, `the network "x" of the services is no address with a length [network]`,
		}},
		"two of one family": {pods: "10.1.0.0/16,10.2.0.0/16", services: "10.96.0.0/12", want: []string{"the pods have the networks 10.1.0.0/16,10.2.0.0/16 [network]"}},
		"another order":     {pods: both4, services: svc6, want: []string{"the pods have IPv4 first (" + both4 + "), the services IPv6 (" + svc6 + ") [network]"}},
		"other families":    {pods: both4, services: "10.96.0.0/12", want: []string{"the pods have IPv4 and IPv6 (" + both4 + "), the services IPv4 (10.96.0.0/12) [network]"}},
		"not the hosts'": {pods: "fd00:10:244::/56", services: "fd00:10:96::/112", want: []string{
			"the hosts have IPv4 addresses (10.0.0.1), and IPv6 comes first among the networks of the pods (fd00:10:244::/56) [network]",
		}},
		"not the hosts' order": {pods: both6, services: svc6, want: []string{
			"the hosts have IPv4 addresses (10.0.0.1), and IPv6 comes first among the networks of the pods (" + both6 + ") [network]",
		}},
		"overlap":        {pods: "10.96.0.0/16", services: "10.96.0.0/12", want: []string{"the network 10.96.0.0/12 of the services and 10.96.0.0/16 of the pods overlap [network]"}},
		"many services":  {pods: "10.244.0.0/16", services: "10.96.0.0/11", want: []string{"the network 10.96.0.0/11 of the services is too large [network]"}},
		"many services6": {pods: "fd00:10:244::/56", services: "fd00:10:96::/64", change: six, want: []string{"the network fd00:10:96::/64 of the services is too large [network]"}},
		"few pods":       {pods: "fd00:10:244::/65", services: "fd00:10:96::/112", change: six, want: []string{"of the network fd00:10:244::/65 of the pods, nodes cannot get a /64 each [network]"}},
		"many pods":      {pods: "fd00:10:244::/47", services: "fd01:10:96::/112", change: six, want: []string{"of the network fd00:10:244::/47 of the pods, nodes cannot get a /64 each [network]"}},
		"a host in it": {pods: "10.0.0.0/16", services: "10.96.0.0/12", want: []string{
			"10.0.0.1: 10.0.0.1 lies in the network 10.0.0.0/16 of pods or services [network]", "10.0.0.2: 10.0.0.2 lies in the network 10.0.0.0/16 of pods or services [network]",
			"10.0.0.3: 10.0.0.3 lies in the network 10.0.0.0/16 of pods or services [network]",
		}},
		"mixed hosts": {
			pods: "10.244.0.0/16", services: "10.96.0.0/12", change: func(c *runtime.Cluster) { c.Hosts[2].Spec.Address = "fd00::3" },
			want: []string{"10.0.0.3: fd00::3 is no IPv4 address as that of 10.0.0.1 is [address]"},
		},
		"IPv6 is off": {pods: both4, services: svc4, change: off, want: []string{"10.0.0.2: IPv6 is off on it [ipv6]"}},
		"one address": {
			pods: both4, services: svc4, change: func(c *runtime.Cluster) { c.Hosts[2].Facts.Addresses = c.Hosts[2].Facts.Addresses[:2] },
			want: []string{"10.0.0.3: it has no IPv6 address beside 10.0.0.3 on its interface, and pods and services have both families [address]"},
		},
		"named, not there": {
			pods: both4, services: svc4, change: func(c *runtime.Cluster) { c.Hosts[0].Spec.Env = map[string]string{"SecondIP": "fd00::9"} },
			want: []string{"10.0.0.1: SecondIP fd00::9 is on none of its interfaces [address]"},
		},
		"named, of one family": {
			pods: both4, services: svc4, change: func(c *runtime.Cluster) { c.Hosts[0].Spec.Env = map[string]string{"SecondIP": "10.0.0.1"} },
			want: []string{`10.0.0.1: SecondIP "10.0.0.1" is no IPv6 address [address]`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cl := dual(t)
			if c.change != nil {
				c.change(cl)
			}
			var got []string
			for _, p := range runtime.NetworkProblems(cl, runtime.Networks{Pods: c.pods, Services: c.services}, 64) {
				require.NotEmpty(t, p.Fix)
				got = append(got, p.String())
			}
			require.Equal(t, c.want, got)
		})
	}
}

// The second address is that beside the first one, unless the host says another, and the one it was installed with afterwards.
func TestCluster_SecondIP(t *testing.T) {
	c := dual(t)
	h := c.Hosts[0]
	n := runtime.Networks{Pods: both4, Services: svc4}
	require.Equal(t, []string{"10.0.0.1", "fd00::1"}, c.NodeIPs(h, n))
	require.Equal(t, []string{"10.0.0.1"}, c.NodeIPs(h, runtime.Networks{Pods: "10.244.0.0/16"}), "nobody asked for it")
	h.Spec.Address = "fd00::1"
	require.Equal(t, []string{"fd00::1", "10.0.0.1"}, c.NodeIPs(h, runtime.Networks{Pods: both6}))
	require.Equal(t, "::1", h.Loopback())
	h.Facts.State = &runtime.HostState{SecondAddress: "10.0.0.9"}
	require.Equal(t, "10.0.0.9", c.SecondIP(h))
	h.Spec.Env = map[string]string{"SecondIP": "10.0.0.8"}
	require.Equal(t, "10.0.0.8", c.SecondIP(h))
}
