// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// addressed is a distribution that leaves carrying a virtual address to sealer.
type addressed struct{ distribution }

func (addressed) APIPort(*runtime.Cluster) int      { return 6443 }
func (addressed) StaticPods() string                { return "/etc/kubernetes/manifests" }
func (addressed) VirtualAddressPrograms() []string  { return []string{"keepalived", "kube-vip"} }
func (addressed) BalancedPort(*runtime.Cluster) int { return 0 }

const (
	carrier  = "registry.example.com/net/keepalived:2.2.7"
	confFile = "/var/lib/sealer/vip/keepalived.conf"
	podFile  = "/etc/kubernetes/manifests/sealer-vip.yaml"
)

// endpointBed is three control planes and a worker; what the endpoint leads to answers as it should.
func endpointBed(t *testing.T, endpoint string) *bed {
	t.Helper()
	b := newBedWith(t, `spec:
  controlPlaneEndpoint: `+endpoint+`
  hosts:
  - {ips: [10.0.0.1-10.0.0.3], roles: [master]}
  - {ips: [10.0.0.4], roles: [node]}
`, clusterimage.Extension{}, nil, "rootfs", carrier)
	b.opts.Distributions = runtime.Distributions{"fake": addressed{}}
	for _, h := range b.hosts {
		b.reached(h)
	}
	return b
}

func (b *bed) reached(h *fakeHost) {
	h.Put("/admin.conf", "clusters: [{cluster: {certificate-authority-data: "+base64.StdEncoding.EncodeToString([]byte("the CA"))+"}}]\n", 0o600)
	h.On("endpoint reach", hosttest.Answer{Stdout: `{}`})
	h.On("^test -e /var/lib/sealer/vip", hosttest.Answer{})
}

func (b *bed) file(t *testing.T, host, path string) string {
	t.Helper()
	f, ok := b.hosts[host].Files()[path]
	require.True(t, ok, "%s has %s", host, path)
	return string(f.Data)
}

// ends are the ends of what changed the host, in order: arguments stand behind long scripts.
func (b *bed) ends(host string) string {
	var list []string
	for _, c := range b.hosts[host].Calls() {
		if c.Mutates {
			list = append(list, strings.Join(c.Argv[max(0, len(c.Argv)-4):], " "))
		}
	}
	return strings.Join(list, "\n")
}

func TestEndpoint_VIP(t *testing.T) {
	b := endpointBed(t, "{vip: 10.0.0.100}")
	require.NoError(t, b.run(t))
	password := b.file(t, "10.0.0.1", "/var/lib/sealer/vip/password")
	require.Len(t, strings.TrimSpace(password), 8)
	for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		require.Equal(t, "-rw-------", b.hosts[ip].Files()[confFile].Mode.String())
		conf := b.file(t, ip, confFile)
		require.Contains(t, conf, "auth_pass "+password)
		require.Contains(t, conf, "unicast_src_ip "+ip+"\n")
		for _, peer := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
			require.Equal(t, peer != ip, strings.Contains(conf, "\t\t"+peer+"\n"), "%s and its peer %s", ip, peer)
		}
		require.Contains(t, conf, "10.0.0.100/32 dev eth0\n")
		require.Contains(t, b.file(t, ip, podFile), "image: "+carrier+"\n")
		require.NotContains(t, b.file(t, ip, podFile), strings.TrimSpace(password))
		require.Contains(t, b.file(t, ip, "/etc/hosts"), ip+" apiserver.cluster.local\n")
	}
	require.Contains(t, b.file(t, "10.0.0.4", "/etc/hosts"), "10.0.0.100 apiserver.cluster.local\n")
	require.NotContains(t, b.hosts["10.0.0.4"].Files(), confFile)
	for _, h := range b.hosts {
		for _, c := range h.Calls() {
			require.NotContains(t, strings.Join(c.Argv, " "), strings.TrimSpace(password))
		}
	}

	t.Run("again, without saying it", func(t *testing.T) {
		b.opts.Clusterfile.Endpoint = clusterfile.Endpoint{}
		require.NoError(t, b.run(t))
		require.Contains(t, b.out.String(), "nothing to change")
	})
	t.Run("another one is refused", func(t *testing.T) {
		for _, e := range []clusterfile.Endpoint{{Balancer: true}, {VIP: "10.0.0.101"}, {External: "k8s.example.com"}} {
			b.opts.Clusterfile.Endpoint = e
			err := b.run(t)
			var changed *cluster.EndpointChangeError
			require.ErrorAs(t, err, &changed)
			require.Equal(t, "vip 10.0.0.100", changed.Have)
		}
		b.opts.Clusterfile.Endpoint = clusterfile.Endpoint{}
	})
	t.Run("a control plane joins", func(t *testing.T) {
		list := b.more(clusterfile.ControlPlane, "10.0.0.5")
		b.reached(b.hosts["10.0.0.5"])
		require.NoError(t, b.join(t, list))
		require.Contains(t, b.file(t, "10.0.0.1", confFile), "\t\t10.0.0.5\n")
		require.Contains(t, b.file(t, "10.0.0.5", confFile), "auth_pass "+password)
		require.Contains(t, b.ends("10.0.0.1"), "sh HUP "+confFile, "what runs takes up its new configuration")
	})
	t.Run("and leaves", func(t *testing.T) {
		require.NoError(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.5")))
		require.NotContains(t, b.file(t, "10.0.0.1", confFile), "10.0.0.5")
		require.Contains(t, b.file(t, "10.0.0.1", podFile), "image: "+carrier+"\n")
		did := b.ends("10.0.0.5")
		given, reset, taken := strings.Index(did, podFile+" "+confFile+" /var/lib/sealer/vip runs()"), strings.Index(did, "dist reset"), strings.LastIndex(did, "sh /var/lib/sealer/vip\n")
		require.Positive(t, given)
		require.Greater(t, reset, given, "the address is given up before the pods go")
		require.Greater(t, taken, reset, "what is left of it is taken away after")
	})
}

func TestEndpoint_AddressInUse(t *testing.T) {
	b := endpointBed(t, "{vip: 10.0.0.100}")
	b.hosts["10.0.0.1"].On("(?s)neigh show.* sh 10.0.0.100 6443$", hosttest.Answer{Stdout: "it answers pings\n"})
	err := b.run(t)
	var taken *cluster.AddressTakenError
	require.ErrorAs(t, err, &taken)
	require.EqualError(t, err, "the virtual address 10.0.0.100 is in use, as seen from 10.0.0.1: it answers pings; nothing was touched")
	for _, h := range b.hosts {
		require.Empty(t, h.did())
	}
}

func TestEndpoint_External(t *testing.T) {
	b := endpointBed(t, "{external: \"k8s.example.com:443\"}")
	for ip, h := range b.hosts {
		h.On("getent ahosts.* sh k8s.example.com$", hosttest.Answer{Code: map[bool]int{true: 0, false: 1}[ip == "10.0.0.4"]}) // 0: it has none
	}
	err := b.run(t)
	require.EqualError(t, err, "the external endpoint's name k8s.example.com has no address on 10.0.0.4; nothing was touched")

	b = endpointBed(t, "{external: \"10.0.0.9:443\"}")
	b.hosts["10.0.0.4"].On("endpoint reach", hosttest.Answer{Stdout: `{"obstacle":"foreign","why":"it is another's"}`})
	err = b.run(t)
	var unreached *cluster.UnreachedError
	require.ErrorAs(t, err, &unreached)
	require.ErrorContains(t, err, "10.0.0.4: the endpoint 10.0.0.9:443 does not lead to the API servers of this cluster: it is another's")
	require.Contains(t, unreached.Hint(), "point the balancer at this cluster's control planes, 10.0.0.1, 10.0.0.2, 10.0.0.3")
	require.NotContains(t, strings.Join(b.hosts["10.0.0.4"].did(), "\n"), "dist join")

	b.hosts["10.0.0.4"].On("endpoint reach", hosttest.Answer{Stdout: `{}`})
	require.NoError(t, b.run(t))
	require.NotContains(t, b.hosts["10.0.0.1"].Files(), confFile)
}
