// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k3s"
)

// hash is that of the cluster's CA, as its token names it.
var hash = strings.Repeat("ab", 32)

const (
	version     = "v1.36.3+k3s1"
	serverToken = "0123456789abcdef-server"
	agentToken  = "0123456789abcdef-agent"
	config      = "/etc/rancher/k3s/config.yaml"
)

var images = []string{
	"docker.io/rancher/klipper-helm:v0.10.0", "docker.io/rancher/klipper-lb:v0.4.17", "docker.io/rancher/local-path-provisioner:v0.0.36",
	"docker.io/rancher/mirrored-coredns-coredns:1.14.3", "docker.io/rancher/mirrored-library-busybox:1.37.0",
	"docker.io/rancher/mirrored-library-traefik:3.6.13", "docker.io/rancher/mirrored-metrics-server:v0.8.1", "docker.io/rancher/mirrored-pause:3.6",
}

const threeHosts = `  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}
  - {ips: [10.0.0.3], roles: [node]}
`

const oneHost = "  - {ips: [10.0.0.1], roles: [master]}\n"

// newCluster has its runners beside it: h1 and on.
func newCluster(t *testing.T, hosts, documents string) (*runtime.Cluster, []*hosttest.Runner) {
	t.Helper()
	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\nspec:\n  hosts:\n"+hosts+documents))
	require.NoError(t, err)
	c := &runtime.Cluster{
		File: f, Digest: "sha256:1", Images: images,
		Metadata: clusterimage.Metadata{ClusterRuntime: "k3s", ClusterRuntimeVersion: version},
		Registry: runtime.Registry{Domain: "sea.hub", Port: 5000, CA: []byte("CA"), Username: "u", Password: "hidden"},
	}
	var runners []*hosttest.Runner
	for i, m := range f.Machines() {
		r := hosttest.New(m.Address)
		runners = append(runners, r)
		bits := "/24"
		if strings.Contains(m.Address, ":") {
			bits = "/64"
		}
		c.Hosts = append(c.Hosts, &runtime.Host{
			Spec: m, Runner: r, Rootfs: "/rootfs", Platform: "linux/amd64",
			Facts: runtime.Facts{Hostname: fmt.Sprintf("H%d", i+1), Init: "systemd", CPUs: 2, Memory: 4 << 30, Cgroup: 2, DefaultRoute: true,
				Addresses: []netip.Prefix{netip.MustParsePrefix(m.Address + bits)}},
		})
	}
	return c, runners
}

// bothFamilies gives every host the address of the other family that ends as its own does.
func bothFamilies(c *runtime.Cluster) {
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

// quick is k3s that nobody waits long for.
func quick() k3s.Distribution {
	return k3s.Distribution{Poll: time.Millisecond, StartTimeout: time.Minute}
}

// do does all steps that are not done, and gives back what they printed.
func do(t *testing.T, steps []runtime.Step) (string, error) {
	t.Helper()
	var out bytes.Buffer
	for _, s := range steps {
		if s.Done != nil {
			done, err := s.Done(t.Context())
			if err != nil {
				return out.String(), err
			}
			if done {
				continue
			}
		}
		if err := s.Do(t.Context(), &out); err != nil {
			return out.String(), fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return out.String(), nil
}

// onNewHost answers as a host does on which k3s is installed and was never started; it comes up when it is started.
func onNewHost(r *hosttest.Runner) *hosttest.Runner {
	up := false
	isUp := func(yes, no hosttest.Answer) hosttest.Answer {
		return hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			if up {
				return yes
			}
			return no
		}}
	}
	return r.
		On(`--version$`, hosttest.Answer{Stdout: "k3s version " + version + " (0123abcd)\ngo version go1.26\n"}).
		On(`is-active`, isUp(hosttest.Answer{}, hosttest.Answer{Code: 3})).
		On(`is-failed`, hosttest.Answer{Code: 1}).
		On(`^test -[ef] `, hosttest.Answer{Code: 1}).
		On(`(?s)stamp.*= "`, isUp(hosttest.Answer{}, hosttest.Answer{Code: 1})).
		On(`get --raw /readyz`, isUp(hosttest.Answer{}, hosttest.Answer{Code: 1})).
		On(`get node h\d .*--output name`, isUp(hosttest.Answer{Stdout: "node/x\n"}, hosttest.Answer{})).
		On(`root-kubeconfig.*grep`, hosttest.Answer{Code: 1}).
		On(`systemctl --no-block`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			up = true
			return hosttest.Answer{}
		}})
}

// onServer is a control plane of a cluster that runs.
func onServer(r *hosttest.Runner, more string) *hosttest.Runner {
	onNewHost(r).
		Put("/var/lib/rancher/k3s/server/token", "K10"+hash+"::server:"+serverToken+"\n", 0o600).
		Put(config, "agent-token: "+agentToken+"\nnode-name: h1\nserver: https://old\ntoken: "+serverToken+"\n"+more, 0o600).
		On(`^test -[ef] `, hosttest.Answer{}).
		On(`is-active|get --raw /readyz|stamp`, hosttest.Answer{})
	seen := map[string]bool{}
	r.On(`get node h\d .*--output name`, hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		name := c.Argv[6]
		if seen[name] || name == "h1" { // the first question is whether one is left over
			return hosttest.Answer{Stdout: "node/" + name + "\n"}
		}
		seen[name] = true
		return hosttest.Answer{}
	}})
	return r
}

var random = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// masked hides the tokens that are made anew each time.
func masked(text string) string {
	return strings.ReplaceAll(random.ReplaceAllString(strings.ReplaceAll(text, hash, "HASH"), "RANDOM"), "KHASH", "K10HASH")
}

func configOf(t *testing.T, r *hosttest.Runner) string {
	t.Helper()
	file, ok := r.Files()[config]
	require.True(t, ok, "there is a configuration")
	require.Equal(t, "-rw-------", file.Mode.String())
	return masked(string(file.Data))
}

const everything = `---
apiVersion: sealer.io/v2
kind: K3s
server:
  tls-san: [k8s.example.com, 10.0.0.1]
  disable: [traefik, servicelb]
  cluster-cidr: 10.1.0.0/16
  flannel-backend: wireguard-native
  https-listen-port: 7443
  secrets-encryption: true
  node-taint: CriticalAddonsOnly=true:NoExecute
  kube-apiserver-arg: [profiling=false]
  etcd-snapshot-retention: 3
agent:
  node-label: [zone=a, disk=ssd]
  kubelet-arg: max-pods=200
`

// The configuration of each role with each datastore, as k3s gets it.
func TestConfig(t *testing.T) {
	const database = `---
apiVersion: sealer.io/v2
kind: K3s
server:
  datastore-endpoint: postgres://k3s:hunter2@10.0.0.9/k3s
  datastore-cafile: etc/datastore/ca.crt
  datastore-certfile: ./etc/datastore/client.crt
  datastore-keyfile: /etc/ssl/private/client.key
`
	for name, c := range map[string]struct{ hosts, documents string }{
		"sqlite":     {oneHost, ""},
		"etcd-one":   {oneHost, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {cluster-init: true}\n"},
		"etcd":       {threeHosts, ""},
		"external":   {threeHosts, database},
		"everything": {threeHosts, everything},
		"ipv6":       {"  - {ips: [\"fd00::1\", \"fd00::2\"], roles: [master]}\n  - {ips: [\"fd00::3\"], roles: [node]}\n", ""},
		"dual":       {threeHosts, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {cluster-cidr: [10.42.0.0/16, \"fd00:10:42::/56\"]}\n"},
		"dual6":      {"  - {ips: [\"fd00::1\", \"fd00::2\"], roles: [master], env: [\"PodCIDR=fd00:1::/56,10.1.0.0/16\"]}\n  - {ips: [\"fd00::3\"], roles: [node]}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newCluster(t, c.hosts, c.documents)
			bothFamilies(cl)
			for _, p := range quick().Check(cl) {
				require.NotContains(t, []string{"address", "network", "ipv6"}, p.Check, p)
			}
			onNewHost(hosts[0])
			_, err := do(t, quick().Init(cl, cl.Hosts[0]))
			require.NoError(t, err)
			goldenfile.Equal(t, "testdata/"+name+"/first.yaml", configOf(t, hosts[0]))
			first := string(hosts[0].Files()[config].Data)
			onServer(hosts[0], "").Put(config, first, 0o600)
			for i, file := range []string{1: "server.yaml", 2: "agent.yaml"} {
				if file == "" || i >= len(hosts) {
					continue
				}
				onNewHost(hosts[i])
				_, err := do(t, quick().Join(cl, cl.Hosts[i]))
				require.NoError(t, err)
				goldenfile.Equal(t, "testdata/"+name+"/"+file, configOf(t, hosts[i]))
			}
		})
	}
}

// A host without a default route gets one, which its own address tells.
func TestInstall_NoDefaultRoute(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	onNewHost(hosts[0]).On("route show default", hosttest.Answer{Code: 1})
	_, err := do(t, quick().Install(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, hosts[0].Commands(), "sh -s -- 10.0.0.1")
}

// No command, no output, no error holds a token or a password.
func TestJoin_KeepsSecrets(t *testing.T) {
	for _, fails := range []bool{false, true} {
		for i := 1; i < 3; i++ {
			c, hosts := newCluster(t, threeHosts, "")
			onServer(hosts[0], "")
			onNewHost(hosts[i])
			if fails {
				hosts[i].On(`is-failed`, hosttest.Answer{}).On(`systemctl --no-block`, hosttest.Answer{}).
					On(`journalctl`, hosttest.Answer{Stdout: "joining with " + serverToken + " and " + agentToken + " and hidden\nno route to host\n"})
			}
			steps := append(quick().Install(c, c.Hosts[i]), quick().Join(c, c.Hosts[i])...)
			out, err := do(t, steps)
			require.Equal(t, fails, err != nil)
			if fails {
				require.ErrorContains(t, err, "no route to host")
				var start *runtime.StartError
				require.ErrorAs(t, err, &start)
				require.Contains(t, start.Hint(), "journalctl -u k3s")
			}
			all := out + fmt.Sprint(err) + strings.Join(hosts[0].Commands(), "\n") + strings.Join(hosts[i].Commands(), "\n")
			for _, call := range append(hosts[0].Calls(), hosts[i].Calls()...) {
				all += strings.Join(call.Env, "\n")
			}
			for _, secret := range []string{serverToken, agentToken, "hidden"} {
				require.NotContains(t, all, secret)
			}
			require.Contains(t, string(hosts[i].Files()[config].Data), agentToken)
			require.Contains(t, string(hosts[i].Files()["/etc/rancher/k3s/registries.yaml"].Data), "hidden")
		}
	}
}

// An agent gets no more than its own token.
func TestJoin_AgentHasNoServerToken(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, "")
	onServer(hosts[0], "")
	onNewHost(hosts[2])
	_, err := do(t, quick().Join(c, c.Hosts[2]))
	require.NoError(t, err)
	require.NotContains(t, string(hosts[2].Files()[config].Data), serverToken)
	require.Contains(t, configOf(t, hosts[2]), "token: K10HASH::node:"+agentToken+"\n")
}

func commandsOf(t *testing.T, r *hosttest.Runner, steps []runtime.Step) string {
	t.Helper()
	_, err := do(t, steps)
	require.NoError(t, err)
	return lines(r)
}

// lines are the calls, with ! where the host is changed and the first line of a script.
func lines(r *hosttest.Runner) string {
	var lines []string
	for _, c := range r.Calls() {
		line := strings.ReplaceAll(c.String(), "\n", " ⏎ ")
		if i := strings.Index(line, " ⏎ "); i >= 0 {
			tail := line[strings.LastIndex(line, "'")+1:]
			line = line[:i] + "…'" + tail
		}
		if c.Mutates {
			line = "! " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n"
}

// What is done on a host depends on what is found there. Lines with ! change the host.
func TestSteps(t *testing.T) {
	d := quick()
	nothing := func(_, _ *hosttest.Runner) {}
	upgrade := func(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
		running, drained := d.Upgrade(c, h)
		return append(running, drained...)
	}
	const node = `{"metadata":{"labels":{"node-role.kubernetes.io/etcd":"true"},"annotations":{%s}}}`
	for name, c := range map[string]struct {
		host  int
		hosts string
		setup func(first, r *hosttest.Runner)
		steps func(*runtime.Cluster, *runtime.Host) []runtime.Step
	}{
		"install-server": {1, threeHosts, func(_, r *hosttest.Runner) { r.On("cmp -s .*uninstall", hosttest.Answer{Code: 1}) }, d.Install},
		"install-script": {2, threeHosts, func(_, r *hosttest.Runner) {
			r.On("cmp -s .*uninstall", hosttest.Answer{Code: 1}).On("^test -f /rootfs/scripts/k3s-install.sh", hosttest.Answer{})
		}, d.Install},
		"install-script-begun": {2, threeHosts, func(_, r *hosttest.Runner) {
			r.On("cmp -s .*uninstall", hosttest.Answer{Code: 1}).On("^test -f /rootfs/scripts/k3s-install.sh", hosttest.Answer{}).
				On("^test -e /var/lib/rancher/k3s/agent/client-kubelet.crt", hosttest.Answer{})
		}, d.Install},
		"init-new":  {0, oneHost, nothing, d.Init},
		"init-done": {0, oneHost, func(_, r *hosttest.Runner) { startedAs(t, r, oneHost) }, d.Init},
		"init-changed": {0, oneHost, func(_, r *hosttest.Runner) {
			startedAs(t, r, oneHost)
			r.Put(config, strings.Replace(string(r.Files()[config].Data), "pause:3.6", "pause:3.5", 1), 0o600).
				On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1})
		}, d.Init},
		"join-server": {1, threeHosts, nothing, d.Join},
		"join-sqlite": {1, threeHosts, func(first, _ *hosttest.Runner) {
			first.On(`test -e /var/lib/rancher/k3s/server/db/etcd`, hosttest.Answer{}).
				On(`test -e /var/lib/rancher/k3s/server/db/etcd`, hosttest.Answer{Code: 1, Times: 1}).
				On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1})
		}, d.Join},
		"join-agent": {2, threeHosts, nothing, d.Join},
		"join-stale-node": {2, threeHosts, func(first, _ *hosttest.Runner) {
			first.On("get node h3", hosttest.Answer{Stdout: "node/h3\n"})
		}, d.Join},
		"leave-restored": {1, threeHosts, func(first, _ *hosttest.Runner) {
			first.On("get node h2 .*json", hosttest.Answer{Stdout: fmt.Sprintf(node, "")}).
				On("etcd members", hosttest.Answer{Stdout: `[{"id":"11","name":"h1-ab","peerURLs":["https://10.0.0.1:2380"]}]`})
		}, d.Leave},
		"leave-server": {1, threeHosts, func(first, _ *hosttest.Runner) {
			first.On("etcd members", hosttest.Answer{Stdout: `[{"id":"12","name":"h2-1","peerURLs":["https://10.0.0.2:2380"]}]`}).On("get node h2 .*json", hosttest.Answer{Stdout: fmt.Sprintf(node, `"etcd.k3s.cattle.io/removed-node-name":"h2-1"`)}).
				On("get node h2 .*json", hosttest.Answer{Stdout: fmt.Sprintf(node, ""), Times: 2})
		}, d.Leave},
		"leave-agent": {2, threeHosts, nothing, d.Leave},
		"forget":      {2, threeHosts, func(first, _ *hosttest.Runner) { first.On("get node/h3", hosttest.Answer{Stdout: "node/h3\n"}) }, d.Forget},
		"forget-gone": {2, threeHosts, nothing, d.Forget},
		"reset":       {2, threeHosts, nothing, d.Reset},
		"upgrade": {2, threeHosts, func(_, r *hosttest.Runner) {
			onServer(r, "").On("^cmp -s", hosttest.Answer{Code: 1}).On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1})
		}, upgrade},
		"renew": {1, threeHosts, func(_, r *hosttest.Runner) {
			startedAs(t, r, threeHosts)
			r.On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1}).On("cmp -s", hosttest.Answer{Code: 1})
		}, d.Renew},
		"upgrade-done": {1, threeHosts, func(_, r *hosttest.Runner) { startedAs(t, r, threeHosts) }, upgrade},
	} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newCluster(t, c.hosts, "")
			first, r := hosts[0], hosts[c.host]
			onNewHost(r)
			if r != first {
				onServer(first, "")
			}
			c.setup(first, r)
			got := commandsOf(t, r, c.steps(cl, cl.Hosts[c.host]))
			if r != first {
				got += "-- on the first control plane\n" + lines(first)
			}
			goldenfile.Equal(t, "testdata/steps/"+name+".txt", got)
		})
	}
}

// startedAs makes the host a server that was started by us and runs.
func startedAs(t *testing.T, r *hosttest.Runner, hosts string) {
	t.Helper()
	c, runners := newCluster(t, hosts, "")
	onNewHost(runners[0])
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	require.NoError(t, err)
	onServer(r, "").Put(config, string(runners[0].Files()[config].Data), 0o600).On("root-kubeconfig.*grep", hosttest.Answer{})
}

// A second run keeps the tokens and what a cluster cannot change, and says so where it is asked to.
func TestInit_Again(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	startedAs(t, hosts[0], oneHost)
	before := string(hosts[0].Files()[config].Data)
	c.File.K3s = &clusterfile.K3s{Server: map[string]any{"disable": []string{"traefik"}}}
	hosts[0].On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1})
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	require.NoError(t, err)
	after := string(hosts[0].Files()[config].Data)
	require.Equal(t, before, strings.Replace(after, "disable:\n- traefik\n", "", 1))

	c.File.K3s.Server["cluster-cidr"] = []string{"10.9.0.0/16"}
	_, err = do(t, quick().Init(c, c.Hosts[0]))
	var fixed *k3s.FixedError
	require.ErrorAs(t, err, &fixed)
	require.Equal(t, []string{"cluster-cidr"}, fixed.Keys)
	require.Equal(t, after, string(hosts[0].Files()[config].Data), "nothing was changed")
}

// A lost configuration does not make a new cluster's token: k3s keeps the one it was started with.
func TestInit_ConfigurationLost(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	onNewHost(hosts[0]).Put("/var/lib/rancher/k3s/server/token", "K10"+hash+"::server:"+serverToken+"\n", 0o600)
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, configOf(t, hosts[0]), "token: K10HASH::server:"+serverToken+"\n")
}

// A host with the credentials of another cluster is left alone.
func TestJoin_OtherCluster(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, "")
	onServer(hosts[0], "")
	onNewHost(hosts[2]).On("test -e /var/lib/rancher/k3s/agent/client-kubelet.crt", hosttest.Answer{}).
		On("sha256sum <", hosttest.Answer{Stdout: strings.Repeat("cd", 32) + "  -\n"})
	_, err := do(t, quick().Join(c, c.Hosts[2]))
	var other *k3s.OtherClusterError
	require.ErrorAs(t, err, &other)
	require.NotContains(t, hosts[2].Files(), config)
}

// A service that is started again and again is not waited for until the time is up.
func TestStart_Restarts(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	n := 6 // of an earlier time
	onNewHost(hosts[0]).On(`get --raw /readyz`, hosttest.Answer{Code: 1}).
		On("NRestarts", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			n++
			return hosttest.Answer{Stdout: fmt.Sprintln(n)}
		}}).
		On("journalctl", hosttest.Answer{Stdout: "level=fatal msg=\"invalid flag\""})
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	require.EqualError(t, err, "starting the cluster (k3s server): 10.0.0.1: k3s does not come up: it has ended 4 times; the last it wrote:\nlevel=fatal msg=\"invalid flag\"")

	c, hosts = newCluster(t, oneHost, "")
	onNewHost(hosts[0]).On(`get --raw /readyz`, hosttest.Answer{Code: 1})
	slow := quick()
	slow.StartTimeout = 20 * time.Millisecond
	_, err = do(t, slow.Init(c, c.Hosts[0]))
	require.ErrorContains(t, err, "it is not part of the cluster after 20ms")
}

func TestInstall_Registry(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, "")
	onNewHost(hosts[2])
	c.Registry.Servers = []string{"10.0.0.1", "10.0.0.2"}
	steps := quick().Install(c, c.Hosts[2])
	_, err := do(t, steps)
	require.NoError(t, err)
	file := hosts[2].Files()["/etc/rancher/k3s/registries.yaml"]
	require.Equal(t, "-rw-------", file.Mode.String())
	goldenfile.Equal(t, "testdata/registries.yaml", string(file.Data))
	require.Equal(t, "CA", string(hosts[2].Files()["/etc/rancher/k3s/sealer-registry-ca.crt"].Data))
	done, err := steps[3].Done(t.Context())
	require.NoError(t, err)
	require.True(t, done)

	c.Registry.Password = "another"
	done, err = steps[3].Done(t.Context())
	require.NoError(t, err)
	require.False(t, done, "a new password has to be placed")

	c.Registry = runtime.Registry{Domain: "hub.corp.example", Port: 443, External: true, Path: "mirror", Domains: []string{"docker.io"}, Username: "u", Password: "hidden"}
	require.NoError(t, steps[3].Do(t.Context(), io.Discard))
	goldenfile.Equal(t, "testdata/registries-external.yaml", string(hosts[2].Files()["/etc/rancher/k3s/registries.yaml"].Data))
	for name, r := range map[string]runtime.Registry{
		"domain":        {Domain: "hub.shop.example", Port: 5443, Servers: []string{"10.0.0.1", "10.0.0.2"}, CA: []byte("CA"), Username: "team", Password: "hidden"},
		"external-open": {Domain: "hub.corp.example", Port: 5443, External: true, Domains: []string{"localhost:5000"}},
	} {
		c.Registry = r
		require.NoError(t, steps[3].Do(t.Context(), io.Discard))
		goldenfile.Equal(t, "testdata/registries-"+name+".yaml", string(hosts[2].Files()["/etc/rancher/k3s/registries.yaml"].Data))
	}
}

// A program that is not what its image says is not started.
func TestInstall_WrongVersion(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	onNewHost(hosts[0]).On("cmp -s .*uninstall", hosttest.Answer{Code: 1}).On("--version", hosttest.Answer{Stdout: "k3s version v1.35.1+k3s1 (00)\n"})
	_, err := do(t, quick().Install(c, c.Hosts[0]))
	require.ErrorContains(t, err, `10.0.0.1: the image says that it holds k3s v1.36.3+k3s1, and its bin/k3s says "k3s version v1.35.1+k3s1 (00)"`)
}

func TestInstall_Files(t *testing.T) {
	c, _ := newCluster(t, threeHosts, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {flannel-conf: ../etc/net.json, resolv-conf: /etc/r}\n")
	steps := quick().Install(c, c.Hosts[0])
	require.Equal(t, "placing the files that k3s' settings name", steps[4].Name)
	require.Len(t, quick().Install(c, c.Hosts[2]), 4, "the agent's settings name none")
}

func TestCheck(t *testing.T) {
	check := func(c *runtime.Cluster) (got []string) {
		for _, p := range quick().Check(c) {
			require.NotEmpty(t, p.Fix)
			got = append(got, p.String())
		}
		return got
	}
	c, _ := newCluster(t, threeHosts, everything)
	require.Empty(t, check(c))

	for _, h := range c.Hosts {
		h.Facts.Cgroup, h.Facts.CPUs, h.Facts.Memory, h.Facts.Init = 1, 1, 1<<30, runtime.OpenRC
		h.Facts.Listening = []runtime.Listener{{Port: 7443}, {Port: 2380}, {Port: 10250, Process: "kubelet"}}
	}
	c.Hosts[2].Facts.Init = "init"
	c.Hosts[2].Facts.Memory = 256 << 20
	c.Images = append(images[2:7:7], "quay.io/a/b@sha256:1")
	c.File.Kubeadm = map[string]map[string]any{"KubeletConfiguration": {}}
	c.File.K3s.Server["helm-controller-arg"] = []string{"x"}
	c.File.K3s.Server["cluster-init"] = false
	c.File.K3s.Server["docker"] = true
	c.Hosts[0].Facts.Docker = &runtime.Docker{}
	c.Hosts[1].Facts.Docker = &runtime.Docker{Version: "19.03.15", CgroupDriver: "cgroupfs"}
	c.File.K3s.Agent["container-runtime-endpoint"] = "unix:///run/containerd/containerd.sock"
	c.File.K3s.Server["bind-address"] = "10.0.0.1"
	c.File.K3s.Agent["node-external-ip"] = []string{"192.0.2.1"}
	c.Metadata.ClusterRuntimeVersion = "v1.36.2+k3s1"
	goldenfile.Equal(t, "testdata/check.txt", strings.Join(check(c), "\n")+"\n")

	c.File.K3s = &clusterfile.K3s{
		IgnoreChecks: []string{"cpu", "memory", "cgroup"},
		Server:       map[string]any{"disable": []string{"traefik", "servicelb", "coredns", "local-storage", "metrics-server"}, "pause-image": "r.example.com/sandbox:1"},
		Agent:        map[string]any{},
	}
	c.Images = []string{"r.example.com/sandbox:1"}
	c.File.Kubeadm = nil
	for _, h := range c.Hosts {
		h.Facts.Listening, h.Facts.Init = nil, "systemd"
	}
	require.Empty(t, check(c), "what the Clusterfile accepts is accepted")

	for _, version := range []string{"", "v1.30.2+k3s1", "v1.38.0+k3s1", "v1.32.2+k3s1", "stable"} {
		c.Metadata.ClusterRuntimeVersion = version
		require.Len(t, check(c), 1, version)
	}
}

func TestCheck_SELinux(t *testing.T) {
	for document, refused := range map[string][]string{
		"":                        {"10.0.0.1", "10.0.0.3"},
		"server: {selinux: true}": {"10.0.0.3"},
		"server: {selinux: true}\nagent: {selinux: true}": nil,
		"ignoreChecks: [selinux]":                         nil,
	} {
		c, _ := newCluster(t, threeHosts, "---\napiVersion: sealer.io/v2\nkind: K3s\n"+document+"\n")
		c.Hosts[0].Facts.SELinux, c.Hosts[2].Facts.SELinux = true, true
		var got []string
		for _, p := range quick().Check(c) {
			if p.Check == "selinux" {
				got = append(got, p.Host)
			}
		}
		require.Equal(t, refused, got, document)
	}
}

// Control planes share no datastore that is within each of them.
func TestCheck_Datastore(t *testing.T) {
	for endpoint, own := range map[string]bool{
		"sqlite:///var/lib/x.db": true, "sqlite://": true, "nats://": true, "nats://10.0.0.9?noEmbed=true": false,
		"postgres://k3s:hunter2@10.0.0.9/k3s": false, "https://10.0.0.9:2379": false,
	} {
		for layout, several := range map[string]bool{oneHost: false, threeHosts: true} {
			c, _ := newCluster(t, layout, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {datastore-endpoint: \""+endpoint+"\"}\n")
			found := slices.ContainsFunc(quick().Check(c), func(p runtime.Problem) bool { return p.Check == "datastore" })
			require.Equal(t, own && several, found, "%s, several: %v", endpoint, several)
		}
	}
}

// The program is looked at before it is placed, each time.
func TestUpgrade_AnotherVersion(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "")
	c.Metadata.ClusterRuntimeVersion = "v1.36.3+k3s1"
	hosts[0].On("^cmp ", hosttest.Answer{Code: 1}).On("k3s --version", hosttest.Answer{Stdout: "k3s version v1.37.0+k3s1 (abc)\n"})
	for range 2 {
		running, _ := quick().Upgrade(c, c.Hosts[0])
		_, err := do(t, running)
		require.ErrorContains(t, err, `the image says that it holds k3s v1.36.3+k3s1, and its bin/k3s says "k3s version v1.37.0+k3s1 (abc)"`)
		require.NotContains(t, lines(hosts[0]), "set -eu", "nothing is placed")
	}
}

// Snapshots are k3s' own with etcd, and made while k3s is stopped with SQLite.
func TestSnapshot(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		setup  func(r *hosttest.Runner)
	}{
		"etcd": {"", func(*hosttest.Runner) {}},
		"sqlite": {"", func(r *hosttest.Runner) {
			r.On("^test -e .*etcd", hosttest.Answer{Code: 1}).On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1})
		}},
	} {
		cl, hosts := newCluster(t, threeHosts, "")
		c.setup(onServer(hosts[0], c.config))
		goldenfile.Equal(t, "testdata/steps/snapshot-"+name+".txt", commandsOf(t, hosts[0], quick().Snapshot(cl, cl.Hosts[0], "/var/backups/x")))
	}
	c, hosts := newCluster(t, threeHosts, "")
	onServer(hosts[0], "datastore-endpoint: mysql://root:hunter2@tcp(10.0.0.9)/k3s\n")
	for _, steps := range [][]runtime.Step{quick().Snapshot(c, c.Hosts[0], "/x"), quick().Restore(c, c.Hosts[0], "/x")[:1]} {
		_, err := do(t, steps)
		var external *k3s.ExternalError
		require.ErrorAs(t, err, &external)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// The host of a restore is the first of its cluster; the others forget their data and join it by its address.
func TestRestore(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, "")
	stale := func(r *hosttest.Runner) {
		r.On(`(?s)stamp.*= "`, hosttest.Answer{Code: 1}).On("= 1f8b", hosttest.Answer{Code: 1})
	}
	stale(onServer(hosts[0], "cluster-init: true\n"))
	stale(onServer(hosts[1], ""))
	hosts[1].On("get node h2", hosttest.Answer{Stdout: "node/h2\n"})
	_, err := do(t, quick().Restore(c, c.Hosts[1], "/var/backups/x"))
	require.NoError(t, err)
	goldenfile.Equal(t, "testdata/steps/restore.txt", lines(hosts[1])+"-- on the other control plane\n"+lines(hosts[0]))
	require.Equal(t, "# Written by sealer. Change the K3s document of the Clusterfile instead.\nagent-token: "+agentToken+
		"\ncluster-init: true\nnode-name: h1\ntoken: "+serverToken+"\n", configOf(t, hosts[1]))
	require.Equal(t, "# Written by sealer. Change the K3s document of the Clusterfile instead.\nagent-token: "+agentToken+
		"\nnode-name: h1\nserver: https://10.0.0.2:6443\ntoken: K10HASH::server:"+serverToken+"\n", configOf(t, hosts[0]))
}

func TestHealth(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, "")
	onServer(hosts[0], "")
	var names []string
	for _, p := range quick().Health(c, c.Hosts[0]) {
		require.NoError(t, p.Ask(t.Context()))
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"k3s", "API server", runtime.ProbeDatastore}, names)
	onNewHost(hosts[2])
	probes := quick().Health(c, c.Hosts[2])
	require.Len(t, probes, 1)
	require.EqualError(t, probes[0].Ask(t.Context()), "10.0.0.3: k3s-agent does not run")
}

// Certificates are told by their files; keys are never read.
func TestCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	end := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c, hosts := newCluster(t, threeHosts, "")
	hosts[0].On("for f in", hosttest.Answer{Stdout: "file: server/tls/server-ca.crt\n" + string(text)})
	got, err := quick().Certificates(t.Context(), c, c.Hosts[0])
	require.NoError(t, err)
	require.Equal(t, []runtime.Certificate{{Name: "server/tls/server-ca.crt", NotAfter: end, CA: true}}, got)
}

func TestServerNames(t *testing.T) {
	c, hosts := newCluster(t, threeHosts, everything)
	onServer(hosts[0], "")
	_, err := do(t, quick().ServerNames(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, configOf(t, hosts[0]), "tls-san:\n- apiserver.cluster.local\n- 10.0.0.1\n- k8s.example.com\ntoken: "+serverToken+"\n")
	require.Empty(t, quick().ServerNames(c, c.Hosts[2]))

	c.File.Env = map[string]string{"CertSANs": "a.example.com,10.9.9.9"}
	_, err = do(t, quick().ServerNames(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, configOf(t, hosts[0]), "- k8s.example.com\n- a.example.com\n- 10.9.9.9\ntoken: ")
}

// What scripts are told of services is what k3s makes of its settings.
func TestServiceIPs(t *testing.T) {
	for documents, want := range map[string]string{
		"": "10.43.0.1 10.43.0.10",
		"---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {service-cidr: \"10.1.0.0/16,fd00::/112\", cluster-dns: 10.1.0.53}\n": "10.1.0.1 10.1.0.53",
	} {
		c, _ := newCluster(t, threeHosts, documents)
		api, dns := quick().ServiceIPs(c)
		require.Equal(t, want, api+" "+dns)
	}
}

func TestScripts_Shellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	files, err := filepath.Glob("scripts/*.sh")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out, err := exec.Command(shellcheck, append([]string{"-s", "sh"}, files...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// An image that runs Helm in the place of k3s' own has to be packed.
func TestImages_HelmJob(t *testing.T) {
	c, _ := newCluster(t, oneHost, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {helm-job-image: \"r.example.com/tools/helm:v1\"}\n")
	images := quick().Images(c)
	require.Contains(t, images, "helm")
	require.NotContains(t, images, "klipper-helm")
}
