// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

const (
	hosts6 = "  - {ips: [\"fd00::1\", \"fd00::2\"], roles: [master]}\n  - {ips: [\"fd00::3\"], roles: [node]}\n"
	hosts4 = "  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}\n  - {ips: [10.0.0.3], roles: [node]}\n"
)

// dual gives every host the address of the other family that ends as its own does.
func dual(c *runtime.Cluster) {
	for _, h := range c.Hosts {
		h.Facts.IPv6 = true
		last := h.Spec.Address[len(h.Spec.Address)-1:]
		other := "fd00::" + last + "/64"
		if strings.Contains(h.Spec.Address, ":") {
			other = "10.0.0." + last + "/24"
		}
		h.Facts.Addresses = append(h.Facts.Addresses, netip.MustParsePrefix(other))
	}
}

// What kubeadm gets where there is IPv6: alone, behind IPv4 and before it.
func TestConfig_IPv6(t *testing.T) {
	caPEM, hash := ca(t)
	for name, c := range map[string]struct {
		hosts, documents string
		env              map[string]string
	}{
		"ipv6":  {hosts: hosts6},
		"dual":  {hosts: hosts4, env: map[string]string{"PodCIDR": "10.244.0.0/16,fd00:10:244::/56"}},
		"dual6": {hosts: hosts6, documents: "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking: {podSubnet: \"fd00:1::/56,10.1.0.0/16\"}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newClusterOn(t, "v1.36.3", c.hosts, c.documents)
			cl.Env = c.env
			dual(cl)
			for _, p := range kubernetes.New().Check(cl) {
				require.NotContains(t, []string{"address", "network", "ipv6"}, p.Check, p)
			}
			onNewHost(hosts[0])
			_, err := do(t, kubernetes.New().Init(cl, cl.Hosts[0]))
			require.NoError(t, err)
			golden(t, "testdata/"+name+"/init.yaml", string(hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"].Data))
			hosts[0].Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
			for i, file := range []string{1: "join-control-plane.yaml", 2: "join-worker.yaml"} {
				if file == "" {
					continue
				}
				onNewHost(hosts[i])
				_, err := do(t, kubernetes.New().Join(cl, cl.Hosts[i]))
				require.NoError(t, err)
				text := strings.ReplaceAll(string(hosts[i].Files()["/etc/kubernetes/kubeadm-join.yaml"].Data), hash, "sha256:HASH")
				golden(t, "testdata/"+name+"/"+file, certificateKeys.replace(text))
			}
		})
	}
}

// kubeadm lets etcd listen on the loopback address of the host's family alone.
func TestLeave_IPv6(t *testing.T) {
	c, hosts := newClusterOn(t, "v1.36.3", hosts6, "")
	hosts[0].On("etcd members", hosttest.Answer{Stdout: `[{"id":"1","name":"h1"},{"id":"2","name":"h2","peerURLs":["https://[fd00::2]:2380"]}]`})
	_, err := do(t, kubernetes.New().Leave(c, c.Hosts[1]))
	require.NoError(t, err)
	require.Contains(t, strings.Join(hosts[0].Commands(), "\n"), "--endpoint 'https://[::1]:2379' --id 2")
}

// A network of pods of which no node gets a part is told before kubeadm is asked.
func TestCheck_NodeNetworks(t *testing.T) {
	for documents, want := range map[string]int{
		"networking: {podSubnet: \"fd00:1::/108\"}": 1,
		"networking: {podSubnet: \"fd00:1::/108\"}\ncontrollerManager: {extraArgs: [{name: node-cidr-mask-size, value: \"120\"}]}":   0,
		"networking: {podSubnet: \"fd00:1::/108\"}\ncontrollerManager: {extraArgs: [{name: allocate-node-cidrs, value: \"false\"}]}": 0,
	} {
		c, _ := newClusterOn(t, "v1.36.3", hosts6, "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"+documents+"\n")
		dual(c)
		n := 0
		for _, p := range kubernetes.New().Check(c) {
			if p.Check == "network" {
				require.Contains(t, p.What, "nodes cannot get a /64 each")
				n++
			}
		}
		require.Equal(t, want, n, documents)
	}
}
