// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// k0s.yaml of every role and way of balancing, as k0s gets it; the worker has none.
func TestConfig(t *testing.T) {
	const spec = clusterDoc + "spec:\n"
	for name, c := range map[string]struct{ hosts, documents string }{
		"single":     {one, ""},
		"one-worker": {oneAndOne, ""},
		"several":    {twoAndOne, ""},
		"external":   {twoAndOne, spec + "  api: {externalAddress: k8s.example.com, port: 7443}\n"},
		"no-balance": {twoAndOne, spec + "  network: {nodeLocalLoadBalancing: {enabled: false}}\n"},
		"traefik":    {twoAndOne, spec + "  network: {nodeLocalLoadBalancing: {type: Traefik}}\n"},
		"keepalived": {twoAndOne, spec + `  network:
    controlPlaneLoadBalancing:
      enabled: true
      keepalived:
        vrrpInstances: [{virtualIPs: [10.0.0.10/24], authPass: s3cret1, unicastPeers: [10.0.0.1, 10.0.0.2]}]
        virtualServers: [{ipAddress: 10.0.0.10}]
`},
		"ipv6":  {twoAndOne6, ""},
		"dual":  {twoAndOne, spec + "  network: {dualStack: {enabled: true, IPv6podCIDR: \"fd00:1::/104\", IPv6serviceCIDR: \"fd00:2::/112\"}}\n"},
		"dual6": {"  - {ips: [\"fd00::1\"], roles: [master], env: [\"PodCIDR=fd00:1::/104,10.1.0.0/16\"]}\n  - {ips: [\"fd00::3\"], roles: [node]}\n", ""},
		"kine":  {oneAndOne, spec + "  storage: {type: kine, kine: {dataSource: \"postgres://db\"}}\n"},
		"merged": {twoAndOne, `---
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
metadata:
  name: mine
  annotations: {sealer.io/ignore-pre-flight-checks: "true"}
spec:
  api: {sans: [k8s.example.com, 10.0.0.1], extraArgs: {audit-log-path: /var/log/audit.log}}
  network: {podCIDR: 10.1.0.0/16, kubeProxy: {mode: nftables}}
  workerProfiles: [{name: default, values: {failCgroupV1: false, maxPods: 200}}]
  telemetry: {enabled: true}
  images:
`},
	} {
		t.Run(name, func(t *testing.T) {
			cl, runners := newCluster(t, latest, c.hosts, c.documents)
			bothFamilies(cl)
			for _, p := range quick().Check(cl) {
				require.NotContains(t, []string{"address", "network", "ipv6"}, p.Check, p)
			}
			machines := play(t, cl, runners)
			run(0, quick().Init)(t, cl, machines)
			for i, h := range cl.Hosts {
				if i > 0 {
					run(i, quick().Join)(t, cl, machines)
				}
				file, there := runners[i].Files()["/etc/k0s/k0s.yaml"]
				require.Equal(t, h.Spec.Role == "control-plane", there, "workers get all from the control planes")
				if there {
					require.Equal(t, "-rw-------", file.Mode.String())
					golden(t, "testdata/config/"+name+"-"+h.Facts.NodeName()+".yaml", string(file.Data))
				}
			}
		})
	}
}

// The environment may say the networks, as it does for kubeadm.
func TestConfig_Environment(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	c.Env = map[string]string{"PodCIDR": "10.50.0.0/16", "SvcCIDR": "10.60.0.0/16"}
	run(0, quick().Init)(t, c, play(t, c, runners))
	data := string(runners[0].Files()["/etc/k0s/k0s.yaml"].Data)
	require.Contains(t, data, "podCIDR: 10.50.0.0/16")
	require.Contains(t, data, "serviceCIDR: 10.60.0.0/16")
}

// A control plane that joins has what the running cluster has: that may have begun with one.
func TestConfig_JoinsAsTheClusterIs(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	all := c.Hosts
	c.Hosts = all[:1]
	c.Images = slices.DeleteFunc(slices.Clone(c.Images), func(image string) bool { return strings.Contains(image, "envoy") })
	run(0, quick().Init)(t, c, machines)
	require.Contains(t, string(runners[0].Files()["/etc/k0s/k0s.yaml"].Data), "nodeLocalLoadBalancing:\n      enabled: false")
	c.Hosts = all
	run(1, quick().Join)(t, c, machines)
	require.Contains(t, string(runners[1].Files()["/etc/k0s/k0s.yaml"].Data), "nodeLocalLoadBalancing:\n      enabled: false")
}

// What k0s does not find good is not put in the place of what it runs with.
func TestConfig_NotValid(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	runners[0].On("config validate", hosttest.Answer{Stderr: "spec: api: invalid", Code: 1})
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	require.ErrorContains(t, err, "configuring k0s: validating k0s.yaml")
	require.ErrorContains(t, err, "spec: api: invalid")
	require.NotContains(t, runners[0].Files(), "/etc/k0s/k0s.yaml")
	require.NotContains(t, lines(runners[0].Calls()), "k0s install")
	require.Contains(t, runners[0].Commands(), "rm -f -- /etc/k0s/k0s.candidate.yaml")
}

// Without workers, pods run on the control planes; OpenRC's script is read as a unit is.
func TestFlags(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	machines := play(t, c, runners)
	run(0, quick().Init)(t, c, machines)
	require.Contains(t, lines(runners[0].Calls()), "k0s install controller --config=/etc/k0s/k0s.yaml --enable-worker=true --no-taints=true --kubelet-extra-args=--node-ip=10.0.0.1\n")

	c.Hosts[0].Facts.Init = runtime.OpenRC
	runners[0].Put("/etc/init.d/k0scontroller", "command_args=\"'controller' '--config=/etc/k0s/k0s.yaml' '--data-dir=/var/lib/k0s' '--enable-worker' '--no-taints=true' '--kubelet-extra-args=--node-ip=10.0.0.1' \"\n", 0o755)
	step := quick().Init(c, c.Hosts[0])[0]
	done, err := step.Done(t.Context())
	require.NoError(t, err)
	require.True(t, done)
	runners[0].Put("/etc/init.d/k0scontroller", "command_args=\"'controller' '--config=/etc/k0s/k0s.yaml' '--enable-worker' '--no-taints=true' '--kubelet-extra-args=--node-ip=10.0.0.1' '--single=true'\"\n", 0o755)
	done, err = step.Done(t.Context())
	require.NoError(t, err)
	require.False(t, done, "a flag that nobody wanted")
}

// A k0s without IPv4 is to be asked for, from 1.34 on; the second address of a dual stack is a node's, too.
func TestFlags_IPv6(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne6, "")
	bothFamilies(c)
	machines := play(t, c, runners)
	run(0, quick().Init)(t, c, machines)
	run(2, quick().Join)(t, c, machines)
	require.Contains(t, lines(runners[0].Calls()), " --feature-gates=IPv6SingleStack=true --kubelet-extra-args=--node-ip=fd00::1\n")
	require.Regexp(t, `config validate --config \S+ --feature-gates=IPv6SingleStack=true`, lines(runners[0].Calls()))
	require.Contains(t, lines(runners[2].Calls()), "k0s install worker --kubelet-extra-args=--node-ip=fd00::3 ")

	c.Env = map[string]string{"PodCIDR": "fd00:1::/104,10.1.0.0/16"}
	require.Empty(t, quick().Check(c))
	c, runners = newCluster(t, latest, one, clusterDoc+"spec: {network: {dualStack: {enabled: true, IPv6podCIDR: \"fd00:1::/104\", IPv6serviceCIDR: \"fd00:2::/112\"}}}\n")
	bothFamilies(c)
	run(0, quick().Init)(t, c, play(t, c, runners))
	require.Contains(t, lines(runners[0].Calls()), " --no-taints=true --kubelet-extra-args=--node-ip=10.0.0.1,fd00::1\n")
}

// A unit that names a token keeps it, whatever else changes: a node that lost its data must not make a cluster.
func TestFlags_TokenStays(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	run(0, quick().Init)(t, c, machines)
	run(1, quick().Join)(t, c, machines)
	c.Hosts[0], c.Hosts[1] = c.Hosts[1], c.Hosts[0]
	c.File.K0s = map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sealer.io/ignore-pre-flight-checks": "true"}}}
	run(0, quick().Init)(t, c, machines)
	unit := string(runners[1].Files()["/etc/systemd/system/k0scontroller.service"].Data)
	require.Contains(t, unit, "--token-file=/etc/k0s/k0stoken")
	require.Contains(t, unit, "--ignore-pre-flight-checks=true")
}

func TestKubeletVersion(t *testing.T) {
	for version, want := range map[string]string{latest: "v1.36.3+k0s", "v1.31.14": "v1.31.14+k0s", "": ""} {
		c, _ := newCluster(t, version, one, "")
		require.Equal(t, want, quick().KubeletVersion(c))
	}
}

func TestCheck(t *testing.T) {
	const spec = clusterDoc + "spec:\n"
	for name, c := range map[string]struct {
		version, hosts, documents string
		change                    func(*runtime.Cluster)
		want                      string // of one problem; empty: there is none
	}{
		"good":            {version: latest, hosts: twoAndOne},
		"no version":      {hosts: one, want: "does not say which version"},
		"old":             {version: "v1.30.1+k0s.0", hosts: one, want: "this sealer installs 1.31 to 1.36"},
		"strange":         {version: "latest", hosts: one, want: "this sealer installs 1.31 to 1.36"},
		"image missing":   {version: latest, hosts: twoAndOne, change: func(c *runtime.Cluster) { c.Images = c.Images[:7] }, want: "does not pack envoy-distroless"},
		"image not used":  {version: latest, hosts: oneAndOne, change: func(c *runtime.Cluster) { c.Images = c.Images[:7] }},
		"custom network":  {version: latest, hosts: one, documents: spec + "  network: {provider: custom}\n", change: func(c *runtime.Cluster) { c.Images = c.Images[:5] }},
		"calico":          {version: latest, hosts: one, documents: spec + "  network: {provider: calico}\n", want: "does not pack calico-cni"},
		"other image":     {version: latest, hosts: one, documents: spec + "  images: {coredns: {image: example.com/dns, version: v1}}\n", want: "does not pack dns"},
		"memory":          {version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.Memory = 1000 << 20 }, want: "it has 1000 MiB of memory, k0s needs 1024"},
		"port":            {version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.Listening = []runtime.Listener{{Port: 9443}} }, want: "the port 9443 is in use"},
		"port of worker":  {version: latest, hosts: oneAndOne, change: func(c *runtime.Cluster) { c.Hosts[1].Facts.Listening = []runtime.Listener{{Port: 9443}} }},
		"cgroup v1":       {version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.Cgroup = 1 }, want: "it has cgroup v1"},
		"cgroup v1, 1.34": {version: "v1.34.10+k0s.0", hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.Cgroup = 1 }},
		"cgroup v1, accepted": {
			version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.Cgroup = 1 },
			documents: clusterDoc + "metadata: {annotations: {sealer.io/ignore-pre-flight-checks: \"true\"}}\nspec: {workerProfiles: [{name: default, values: {failCgroupV1: false}}]}\n",
		},
		"SELinux": {version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.SELinux = true }, want: "SELinux enforces"},
		"SELinux, accepted": {
			version: latest, hosts: one, change: func(c *runtime.Cluster) { c.Hosts[0].Facts.SELinux = true },
			documents: clusterDoc + "metadata: {annotations: {sealer.io/ignore-pre-flight-checks: \"true\"}}\n",
		},
		"SELinux, where the cluster runs": {version: latest, hosts: one, change: func(c *runtime.Cluster) {
			c.Hosts[0].Facts.SELinux, c.Hosts[0].Facts.State = true, &runtime.HostState{Complete: true}
		}},
		"IPv6, 1.33":            {version: "v1.33.1+k0s.0", hosts: twoAndOne6, change: bothFamilies, want: "k0s v1.33.1+k0s.0 cannot do without IPv4"},
		"IPv6":                  {version: latest, hosts: twoAndOne6, change: bothFamilies},
		"IPv6, off":             {version: latest, hosts: twoAndOne6, change: func(c *runtime.Cluster) { bothFamilies(c); c.Hosts[2].Facts.IPv6 = false }, want: "fd00::3: IPv6 is off"},
		"large nodes":           {version: latest, hosts: twoAndOne6, documents: spec + "  network: {podCIDR: \"fd00:1::/56\", serviceCIDR: \"fd00:2::/112\"}\n", change: bothFamilies, want: "nodes cannot get a /117 each"},
		"nodes of /64":          {version: latest, hosts: twoAndOne6, documents: spec + "  controllerManager: {extraArgs: {node-cidr-mask-size-ipv6: \"64\"}}\n  network: {podCIDR: \"fd00:1::/56\", serviceCIDR: \"fd00:2::/112\"}\n", change: bothFamilies},
		"dual, IPv6 as podCIDR": {version: latest, hosts: twoAndOne, documents: spec + "  network: {podCIDR: \"fd00:1::/104\", dualStack: {enabled: true, IPv6podCIDR: \"fd00:3::/104\", IPv6serviceCIDR: \"fd00:2::/112\"}}\n", change: bothFamilies, want: "the pods have the networks fd00:1::/104,fd00:3::/104"},
		"lost":                  {version: latest, hosts: twoAndOne, change: func(c *runtime.Cluster) { c.Hosts[1].Lost, c.Hosts[1].Facts.Memory = lost{}, 0 }},
		"kubeadm's":             {version: latest, hosts: one, documents: "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", want: "k0s, which knows no KubeletConfiguration"},
		"k3s'":                  {version: latest, hosts: one, documents: "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {}\n", want: "k0s, which knows no K3s"},
		"annotation":            {version: latest, hosts: one, documents: clusterDoc + "metadata: {annotations: {sealer.io/ignore: \"true\"}}\n", want: "the annotation sealer.io/ignore"},
		"ignore in 1.32":        {version: "v1.32.13+k0s.0", hosts: one, documents: clusterDoc + "metadata: {annotations: {sealer.io/ignore-pre-flight-checks: \"true\"}}\n", want: "cannot pass over its checks"},
		"NLLB, external":        {version: latest, hosts: twoAndOne, documents: spec + "  api: {externalAddress: k8s.example.com}\n  network: {nodeLocalLoadBalancing: {enabled: true}}\n", want: "node-local load balancing and an externalAddress exclude each other"},
		"external":              {version: latest, hosts: twoAndOne, documents: spec + "  api: {externalAddress: k8s.example.com}\n"},
		"traefik, 1.35":         {version: "v1.35.7+k0s.0", hosts: one, documents: spec + "  network: {nodeLocalLoadBalancing: {type: Traefik}}\n", want: "Traefik came with k0s 1.36"},
		"balancer":              {version: latest, hosts: one, documents: spec + "  network: {nodeLocalLoadBalancing: {type: HAProxy}}\n", want: `the node-local load balancer "HAProxy"`},
		"provider":              {version: latest, hosts: one, documents: spec + "  network: {provider: flannel}\n", want: `the network provider "flannel"`},
		"sqlite, two":           {version: latest, hosts: twoAndOne, documents: spec + "  storage: {type: kine}\n", want: "several control planes cannot share this storage"},
		"sqlite, one":           {version: latest, hosts: oneAndOne, documents: spec + "  storage: {type: kine}\n"},
		"database, two":         {version: latest, hosts: twoAndOne, documents: spec + "  storage: {type: kine, kine: {dataSource: \"mysql://db\"}}\n"},
		"external etcd":         {version: latest, hosts: twoAndOne, documents: spec + "  storage: {etcd: {externalCluster: {endpoints: [\"https://e\"]}}}\n", want: "cannot share this storage"},
		"storage":               {version: latest, hosts: one, documents: spec + "  storage: {type: sqlite}\n", want: `the storage "sqlite"`},
		"profile":               {version: latest, hosts: one, documents: spec + "  workerProfiles: [{name: big, values: {maxPods: 9}}]\n", want: `not "big"`},
		"profile's DNS":         {version: latest, hosts: one, documents: spec + "  workerProfiles: [{name: default, values: {clusterDomain: x}}]\n", want: "sets clusterDomain"},
		"one port":              {version: latest, hosts: one, documents: spec + "  api: {port: 9443}\n", want: "cannot share a port"},
		"VIP, pass":             {version: latest, hosts: one, documents: vip("10.0.0.10/24", "123456789", ""), want: "more than 8 characters"},
		"VIP, no pass":          {version: latest, hosts: one, documents: vip("10.0.0.10/24", "", ""), want: "no authPass"},
		"VIP, form":             {version: latest, hosts: one, documents: vip("10.0.0.10", "x", ""), want: `"10.0.0.10" is not an address with`},
		"VIP, a host's":         {version: latest, hosts: one, documents: vip("10.0.0.1/24", "x", ""), want: "is that of the host 10.0.0.1"},
		"VIP, peers":            {version: latest, hosts: twoAndOne, documents: vip("10.0.0.10/24", "x", "unicastPeers: [10.0.0.1]"), want: "do not have 10.0.0.2"},
		"VIP, router":           {version: latest, hosts: one, documents: vip("10.0.0.10/24", "x", "virtualRouterID: 256"), want: "virtualRouterID 256"},
		"VIP":                   {version: latest, hosts: twoAndOne, documents: vip("10.0.0.10/24", "x", "")},
		"VIP, none":             {version: latest, hosts: one, documents: spec + "  network: {controlPlaneLoadBalancing: {enabled: true}}\n", want: "has no virtual address"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, _ := newCluster(t, c.version, c.hosts, c.documents)
			if c.version == "" {
				cl.Metadata.KubeVersion = ""
			}
			if c.change != nil {
				c.change(cl)
			}
			var got []string
			for _, p := range quick().Check(cl) {
				require.NotEmpty(t, p.Fix)
				got = append(got, p.String())
			}
			if c.want == "" {
				require.Empty(t, got)
				return
			}
			require.Contains(t, strings.Join(got, "\n"), c.want)
			for _, line := range got {
				require.NotContains(t, line, "123456789", "a password")
			}
		})
	}
}

// vip is a document with a virtual address.
func vip(ip, pass, more string) string {
	return clusterDoc + "spec:\n  network:\n    controlPlaneLoadBalancing:\n      enabled: true\n      keepalived:\n        vrrpInstances: [{virtualIPs: [" + ip + "], authPass: \"" + pass + "\", " + more + "}]\n"
}

// lost stands for a host that cannot be reached.
type lost struct{}

func (lost) Error() string { return "no route to host" }
