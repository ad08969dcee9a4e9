// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

const token = "abcdef.0123456789abcdef"

// newCluster has its runners beside it: h1, h2 control planes, h3 worker.
func newCluster(t *testing.T, version, documents string) (*runtime.Cluster, []*hosttest.Runner) {
	t.Helper()
	return newClusterOn(t, version, "  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}\n  - {ips: [10.0.0.3], roles: [node]}\n", documents)
}

// newClusterOn has other hosts.
func newClusterOn(t *testing.T, version, hosts, documents string) (*runtime.Cluster, []*hosttest.Runner) {
	t.Helper()
	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\nspec:\n  hosts:\n"+hosts+documents))
	require.NoError(t, err)
	c := &runtime.Cluster{
		File: f, Digest: "sha256:1",
		Images:   []string{"registry.k8s.io/kube-apiserver:" + version},
		Registry: runtime.Registry{Domain: "sea.hub", Port: 5000, CA: []byte("CA"), Username: "u", Password: "hidden"},
	}
	var runners []*hosttest.Runner
	for i, m := range f.Machines() {
		r := hosttest.New(m.Address)
		runners = append(runners, r)
		c.Hosts = append(c.Hosts, &runtime.Host{
			Spec: m, Runner: r, Rootfs: "/rootfs", Platform: "linux/amd64",
			Facts: runtime.Facts{Hostname: fmt.Sprintf("H%d", i+1), Init: "systemd", CPUs: 2, Memory: 4 << 30, Cgroup: 2,
				Addresses: []netip.Prefix{netip.MustParsePrefix(m.Address + "/24")}},
		})
	}
	return c, runners
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

func ca(t *testing.T) (pemText, hash string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	sum := sha256.Sum256(spki)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "sha256:" + hex.EncodeToString(sum[:])
}

// onNewHost answers as a host does on which nothing was begun; the API server answers once kubeadm init has run.
func onNewHost(r *hosttest.Runner) *hosttest.Runner {
	return r.
		On(`^sh -c '\[ -e /etc/kubernetes`, hosttest.Answer{Code: 1}).
		On(`^test -e /etc/kubernetes/kubelet.conf`, hosttest.Answer{Code: 1}).
		On(`get --raw /readyz`, hosttest.Answer{Code: 1}).
		On(`root-kubeconfig.*grep`, hosttest.Answer{Code: 1}).
		On(`etcd members`, hosttest.Answer{Stdout: "[]"}).
		On(`token create`, hosttest.Answer{Stdout: token + "\n"})
}

// The configuration for every minor version, as kubeadm gets it.
func TestConfig(t *testing.T) {
	caPEM, hash := ca(t)
	for _, version := range []string{"v1.31.14", "v1.32.13", "v1.33.13", "v1.34.10", "v1.35.4", "v1.36.3"} {
		t.Run(version, func(t *testing.T) {
			c, hosts := newCluster(t, version, "")
			onNewHost(hosts[0])
			_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
			require.NoError(t, err)
			file := hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"]
			require.Equal(t, "-rw-------", file.Mode.String())
			golden(t, "testdata/"+version+"/init.yaml", string(file.Data))

			hosts[0].Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
			for i, name := range []string{1: "join-control-plane.yaml", 2: "join-worker.yaml"} {
				if name == "" {
					continue
				}
				onNewHost(hosts[i])
				_, err := do(t, kubernetes.New().Join(c, c.Hosts[i]))
				require.NoError(t, err)
				file := hosts[i].Files()["/etc/kubernetes/kubeadm-join.yaml"]
				require.Equal(t, "-rw-------", file.Mode.String())
				text := strings.ReplaceAll(string(file.Data), hash, "sha256:HASH")
				golden(t, "testdata/"+version+"/"+name, certificateKeys.replace(text))
			}
		})
	}
}

type keyMask struct{}

var certificateKeys keyMask

// replace hides the certificate key, which is another each time.
func (keyMask) replace(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if key, value, ok := strings.Cut(l, "certificateKey: "); ok && len(strings.Trim(value, `"`)) == 64 {
			lines[i] = key + "certificateKey: KEY"
		}
	}
	return strings.Join(lines, "\n")
}

// A user's documents go over our defaults; what identifies a node stays ours.
func TestConfig_ClusterfileOverDefaults(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", `---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {bindPort: 7443}
nodeRegistration:
  name: other
  ignorePreflightErrors: [SystemVerification]
  kubeletExtraArgs: [{name: node-ip, value: 1.2.3.4}, {name: v, value: "4"}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer: {certSANs: [k8s.example.com], extraArgs: [{name: profiling, value: "false"}]}
networking: {podSubnet: 10.1.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
`)
	c.File.Env = map[string]string{"CertSANs": "a.example.com;10.9.9.9, k8s.example.com"}
	onNewHost(hosts[0])
	_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
	require.NoError(t, err)
	golden(t, "testdata/merged.yaml", string(hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"].Data))
}

// Pods of a cluster without workers run on its control planes, unless the user says otherwise.
func TestConfig_NoWorkers(t *testing.T) {
	for documents, want := range map[string]string{
		"": "  taints: []\n",
		"---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {taints: [{key: mine, effect: NoExecute}]}\n": "  taints:\n  - effect: NoExecute\n    key: mine\n",
	} {
		c, hosts := newCluster(t, "v1.36.3", documents)
		c.Hosts = c.Hosts[:1]
		onNewHost(hosts[0])
		_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
		require.NoError(t, err)
		require.Contains(t, string(hosts[0].Files()["/etc/kubernetes/kubeadm.yaml"].Data), want)
	}
}

// No command, no output and no error holds a token, a key or a password, and files with them are removed.
func TestJoin_KeepsSecrets(t *testing.T) {
	for _, fails := range []bool{false, true} {
		caPEM, _ := ca(t)
		c, hosts := newCluster(t, "v1.36.3", "")
		onNewHost(hosts[0]).Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
		onNewHost(hosts[1])
		if fails {
			hosts[1].On(`kubeadm join`, hosttest.Answer{Stderr: "error execution phase", Code: 1})
		}
		out, err := do(t, kubernetes.New().Join(c, c.Hosts[1]))
		require.Equal(t, fails, err != nil)
		all := out + fmt.Sprint(err) + strings.Join(hosts[0].Commands(), "\n") + strings.Join(hosts[1].Commands(), "\n")
		config := string(hosts[1].Files()["/etc/kubernetes/kubeadm-join.yaml"].Data)
		require.Contains(t, config, token)
		for line := range strings.SplitSeq(config, "\n") {
			if _, key, ok := strings.Cut(line, "certificateKey: "); ok {
				require.NotContains(t, all, strings.Trim(key, `"`))
			}
		}
		require.NotContains(t, all, "0123456789abcdef")
		require.Contains(t, hosts[1].Commands(), "rm -f -- /etc/kubernetes/kubeadm-join.yaml")
		require.Contains(t, hosts[0].Commands(), "rm -f -- /etc/kubernetes/kubeadm-certs.yaml")
		require.Contains(t, hosts[0].Commands(), "/usr/local/bin/kubeadm token delete abcdef --kubeconfig /etc/kubernetes/admin.conf")
	}
}

func commandsOf(t *testing.T, r *hosttest.Runner, steps []runtime.Step) string {
	t.Helper()
	_, err := do(t, steps)
	require.NoError(t, err)
	var lines []string
	for _, c := range r.Calls() {
		line := c.String()
		if i := strings.IndexByte(line, '\n'); i >= 0 {
			line = line[:i] + "…"
		}
		if c.Mutates {
			line = "! " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n"
}

func both(upgrade func(*runtime.Cluster, *runtime.Host) (running, drained []runtime.Step)) func(*runtime.Cluster, *runtime.Host) []runtime.Step {
	return func(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
		running, drained := upgrade(c, h)
		return append(running, drained...)
	}
}

// What is done on a host depends on what is found there. Lines with ! change the host.
func TestSteps(t *testing.T) {
	ready := func(r *hosttest.Runner) { r.On(`get --raw /readyz`, hosttest.Answer{}) }
	begun := func(r *hosttest.Runner) { r.On(`^sh -c '\[ -e /etc/kubernetes`, hosttest.Answer{}) }
	caPEM, _ := ca(t)
	d := kubernetes.New()
	for name, c := range map[string]struct {
		host  int
		setup func(first, r *hosttest.Runner)
		steps func(*runtime.Cluster, *runtime.Host) []runtime.Step
	}{
		"install":   {2, func(_, r *hosttest.Runner) { r.On("is-active|is-enabled", hosttest.Answer{Code: 3}) }, d.Install},
		"init-new":  {0, func(_, _ *hosttest.Runner) {}, d.Init},
		"init-half": {0, func(_, r *hosttest.Runner) { begun(r); r.On("is-active", hosttest.Answer{Code: 3}) }, d.Init},
		"init-not-finished": {0, func(_, r *hosttest.Runner) {
			begun(r)
			r.On(`get --raw /readyz`, hosttest.Answer{Code: 1, Times: 1})
			r.On("x", hosttest.Answer{})
		}, d.Init},
		"init-done": {0, func(_, r *hosttest.Runner) { ready(r); r.On("root-kubeconfig.*grep", hosttest.Answer{}) }, d.Init},
		"join-new":  {2, func(_, _ *hosttest.Runner) {}, d.Join},
		"join-half": {2, func(_, r *hosttest.Runner) { begun(r) }, d.Join},
		"join-done": {2, func(first, r *hosttest.Runner) {
			first.On("get node h3", hosttest.Answer{Stdout: "node/h3\n"})
			r.On("test -e", hosttest.Answer{})
		}, d.Join},
		"join-stale-node":    {2, func(first, _ *hosttest.Runner) { first.On("get node h3", hosttest.Answer{Stdout: "node/h3\n"}) }, d.Join},
		"join-control-plane": {1, func(_, _ *hosttest.Runner) {}, d.Join},
		"leave-worker":       {2, func(_, _ *hosttest.Runner) {}, d.Leave},
		"leave-control-plane": {1, func(first, _ *hosttest.Runner) {
			first.On("etcd members", hosttest.Answer{Stdout: `[{"id":"11","name":"h1"},{"id":"12","name":"","peerURLs":["https://10.0.0.2:2380"]}]`})
		}, d.Leave},
		"leave-gone": {1, func(first, _ *hosttest.Runner) {
			first.On("etcd members", hosttest.Answer{Stdout: `[{"id":"11","name":"h1","peerURLs":["https://10.0.0.1:2380"]}]`})
		}, d.Leave},
		"forget":      {2, func(first, _ *hosttest.Runner) { first.On("get node h3", hosttest.Answer{Stdout: "node/h3\n"}) }, d.Forget},
		"forget-gone": {2, func(_, _ *hosttest.Runner) {}, d.Forget},
		"upgrade-first": {0, func(_, r *hosttest.Runner) {
			ready(r)
			r.On("get configmap kubeadm-config", hosttest.Answer{Stdout: "kubernetesVersion: v1.35.4\n"}).On("is-active|is-enabled", hosttest.Answer{Code: 3}).
				On("grep -q|stat -L|cmp -s", hosttest.Answer{Code: 1})
		}, both(d.Upgrade)},
		"upgrade-next": {1, func(_, r *hosttest.Runner) {
			ready(r)
			r.On("get configmap kubeadm-config", hosttest.Answer{Stdout: "kubernetesVersion: v1.36.3\n"}).On("grep -q|stat -L|cmp -s", hosttest.Answer{Code: 1})
		}, both(d.Upgrade)},
		"upgrade-done": {0, func(_, r *hosttest.Runner) {
			r.On("get configmap kubeadm-config", hosttest.Answer{Stdout: "kubernetesVersion: v1.36.3\n"}).On("get --raw /readyz", hosttest.Answer{})
		}, both(d.Upgrade)},
		"upgrade-worker": {2, func(_, r *hosttest.Runner) { r.On("stat -L", hosttest.Answer{Code: 1}) }, both(d.Upgrade)},
		"snapshot": {0, func(_, r *hosttest.Runner) { r.On("test -s", hosttest.Answer{Code: 1}) }, func(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
			return d.Snapshot(c, h, "/var/lib/sealer/snapshots/a.db")
		}},
		"restore": {0, func(_, r *hosttest.Runner) {
			ready(r)
			r.Put("/etc/kubernetes/admin.conf", kubeconfig("bmV3"), 0o600).On("^test -e /var/lib/sealer/kubernetes/restored-from-another", hosttest.Answer{Code: 1})
		}, func(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
			return d.Restore(c, h, "/var/lib/sealer/snapshots/a.db")
		}},
		"reset":       {2, func(_, _ *hosttest.Runner) {}, d.Reset},
		"reset-empty": {2, func(_, r *hosttest.Runner) { r.On("test -x", hosttest.Answer{Code: 1}) }, d.Reset},
	} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newCluster(t, "v1.36.3", "")
			first, r := hosts[0], hosts[c.host]
			onNewHost(r)
			if r != first {
				onNewHost(first)
			}
			first.Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
			if name == "init-not-finished" {
				// ready from the second question on
				n := 0
				r.On(`get --raw /readyz`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
					if n++; n == 1 {
						return hosttest.Answer{Code: 1}
					}
					return hosttest.Answer{}
				}})
				begun(r)
			} else {
				c.setup(first, r)
			}
			got := commandsOf(t, r, c.steps(cl, cl.Hosts[c.host]))
			if r != first {
				got += "-- on the first control plane\n"
				for _, call := range first.Calls() {
					got += call.String() + "\n"
				}
			}
			golden(t, "testdata/steps/"+name+".txt", got)
		})
	}
}

// A kubeadm join of a control plane that was cut may have made a node already, without its member of etcd or its marks: only one whose node is
// marked, which is what kubeadm does last, has come through. One that was whole once is not looked at so closely.
func TestJoin_Cut(t *testing.T) {
	caPEM, _ := ca(t)
	for name, c := range map[string]struct {
		marked, complete, again bool
	}{
		"unmarked": {again: true}, "marked": {marked: true}, "whole once": {complete: true},
	} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newCluster(t, "v1.36.3", "")
			first, r := hosts[0], hosts[1]
			onNewHost(first)
			onNewHost(r)
			first.Put("/etc/kubernetes/pki/ca.crt", caPEM, 0o644)
			first.On("get node h2", hosttest.Answer{Stdout: "node/h2\n"})
			marked := "node/h1\n"
			if c.marked {
				marked += "node/h2\n"
			}
			first.On("get nodes --selector node-role.kubernetes.io/control-plane", hosttest.Answer{Stdout: marked})
			r.On("test -e /etc/kubernetes/kubelet.conf", hosttest.Answer{}).On(`^sh -c '\[ -e /etc/kubernetes`, hosttest.Answer{})
			first.On("etcd members", hosttest.Answer{Stdout: `[{"id":"11","name":"h1"},{"id":"12","name":"","peerURLs":["https://10.0.0.2:2380"]}]`})
			if c.complete {
				cl.Hosts[1].Facts.State = &runtime.HostState{Complete: true}
			}
			require.NoError(t, kubernetes.New().Join(cl, cl.Hosts[1])[0].Do(t.Context(), io.Discard))
			did := strings.Join(r.Commands(), "\n")
			require.Equal(t, c.again, strings.Contains(did, "kubeadm reset"), did)
			require.Equal(t, c.again, strings.Contains(did, "kubeadm join"), did)
			require.Equal(t, c.again, strings.Contains(strings.Join(first.Commands(), "\n"), "etcd remove"), "its data is gone, without which it does not start again")
		})
	}
}

// Hosts that wait fetch what they need to join, and nothing that the image packs besides.
func TestPrefetch(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	c.Images = nil
	require.Empty(t, kubernetes.New().Prefetch(c, c.Hosts[2]), "nothing of it is packed")
	c.Images = []string{"registry.k8s.io/kube-apiserver:v1.36.3", "r.example.com:5000/k8s/pause:3.10.2", "registry.k8s.io/kube-proxy:v1.36.3", "registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/coredns/coredns:v1.13.1", "docker.io/library/nginx:1.27"}
	for i, want := range map[int][]string{1: c.Images[:5], 2: c.Images[1:3]} {
		steps := kubernetes.New().Prefetch(c, c.Hosts[i])
		require.Len(t, steps, 1)
		require.Equal(t, "v1.36.3", steps[0].Key)
		require.NoError(t, steps[0].Do(t.Context(), io.Discard))
		require.Equal(t, want, hosts[i].Calls()[0].Argv[4:])
	}

	// What cannot be fetched is said, and holds up nothing.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "crictl"), []byte("#!/bin/sh\n[ \"$4\" = good:1 ] && echo pulled\n"), 0o755))
	cmd := exec.Command("sh", append(slices.Clone(hosts[2].Calls()[0].Argv[1:4]), "good:1", "bad:1")...)
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "bad:1 could not be fetched now\n", string(out))
}

// Nothing is drained while a node is without kube-proxy; one that does not come back is not waited for for ever.
func TestUpgrade_WaitsForKubeProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hosts := newCluster(t, "v1.36.3", "")
		running, _ := kubernetes.New().Upgrade(c, c.Hosts[0])
		wait := running[len(running)-1]
		set := func(observed, updated, available int) hosttest.Answer {
			return hosttest.Answer{Stdout: fmt.Sprintf(`{"metadata":{"generation":2},"status":{"observedGeneration":%d,"desiredNumberScheduled":3,"updatedNumberScheduled":%d,"numberAvailable":%d}}`, observed, updated, available)}
		}
		answers := []hosttest.Answer{set(1, 3, 3), set(2, 0, 3), {Stderr: "connection refused", Code: 1}, set(2, 1, 2), set(2, 1, 2), set(2, 3, 2), set(2, 3, 3)}
		hosts[0].On("get daemonset kube-proxy", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			a := answers[0]
			if len(answers) > 1 {
				answers = answers[1:]
			}
			return a
		}})
		done, err := wait.Done(t.Context())
		require.NoError(t, err)
		require.False(t, done, "the DaemonSet is as it was before kubeadm changed it")
		var log strings.Builder
		require.NoError(t, wait.Do(t.Context(), &log))
		require.Equal(t, "0 of 3 are replaced, 3 run\n1 of 3 are replaced, 2 run\n3 of 3 are replaced, 2 run\n3 of 3 are replaced, 3 run\n", log.String())
		require.Len(t, answers, 1)
		done, err = wait.Done(t.Context())
		require.NoError(t, err)
		require.True(t, done)

		answers = []hosttest.Answer{set(2, 2, 2)}
		began := time.Now()
		log.Reset()
		require.NoError(t, wait.Do(t.Context(), &log))
		require.Equal(t, "2 of 3 are replaced, 2 run\ngoing on, though nothing has moved for 2m0s\n", log.String())
		require.Equal(t, 2*time.Minute, time.Since(began).Round(time.Minute))

		answers = []hosttest.Answer{{}} // its work is done by something else
		done, err = wait.Done(t.Context())
		require.NoError(t, err)
		require.True(t, done)
	})
}

// kubeadm's Job does not run while schedulers change: it is asked again. Whatever else is in the way is said at once.
func TestUpgrade_AsksAgainWhereTheClusterWasNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			said  []string
			calls int
			err   bool
		}{
			"in the end":   {[]string{"\t[ERROR CreateJob]: late\n", "\t[ERROR CreateJob]: late\n", ""}, 3, false},
			"never":        {[]string{"\t[ERROR CreateJob]: late\n"}, 3, true},
			"another":      {[]string{"\t[ERROR NumCPU]: few\n"}, 1, true},
			"the first":    {[]string{""}, 1, false},
			"then another": {[]string{"\t[ERROR CreateJob]: late\n", "no\n"}, 2, true},
		} {
			cl, hosts := newCluster(t, "v1.36.3", "")
			n := 0
			hosts[0].On("kubeadm upgrade", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
				said := c.said[min(n, len(c.said)-1)]
				n++
				return hosttest.Answer{Stderr: said, Code: len(said)}
			}})
			hosts[0].On("get configmap kubeadm-config", hosttest.Answer{Stdout: "kubernetesVersion: v1.35.4\n"})
			running, _ := kubernetes.New().Upgrade(cl, cl.Hosts[0])
			began := time.Now()
			err := running[0].Do(t.Context(), io.Discard)
			require.Equal(t, c.err, err != nil, name)
			require.Equal(t, c.calls, n, name)
			require.Equal(t, time.Duration(c.calls-1)*20*time.Second, time.Since(began), name)
			require.Contains(t, hosts[0].Commands(), "rm -f -- /etc/kubernetes/kubeadm-upgrade.yaml", name)
		}
	})
}

// A dead control plane on which others depend is not reset.
func TestInit_NotWhenOthersHaveJoined(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	onNewHost(hosts[0]).On(`^sh -c '\[ -e /etc/kubernetes`, hosttest.Answer{}).On("is-active", hosttest.Answer{Code: 3})
	c.Hosts[2].Facts.Paths = []string{"/etc/kubernetes/kubelet.conf"}
	_, err := do(t, kubernetes.New().Init(c, c.Hosts[0]))
	var stuck *kubernetes.StuckError
	require.ErrorAs(t, err, &stuck)
	require.Equal(t, "10.0.0.3", stuck.Joined)
	require.NotContains(t, strings.Join(hosts[0].Commands(), "\n"), "reset")
}

// A lost host leaves through the control plane that is asked.
func TestLeave_Lost(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	c.Contact = c.Hosts[1]
	c.Hosts[0].Lost, c.Hosts[0].Runner = errors.New("no route to host"), nil
	hosts[1].On("etcd members", hosttest.Answer{Stdout: `[{"id":"11","name":"h1"},{"id":"12","name":"h2"}]`})
	hosts[1].On("get node h1", hosttest.Answer{Stdout: "node/h1\n"})
	d := kubernetes.New()
	_, err := do(t, append(d.Leave(c, c.Hosts[0]), d.Forget(c, c.Hosts[0])...))
	require.NoError(t, err)
	commands := strings.Join(hosts[1].Commands(), "\n")
	require.Contains(t, commands, "etcd remove --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key --id 11")
	require.Contains(t, commands, "delete node h1 --ignore-not-found")
	require.Empty(t, hosts[0].Commands())
}

func TestHealth(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	hosts[1].On("readyz/etcd", hosttest.Answer{Stderr: "etcd failed", Code: 1})
	hosts[2].On("is-active kubelet", hosttest.Answer{Stdout: "inactive\n", Code: 3})
	unwell := func(h *runtime.Host) (names []string) {
		for _, p := range kubernetes.New().Health(c, h) {
			require.NotEmpty(t, p.Fix)
			if p.Ask(t.Context()) != nil {
				names = append(names, p.Name)
			}
		}
		return names
	}
	require.Empty(t, unwell(c.Hosts[0]))
	require.Equal(t, []string{runtime.ProbeDatastore}, unwell(c.Hosts[1]))
	require.Contains(t, hosts[1].Commands()[2], "--server https://10.0.0.2:6443 get --raw /readyz")
	require.Equal(t, []string{"kubelet"}, unwell(c.Hosts[2]))

	c.File.Kubeadm["ClusterConfiguration"] = map[string]any{"etcd": map[string]any{"external": map[string]any{}}}
	require.Len(t, kubernetes.New().Health(c, c.Hosts[0]), 3, "an external etcd is not the host's")
	require.Empty(t, kubernetes.New().Leave(c, c.Hosts[1]))
	require.NotContains(t, kubernetes.New().Images(c), "etcd")
}

func TestInstall_Registry(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	steps := kubernetes.New().Install(c, c.Hosts[2])
	_, err := do(t, steps)
	require.NoError(t, err)
	files := hosts[2].Files()
	require.Equal(t, "-rw-------", files["/etc/containerd/certs.d/_default/hosts.toml"].Mode.String())
	require.Equal(t, "CA", string(files["/etc/containerd/certs.d/sealer-ca.crt"].Data))
	done, err := steps[1].Done(t.Context())
	require.NoError(t, err)
	require.True(t, done)

	c.Registry.Password = "another"
	done, err = steps[1].Done(t.Context())
	require.NoError(t, err)
	require.False(t, done, "a new password has to be placed")
	require.NoError(t, steps[1].Do(t.Context(), io.Discard))
}

func TestInstall_KeepsSwapWhereTheKubeletTakesIt(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\n")
	steps := kubernetes.New().Install(c, c.Hosts[2])
	require.NoError(t, steps[2].Do(t.Context(), io.Discard))
	require.Contains(t, hosts[2].Calls()[0].Env, "KeepSwap=true")
}

func TestCheck(t *testing.T) {
	c, _ := newCluster(t, "v1.36.3", `---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {ignorePreflightErrors: [NumCPU, Mem, SELinux]}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
`)
	for _, h := range c.Hosts {
		h.Facts.Cgroup, h.Facts.CPUs, h.Facts.Memory, h.Facts.SELinux = 1, 1, 1<<30, true
	}
	for _, h := range c.Hosts[1:] {
		h.Facts.Nameservers = []string{"10.0.0.1"}
	}
	c.Images = []string{
		"registry.k8s.io/coredns/coredns:v1", "r/etcd:1", "r/kube-apiserver:v1.36.3@sha256:00", "r/kube-controller-manager:v1.36.3",
		"r/kube-proxy:v1.36.3", "r/kube-scheduler:v1.36.3", "localhost:5000/pause:3.10",
	}
	var got []string
	for _, p := range kubernetes.New().Check(c) {
		got = append(got, p.String())
	}
	require.Equal(t, []string{
		"10.0.0.1: it has no nameserver, without which the cluster's DNS does not start [dns]",
		"10.0.0.2: it has 1 CPU, a control plane needs 2 [cpu]",
		"10.0.0.2: it has 1024 MiB of memory, a control plane needs 1700 [memory]",
		"10.0.0.2: SELinux enforces its policy, which knows nothing of what is installed [selinux]",
		"10.0.0.3: SELinux enforces its policy, which knows nothing of what is installed [selinux]",
	}, got, "what the Clusterfile accepts is accepted; the second control plane joins, and is not in the InitConfiguration")

	c.File.Kubeadm["KubeletConfiguration"] = nil
	require.Len(t, kubernetes.New().Check(c), 8, "cgroup v1 on three hosts")
}
