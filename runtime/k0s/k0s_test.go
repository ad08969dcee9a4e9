// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
)

func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

const (
	latest = "v1.36.3+k0s.2"
	secret = "0123456789abcdef"
)

// images are what k0s 1.36 runs by default.
func images() []string {
	return []string{
		"quay.io/k0sproject/pause:3.10.2-0", "quay.io/k0sproject/apiserver-network-proxy-agent:v0.36.0-k0s.0",
		"quay.io/k0sproject/kube-proxy:v1.36.3-1", "quay.io/k0sproject/coredns:1.14.6-k0s.0", "quay.io/k0sproject/metrics-server:v0.9.0-k0s.0",
		"quay.io/k0sproject/cni-node:v1.9.1-k0s.1", "quay.io/k0sproject/kube-router:v2.10.0-iptables1.8.13-k0s.1",
		"quay.io/k0sproject/envoy-distroless:v1.39.0",
	}
}

// newCluster has its runners beside it. hosts is YAML of the Clusterfile; documents go behind it.
func newCluster(t *testing.T, version, hosts, documents string) (*runtime.Cluster, []*hosttest.Runner) {
	t.Helper()
	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\nspec:\n  hosts:\n"+hosts+documents))
	require.NoError(t, err)
	upstream, _, _ := strings.Cut(version, "+")
	c := &runtime.Cluster{
		File: f, Digest: "sha256:1", Images: images(),
		Metadata: clusterimage.Metadata{ClusterRuntime: "k0s", ClusterRuntimeVersion: version, KubeVersion: upstream},
		Registry: runtime.Registry{Domain: "sea.hub", Port: 5000, CA: []byte("CA"), Username: "u", Password: "hidden"},
	}
	var runners []*hosttest.Runner
	for i, m := range f.Machines() {
		r := hosttest.New(m.Address)
		runners = append(runners, r)
		c.Hosts = append(c.Hosts, &runtime.Host{
			Spec: m, Runner: r, Rootfs: "/rootfs", Platform: "linux/amd64",
			Facts: runtime.Facts{
				Hostname: fmt.Sprintf("H%d", i+1), CPUs: 2, Memory: 4 << 30, Cgroup: 2, Init: "systemd",
				Addresses: []netip.Prefix{netip.MustParsePrefix(m.Address + "/24")},
			},
		})
	}
	return c, runners
}

const (
	one        = "  - {ips: [10.0.0.1], roles: [master]}\n"
	oneAndOne  = one + "  - {ips: [10.0.0.3], roles: [node]}\n"
	twoAndOne  = "  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}\n  - {ips: [10.0.0.3], roles: [node]}\n"
	twoAndOne6 = "  - {ips: [\"fd00::1\", \"fd00::2\"], roles: [master]}\n  - {ips: [\"fd00::3\"], roles: [node]}\n"
	clusterDoc = "---\napiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\n"
)

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

// quick never waits long.
func quick() k0s.Distribution {
	return k0s.Distribution{Timeout: 50 * time.Millisecond, Interval: time.Millisecond}
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

// token is as k0s makes them.
func token(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := fmt.Fprintf(w, "apiVersion: v1\nkind: Config\nusers:\n- name: kubelet-bootstrap\n  user: {token: abcdef.%s}\n", secret)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// machine plays k0s on a host: what was installed, whether it runs, and what the cluster knows.
type machine struct {
	*hosttest.Runner
	running, pending, data bool
	role                   string
	nodes                  map[string]bool   // what this host's API server knows; shared within a cluster
	members                map[string]string // of etcd; shared too
}

func play(t *testing.T, c *runtime.Cluster, runners []*hosttest.Runner) []*machine {
	t.Helper()
	nodes, members := map[string]bool{}, map[string]string{}
	var all []*machine
	for i, r := range runners {
		m := &machine{Runner: r, nodes: nodes, members: members}
		all = append(all, m)
		h := c.Hosts[i]
		yes := func(b func() bool) hosttest.Answer {
			return hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
				if b() {
					return hosttest.Answer{}
				}
				return hosttest.Answer{Code: 1}
			}}
		}
		begun := func() bool { return m.data }
		r.On(`^test -x .*(init|clean)-k0s.sh`, hosttest.Answer{Code: 1})
		r.On(`^cmp -s`, hosttest.Answer{Code: 1})
		r.On(`k0s version$`, hosttest.Answer{Stdout: c.Metadata.ClusterRuntimeVersion + "\n"})
		r.On(`^test -e /var/lib/sealer/k0s/own/recorded`, hosttest.Answer{Code: 1})
		r.On(`^test -e /var/lib/k0s/kubelet.conf`, yes(begun))
		r.On(`^sh -c '\[ -e "\$1" \] \|\| `, yes(begun))
		r.On(`^test -e /var/lib/sealer/k0s/own/restart`, yes(func() bool { return m.pending }))
		r.On(`sealer/k0s/own/restart$`, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
			switch {
			case call.Argv[0] == "test" && !m.pending:
				return hosttest.Answer{Code: 1}
			case call.Argv[0] != "test":
				m.pending = call.Argv[0] == "sh"
			}
			return hosttest.Answer{}
		}})
		r.On(`k0s install`, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
			file, forced := "/etc/systemd/system/k0s"+call.Argv[6]+".service", strings.Contains(call.String(), "--force")
			if _, there := r.Files()[file]; there && !forced {
				return hosttest.Answer{Stderr: "Error: Init already exists: " + file, Code: 1}
			}
			flags := strings.TrimSpace(strings.ReplaceAll(strings.Join(call.Argv[7:], " "), "--force", ""))
			r.Put(file, "[Service]\nExecStart=/usr/local/bin/k0s "+call.Argv[6]+" "+flags+"\n", 0o644)
			m.role = call.Argv[6]
			return hosttest.Answer{}
		}})
		start := func(context.Context, hosttest.Call) hosttest.Answer {
			m.running, m.data = true, true
			nodes[h.Facts.NodeName()] = true
			if m.role == "controller" {
				members[h.Facts.Hostname] = "https://" + h.IP() + ":2380"
			}
			return hosttest.Answer{}
		}
		r.On(`--no-block`, hosttest.Answer{Do: start})
		r.On(`is-failed`, hosttest.Answer{Code: 1})
		r.On(`status -o json`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			if !m.running {
				return hosttest.Answer{Code: 1}
			}
			return hosttest.Answer{Stdout: fmt.Sprintf(`{"Version":%q,"Role":%q,"WorkerToAPIConnectionStatus":{"Success":true}}`, c.Metadata.ClusterRuntimeVersion, m.role)}
		}})
		r.On(`get node `, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
			for name := range nodes {
				if strings.Contains(call.String(), "get node "+name+" ") {
					return hosttest.Answer{Stdout: "node/" + name + "\n"}
				}
			}
			return hosttest.Answer{}
		}})
		r.On(`delete node `, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
			for name := range nodes {
				if strings.Contains(call.String(), "delete node "+name+" ") {
					delete(nodes, name)
				}
			}
			return hosttest.Answer{}
		}})
		r.On(`member-list`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			var list []string
			for name, url := range members {
				list = append(list, fmt.Sprintf("%q:%q", name, url))
			}
			return hosttest.Answer{Stdout: `{"members":{` + strings.Join(list, ",") + `}}`}
		}})
		r.On(`etcd leave`, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
			for name, url := range members {
				if strings.Contains(url, "//"+call.Argv[len(call.Argv)-1]+":") {
					delete(members, name)
				}
			}
			return hosttest.Answer{}
		}})
		r.On(`k0s reset`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			if m.running {
				return hosttest.Answer{Stderr: "another k0s process is still running", Code: 1}
			}
			m.data = false
			return hosttest.Answer{}
		}})
		r.On(`^sh -c 'set -eu\nsystemctl disable`, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			m.running = false
			return hosttest.Answer{}
		}})
		r.On(`token create`, hosttest.Answer{Stdout: token(t) + "\n"})
		r.On(`root-kubeconfig.*grep`, hosttest.Answer{Code: 1})
	}
	return all
}

// lines are the commands in order; those with ! change the host.
func lines(calls []hosttest.Call) string {
	var b strings.Builder
	for _, c := range calls {
		line := c.String()
		if i := strings.IndexByte(line, '\n'); i >= 0 {
			line = line[:i] + "… " + strings.Join(c.Argv[3:], " ")
		}
		if c.Mutates {
			line = "! " + line
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// answer is made anew for each call.
func answer(f func() hosttest.Answer) hosttest.Answer {
	return hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer { return f() }}
}
