// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
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
