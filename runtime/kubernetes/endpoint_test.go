// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

// What kubeadm is told of an endpoint: with a virtual address the name in /etc/hosts stays, and leads to it on workers.
func TestConfig_Endpoint(t *testing.T) {
	caPEM, hash := ca(t)
	for name, e := range map[string]clusterfile.Endpoint{
		"vip": {VIP: "10.0.0.100"}, "external": {External: "k8s.example.com:443"}, "external-port": {External: "k8s.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			c, hosts := newCluster(t, "v1.36.3", "")
			c.File.Endpoint = e
			require.Zero(t, kubernetes.New().BalancedPort(c), "workers have no balancer of sealer's")
			onNewHost(hosts[0])
			_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
			require.NoError(t, err)
			golden(t, "testdata/endpoint/"+name+"-init.yaml", string(hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"].Data))
			hosts[0].Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
			onNewHost(hosts[2])
			_, err = do(t, kubernetes.New().Join(c, c.Hosts[2]))
			require.NoError(t, err)
			golden(t, "testdata/endpoint/"+name+"-worker.yaml", strings.ReplaceAll(string(hosts[2].Files()["/etc/kubernetes/kubeadm-join.yaml"].Data), hash, "sha256:HASH"))
		})
	}
}

// With IPVS the name leads to the virtual address on workers. A kube-proxy that makes IPVS services leaves that one alone.
func TestConfig_IPVS(t *testing.T) {
	const proxy = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\nipvs: {scheduler: wrr, excludeCIDRs: [10.9.0.0/24]}\n"
	for name, documents := range map[string]string{"ipvs": "", "ipvs-proxy": proxy} {
		t.Run(name, func(t *testing.T) {
			c, hosts := newCluster(t, "v1.36.3", documents)
			c.File.Endpoint = clusterfile.Endpoint{IPVS: true}
			require.Equal(t, 6443, kubernetes.New().BalancedPort(c))
			onNewHost(hosts[0])
			_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
			require.NoError(t, err)
			golden(t, "testdata/endpoint/"+name+"-init.yaml", string(hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"].Data))
		})
	}
}

// With a balancer of the user's, what is asked on a control plane is asked of that one, and not of whichever the balancer chooses.
func TestInit_AsksItself(t *testing.T) {
	for e, want := range map[clusterfile.Endpoint]bool{{External: "k8s.example.com:443"}: true, {VIP: "10.0.0.100"}: false, {}: false} {
		c, hosts := newCluster(t, "v1.36.3", "")
		c.File.Endpoint = e
		onNewHost(hosts[0]).On("(?s)super-admin.*grep -qxF.*exit 1; done' sh", hosttest.Answer{Code: 1})
		_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
		require.NoError(t, err)
		asked := false
		for _, call := range hosts[0].Calls() {
			asked = asked || call.Mutates && call.Argv[len(call.Argv)-1] == "https://apiserver.cluster.local:6443"
		}
		require.Equal(t, want, asked, e.String())
	}
}

func TestCheck_TwoEndpoints(t *testing.T) {
	c, _ := newCluster(t, "v1.36.3", "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: lb.example.com:6443\n")
	c.File.Endpoint = clusterfile.Endpoint{VIP: "10.0.0.100"}
	var found []string
	for _, p := range kubernetes.New().Check(c) {
		found = append(found, p.String())
	}
	require.Contains(t, strings.Join(found, "\n"), "another one, lb.example.com:6443, in its ClusterConfiguration [endpoint]")
}
