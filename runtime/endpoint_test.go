// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k3s"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

// addressed has three control planes with two interfaces each.
func addressed(t *testing.T, e clusterfile.Endpoint) *runtime.Cluster {
	t.Helper()
	c := cluster(t)
	c.File.Endpoint = e
	c.Images = append(slices.Clone(images), "registry.example.com/net/keepalived:2.2.7")
	for _, h := range c.Hosts {
		storage := netip.PrefixFrom(netip.MustParseAddr("172.16.0."+h.IP()[len(h.IP())-1:]), 24)
		h.Facts.Links = []string{"lo", "eth0", "eth1", "eth2"}
		h.Facts.LinkOf = map[netip.Prefix]string{h.Facts.Addresses[0]: "eth0", storage: "eth1"}
		h.Facts.Addresses = append(h.Facts.Addresses, storage)
	}
	return c
}

func TestVirtualLink(t *testing.T) {
	for name, c := range map[string]struct {
		e    clusterfile.Endpoint
		link string
		bits int
	}{
		"its network":             {clusterfile.Endpoint{VIP: "10.0.0.100"}, "eth0", 24},
		"another network":         {clusterfile.Endpoint{VIP: "172.16.0.100"}, "eth1", 24},
		"no network":              {clusterfile.Endpoint{VIP: "192.168.7.7"}, "", 32},
		"no network, but a link":  {clusterfile.Endpoint{VIP: "192.168.7.7", Interface: "eth2"}, "eth2", 32},
		"its network, other link": {clusterfile.Endpoint{VIP: "10.0.0.100", Interface: "eth1"}, "eth1", 32},
		"a link that is not":      {clusterfile.Endpoint{VIP: "10.0.0.100", Interface: "bond0"}, "", 32},
	} {
		link, bits := runtime.VirtualLink(c.e, addressed(t, c.e).First())
		require.Equal(t, c.link, link, name)
		require.Equal(t, c.bits, bits, name)
	}
}

func TestPreflight_IPVS(t *testing.T) {
	const good = ""
	for name, c := range map[string]struct {
		e      clusterfile.Endpoint
		change func(*runtime.Cluster)
		want   string
	}{
		"good":              {clusterfile.Endpoint{IPVS: true}, nil, good},
		"an address":        {clusterfile.Endpoint{IPVS: true, IPVSAddress: "10.203.97.2"}, nil, good},
		"in the services'":  {clusterfile.Endpoint{IPVS: true, IPVSAddress: "10.103.97.2"}, nil, "the virtual address 10.103.97.2 of IPVS lies in the network 10.96.0.0/12 of the services [endpoint]"},
		"in the pods'":      {clusterfile.Endpoint{IPVS: true, IPVSAddress: "10.244.1.2"}, nil, "lies in the network 10.244.0.0/16 of the pods [endpoint]"},
		"in a host's":       {clusterfile.Endpoint{IPVS: true, IPVSAddress: "172.16.0.9"}, nil, "10.0.0.1: the virtual address 172.16.0.9 of IPVS lies in its network 172.16.0.0/24 [endpoint]"},
		"another family":    {clusterfile.Endpoint{IPVS: true, IPVSAddress: "fd00:7::1"}, nil, "10.0.0.1: it is 10.0.0.1, and the virtual address fd00:7::1 of IPVS is of another family [endpoint]"},
		"a kernel without":  {clusterfile.Endpoint{IPVS: true}, func(c *runtime.Cluster) { c.Hosts[3].Facts.IPVS = false }, "its kernel 6.1.0-13-amd64 has no IPVS: there are no modules ip_vs and ip_vs_rr [ipvs]"},
		"a control plane's": {clusterfile.Endpoint{IPVS: true}, func(c *runtime.Cluster) { c.Hosts[0].Facts.IPVS = false }, good},
		"nobody asks":       {clusterfile.Endpoint{Balancer: true}, func(c *runtime.Cluster) { c.Hosts[3].Facts.IPVS = false }, good},
	} {
		t.Run(name, func(t *testing.T) {
			cl := addressed(t, c.e)
			worker := *cl.Hosts[2]
			worker.Spec.Address, worker.Spec.Role = "10.0.0.4", clusterfile.Worker
			worker.Facts.Hostname, worker.Facts.MachineID = "w4", "4"
			worker.Facts.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.4/24")}
			worker.Facts.Kernel = "6.1.0-13-amd64"
			cl.Hosts = append(cl.Hosts, &worker)
			for _, h := range cl.Hosts {
				h.Facts.IPVS = true
			}
			if c.change != nil {
				c.change(cl)
			}
			err := runtime.Preflight(cl, kubernetes.New(), all(), "id")
			if c.want == good {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	cl := addressed(t, clusterfile.Endpoint{IPVS: true})
	err := runtime.Preflight(cl, k3s.New(), all(), "id")
	require.ErrorContains(t, err, "k3s has balancers of its own on its nodes, and no place for IPVS rules of sealer's [endpoint]")
	var problems *runtime.PreflightError
	require.ErrorAs(t, err, &problems)
	require.Contains(t, problems.Hint(), "leave ipvs out: controlPlaneEndpoint: {balancer: true}")
}

func TestPreflight_Endpoint(t *testing.T) {
	for name, c := range map[string]struct {
		e      clusterfile.Endpoint
		change func(*runtime.Cluster)
		want   string
	}{
		"good":           {clusterfile.Endpoint{VIP: "10.0.0.100"}, nil, ""},
		"external":       {clusterfile.Endpoint{External: "k8s.example.com"}, func(c *runtime.Cluster) { c.Images = images }, ""},
		"not packed":     {clusterfile.Endpoint{VIP: "10.0.0.100"}, func(c *runtime.Cluster) { c.Images = images }, "the image packs nothing that carries the virtual address 10.0.0.100"},
		"a host's":       {clusterfile.Endpoint{VIP: "10.0.0.2"}, nil, "10.0.0.2: the virtual address 10.0.0.2 is its own [endpoint]"},
		"no network":     {clusterfile.Endpoint{VIP: "192.168.7.7"}, nil, "10.0.0.1: none of its interfaces has a network with the virtual address 192.168.7.7 [endpoint]"},
		"no such link":   {clusterfile.Endpoint{VIP: "10.0.0.100", Interface: "bond0"}, nil, "10.0.0.1: it has no interface bond0 for the virtual address [endpoint]"},
		"another family": {clusterfile.Endpoint{VIP: "fd00::64", Interface: "eth0"}, nil, "is of another family"},
		"stands on one": {clusterfile.Endpoint{VIP: "10.0.0.100"}, func(c *runtime.Cluster) {
			c.Hosts[1].Facts.Addresses = append(c.Hosts[1].Facts.Addresses, netip.MustParsePrefix("10.0.0.100/32"))
		}, "10.0.0.2: the virtual address 10.0.0.100 stands on one of its interfaces already"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := addressed(t, c.e)
			if c.change != nil {
				c.change(cl)
			}
			err := runtime.Preflight(cl, kubernetes.New(), all(), "id")
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}
