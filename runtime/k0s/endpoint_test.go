// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
)

// k0s has words of its own for both kinds of endpoint, and a keepalived of its own.
func TestConfig_Endpoint(t *testing.T) {
	for name, e := range map[string]clusterfile.Endpoint{
		"endpoint-vip": {VIP: "10.0.0.100"}, "endpoint-vip-on": {VIP: "10.0.0.100/28", Interface: "bond0"}, "endpoint-external": {External: "k8s.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, runners := newCluster(t, latest, twoAndOne, "")
			cl.File.Endpoint, cl.AddressPassword = e, "0123abcd"
			for _, h := range cl.Hosts {
				p := netip.MustParsePrefix(h.IP() + "/24")
				h.Facts.Addresses, h.Facts.LinkOf = []netip.Prefix{p}, map[netip.Prefix]string{p: "eth0"}
				h.Facts.Links = []string{"eth0", "bond0"}
			}
			run(0, quick().Init)(t, cl, play(t, cl, runners))
			golden(t, "testdata/config/"+name+".yaml", string(runners[0].Files()["/etc/k0s/k0s.yaml"].Data))
		})
	}
}

func TestCheck_Endpoint(t *testing.T) {
	for name, c := range map[string]struct {
		e         clusterfile.Endpoint
		documents string
		want      string
	}{
		"vip":          {clusterfile.Endpoint{VIP: "10.0.0.100"}, "", ""},
		"external":     {clusterfile.Endpoint{External: "k8s.example.com:6443"}, "", ""},
		"another port": {clusterfile.Endpoint{External: "k8s.example.com:443"}, "", "k0s reaches it at the port of its API servers alone, 6443 [endpoint]"},
		"two": {clusterfile.Endpoint{VIP: "10.0.0.100"}, clusterDoc + "spec:\n  api: {externalAddress: k8s.example.com}\n",
			"its Cluster has a controlPlaneEndpoint, and its ClusterConfig another one [endpoint]"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, _ := newCluster(t, latest, twoAndOne, c.documents)
			cl.File.Endpoint, cl.AddressPassword = c.e, "0123abcd"
			var found []string
			for _, p := range quick().Check(cl) {
				if p.Check == "endpoint" || p.Check == "settings" {
					found = append(found, p.String())
				}
			}
			require.Contains(t, strings.Join(found, "\n"), c.want)
			if c.want == "" {
				require.Empty(t, found)
			}
		})
	}
	_, bits := runtime.VirtualLink(clusterfile.Endpoint{VIP: "10.0.0.100"}, &runtime.Host{})
	require.Equal(t, 32, bits)
}

// k0s gets and loses a virtual address; what nodes have joined by stays.
func TestStuck(t *testing.T) {
	d := k0s.New()
	balancer, vip, external := clusterfile.Endpoint{Balancer: true}, clusterfile.Endpoint{VIP: "10.0.0.100"}, clusterfile.Endpoint{External: "k8s.example.com"}
	require.Empty(t, d.Stuck(nil, balancer, vip))
	require.Empty(t, d.Stuck(nil, vip, balancer))
	require.Contains(t, d.Stuck(nil, balancer, external), "sealer cert --alt-names k8s.example.com")
	require.Contains(t, d.Stuck(nil, external, vip), "make that name lead elsewhere")
	require.Contains(t, d.Stuck(nil, vip, clusterfile.Endpoint{VIP: "10.0.0.101"}), "apply {balancer: true} first")
}
