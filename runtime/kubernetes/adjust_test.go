// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

func TestFixed(t *testing.T) {
	d := kubernetes.New()
	for _, path := range []string{
		"ClusterConfiguration.networking.podSubnet", "ClusterConfiguration.etcd.local.extraArgs", "ClusterConfiguration.controlPlaneEndpoint",
		"InitConfiguration.localAPIEndpoint.bindPort", "InitConfiguration.nodeRegistration.taints", "KubeletConfiguration.clusterDNS",
		"KubeletConfiguration.cgroupDriver", "KubeProxyConfiguration.mode",
	} {
		require.NotEmpty(t, d.Fixed(strings.Split(path, ".")...), path)
	}
	for _, path := range []string{
		"ClusterConfiguration.apiServer.extraArgs", "ClusterConfiguration.scheduler.extraArgs", "InitConfiguration.nodeRegistration.ignorePreflightErrors",
		"JoinConfiguration.nodeRegistration.taints", "KubeletConfiguration.maxPods", "KubeletConfiguration.evictionHard.nodefs.available",
		"KubeProxyConfiguration.metricsBindAddress",
	} {
		require.Empty(t, d.Fixed(strings.Split(path, ".")...), path)
	}
}

// The control plane that is asked keeps the settings for all; each host takes up what concerns it.
func TestAdjust(t *testing.T) {
	c, runners := newCluster(t, "v1.36.3", `---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
scheduler: {extraArgs: [{name: v, value: "2"}]}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 200
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
metricsBindAddress: 127.0.0.1:10249
`)
	c.Contact = c.Hosts[1]
	all := [][]string{{"ClusterConfiguration", "scheduler", "extraArgs"}, {"KubeletConfiguration", "maxPods"}, {"KubeProxyConfiguration", "metricsBindAddress"}}
	names := func(h *runtime.Host, paths ...[]string) []string {
		var list []string
		for _, s := range kubernetes.New().Adjust(c, h, paths) {
			require.NotEmpty(t, s.Key, "%s: what is done is kept", s.Name)
			list = append(list, s.Name)
		}
		return list
	}
	const (
		manifests = "writing the control plane's manifests (kubeadm init phase control-plane)"
		keeping   = "keeping the new settings in the cluster (kubeadm init phase upload-config)"
		proxy     = "configuring kube-proxy (kubeadm init phase addon)"
		kubelet   = "configuring the kubelet (kubeadm upgrade node phase kubelet-config)"
	)
	require.Equal(t, []string{manifests, kubelet}, names(c.Hosts[0], all...))
	require.Equal(t, []string{manifests, keeping, proxy, kubelet}, names(c.Hosts[1], all...))
	require.Equal(t, []string{kubelet}, names(c.Hosts[2], all...))
	require.Equal(t, []string{keeping, kubelet}, names(c.Hosts[1], all[1]))
	require.Empty(t, names(c.Hosts[0], all[2]))
	require.Empty(t, names(c.Hosts[1], []string{"JoinConfiguration", "nodeRegistration", "taints"}), "they are for hosts that join")

	// Names in the environment are as good as the document's.
	for _, path := range [][]string{{"CertSANs"}, {"ClusterConfiguration", "apiServer", "certSANs"}} {
		steps := kubernetes.New().Adjust(c, c.Hosts[1], [][]string{path})
		require.Equal(t, "making the API server's certificate with the new names", steps[0].Name)
		before := steps[3]
		require.Equal(t, keeping, before.Name)
		c.File.Env = map[string]string{"CertSANs": "other.example.com"}
		require.NotEqual(t, before.Key, kubernetes.New().Adjust(c, c.Hosts[1], [][]string{path})[3].Key)
		c.File.Env = nil
	}

	for _, h := range c.Hosts {
		for _, s := range kubernetes.New().Adjust(c, h, all) {
			if s.Name != manifests { // which waits for a real kubelet
				require.NoError(t, s.Do(t.Context(), io.Discard), "%s: %s", h, s.Name)
			}
		}
	}
	var did []string
	for i, r := range runners {
		for _, call := range r.Calls() {
			if _, words, ok := strings.Cut(strings.Join(call.Argv, " "), "/usr/local/bin/kubeadm "); ok {
				did = append(did, fmt.Sprintf("%d: %s", i+1, words))
			}
		}
	}
	require.Equal(t, []string{
		"1: upgrade node phase kubelet-config",
		"2: init phase upload-config all --config /etc/kubernetes/kubeadm-adjust.yaml",
		"2: init phase addon kube-proxy --config /etc/kubernetes/kubeadm-adjust.yaml",
		"2: upgrade node phase kubelet-config", "3: upgrade node phase kubelet-config",
	}, did)
}
