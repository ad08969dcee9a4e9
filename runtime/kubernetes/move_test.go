// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// between is a cluster of a control plane and a worker whose endpoint becomes e.
func between(e clusterfile.Endpoint) (*runtime.Cluster, []*hosttest.Runner) {
	c := &runtime.Cluster{File: &clusterfile.File{Name: "prod", Endpoint: e}}
	var runners []*hosttest.Runner
	for i, role := range []clusterfile.Role{clusterfile.ControlPlane, clusterfile.Worker} {
		r := hosttest.New("10.0.0." + string(rune('1'+i)))
		runners = append(runners, r)
		c.Hosts = append(c.Hosts, &runtime.Host{Runner: r, Spec: clusterfile.Host{Address: r.String(), Role: role}, Facts: runtime.Facts{
			Hostname: "h" + string(rune('1'+i)), Addresses: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(r.String()), 24)},
		}})
	}
	return c, runners
}

// What kubeadm keeps of the endpoint is replaced, and all else stays; a cluster need not have a kube-proxy.
func TestTellEndpoint(t *testing.T) {
	const kubeconfig = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    server: https://apiserver.cluster.local:6443\n  name: default\nkind: Config\n"
	kept := map[string]map[string]string{
		"kubeadm-config": {"ClusterConfiguration": "apiServer: {certSANs: [a]}\ncontrolPlaneEndpoint: apiserver.cluster.local:6443\nkind: ClusterConfiguration\n"},
		"cluster-info":   {"kubeconfig": kubeconfig, "jws-kubeconfig-abcdef": "signed"},
	}
	c, runners := between(clusterfile.Endpoint{External: "k8s.example.com:443"})
	runners[0].On(" get configmap ", hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
		for name, data := range kept {
			if strings.Contains(call.String(), " "+name+" ") {
				out, err := json.Marshal(map[string]any{"kind": "ConfigMap", "metadata": map[string]any{"name": name, "resourceVersion": "7"}, "data": data})
				return hosttest.Answer{Stdout: string(out), Err: err}
			}
		}
		return hosttest.Answer{}
	}})
	now := map[string]map[string]string{}
	runners[0].On(" replace --filename -", hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
		var o struct {
			Metadata struct{ Name, ResourceVersion string }
			Data     map[string]string
		}
		err := json.Unmarshal(call.Stdin, &o)
		if o.Metadata.ResourceVersion == "7" {
			now[o.Metadata.Name] = o.Data
		}
		return hosttest.Answer{Err: err}
	}})
	for _, s := range (Distribution{}).TellEndpoint(c, c.Hosts[0], clusterfile.Endpoint{Balancer: true}) {
		require.NoError(t, s.Do(t.Context(), io.Discard))
	}
	require.Len(t, now, 2)
	require.YAMLEq(t, strings.Replace(kept["kubeadm-config"]["ClusterConfiguration"], "apiserver.cluster.local:6443", "k8s.example.com:443", 1), now["kubeadm-config"]["ClusterConfiguration"])
	require.YAMLEq(t, strings.Replace(kubeconfig, "apiserver.cluster.local:6443", "k8s.example.com:443", 1), now["cluster-info"]["kubeconfig"])
	require.Equal(t, "signed", now["cluster-info"]["jws-kubeconfig-abcdef"])

	c.File.Endpoint = clusterfile.Endpoint{VIP: "10.0.0.100"}
	require.Empty(t, Distribution{}.TellEndpoint(c, c.Hosts[0], clusterfile.Endpoint{Balancer: true}), "the name stays, and what it stands for is the hosts'")
}

// Workers ask the endpoint. Control planes ask themselves, and have nothing to do unless nodes know the API servers by another name.
func TestFollowEndpoint(t *testing.T) {
	for name, test := range map[string]struct {
		from, to clusterfile.Endpoint
		want     [2]string
	}{
		"to an address": {clusterfile.Endpoint{}, clusterfile.Endpoint{VIP: "10.0.0.100"}, [2]string{"", "https://apiserver.cluster.local:6443"}},
		"out":           {clusterfile.Endpoint{VIP: "10.0.0.100"}, clusterfile.Endpoint{External: "10.0.0.9"}, [2]string{"https://apiserver.cluster.local:6443", "https://10.0.0.9:6443"}},
		"back":          {clusterfile.Endpoint{External: "k8s.example.com:443"}, clusterfile.Endpoint{Balancer: true}, [2]string{"https://apiserver.cluster.local:6443", "https://apiserver.cluster.local:6443"}},
	} {
		c, _ := between(test.to)
		for i, want := range test.want {
			steps := Distribution{}.FollowEndpoint(c, c.Hosts[i], test.from)
			if want == "" {
				require.Empty(t, steps, name)
				continue
			}
			require.Equal(t, "having the kubelet ask "+want, steps[0].Name, name)
			require.Equal(t, map[int]string{1: runtime.MoveKey(test.from, test.to)}[i], steps[0].Key)
			require.Equal(t, runtime.MoveKey(test.from, test.to), steps[1].Key)
		}
	}
}

// kube-proxy is new when a pod of another name is ready.
func TestNewProxy(t *testing.T) {
	c, runners := between(clusterfile.Endpoint{VIP: "10.0.0.100"})
	asked := 0
	runners[0].On("field-selector spec.nodeName=h2", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		pod := func(name, ready string) string {
			return `{"items":[{"metadata":{"name":"` + name + `"},"status":{"conditions":[{"type":"Ready","status":"` + ready + `"}]}}]}`
		}
		asked++
		return hosttest.Answer{Stdout: []string{"", pod("kube-proxy-old", "True"), pod("kube-proxy-old", "True"), pod("kube-proxy-new", "True")}[min(asked, 3)]}
	}})
	require.NoError(t, Distribution{}.newProxy(t.Context(), c, c.Hosts[1], io.Discard))
	require.Equal(t, 3, asked)
	require.Contains(t, strings.Join(runners[0].Commands(), "\n"), "delete pod kube-proxy-old")
}

// The kubelet's kubeconfig gets another server and nothing else, and the kubelet starts with it.
func TestKubeletServer(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kubelet.conf")
	text := "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    server: https://k8s.example.com:443\n  name: default-cluster\nusers: []\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\necho \"$@\" >>"+dir+"/did\n"), 0o700))
	sh := func(script string, args ...string) error {
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", strings.ReplaceAll(script, "/etc/kubernetes", dir), "sh"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		return cmd.Run()
	}
	name, own := "https://apiserver.cluster.local:6443", "https://10.0.0.1:6443"
	require.Error(t, sh(isKubeletServer, name, own))
	require.NoError(t, sh(kubeletServer, name, own))
	require.NoError(t, sh(isKubeletServer, name, own))
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, strings.Replace(text, "https://k8s.example.com:443", name, 1), string(now))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(text, "https://k8s.example.com:443", own, 1)), 0o600))
	require.NoError(t, sh(kubeletServer, name, own), "a control plane that names itself stays so")
	now, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(now), own)
	did, err := os.ReadFile(filepath.Join(dir, "did"))
	require.NoError(t, err)
	const again = "stop kubelet\nstart kubelet\n"
	require.Equal(t, again+"is-active --quiet kubelet\n"+again, string(did))
	var doc map[string]any
	require.NoError(t, yaml.Unmarshal(now, &doc))
}
