// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// movable is a distribution whose workers have sealer's balancers, and whose endpoint can be changed.
type movable struct{ addressed }

func (movable) BalancedPort(c *runtime.Cluster) int {
	if c.File.Endpoint.Own() {
		return 0
	}
	return 6443
}

func (movable) Stuck(_ *runtime.Cluster, _, to clusterfile.Endpoint) string {
	if to.External == "never.example.com" {
		return "it never is"
	}
	return ""
}

func (movable) ServerNames(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return verb(h, "names "+strings.Join(c.EndpointNames(), ","))
}

func (movable) TellEndpoint(c *runtime.Cluster, h *runtime.Host, _ clusterfile.Endpoint) []runtime.Step {
	s := verb(h, "tell "+c.File.Endpoint.String())
	s[0].Key = ""
	return s
}

func (movable) FollowEndpoint(c *runtime.Cluster, h *runtime.Host, from clusterfile.Endpoint) []runtime.Step {
	s := verb(h, "follow")
	s[0].Key = runtime.MoveKey(from, c.File.Endpoint)
	return s
}

// moved is a cluster of three control planes and a worker whose endpoint is changed; log is what was done for that, in order.
type moved struct {
	*bed
	opts cluster.ApplyOptions
	plan *cluster.ApplyPlan

	mu    sync.Mutex
	log   []string
	fails int // the entry of log, from 1, that fails; 0: none
	beats int
}

func newMoved(t *testing.T, endpoint string) *moved {
	t.Helper()
	m := &moved{bed: endpointBed(t, endpoint)}
	m.bed.opts.Distributions = runtime.Distributions{"fake": movable{}}
	m.opts = cluster.ApplyOptions{RunOptions: m.bed.opts}
	m.opts.Show = func(p *cluster.ApplyPlan) error { m.plan = p; return nil }
	m.opts.FindImage = func(_ context.Context, _, name string) (*clusterimage.Image, string, error) {
		return m.bed.opts.Image, name, nil
	}
	for ip, h := range m.hosts {
		m.wire(ip, h)
	}
	require.NoError(t, m.apply(t, ""))
	return m
}

// apply applies the Clusterfile with another endpoint; empty: the one that it has.
func (m *moved) apply(t *testing.T, endpoint string) error {
	t.Helper()
	if endpoint != "" {
		f := *m.opts.Clusterfile
		e, err := clusterfile.ParseEndpoint(endpoint)
		require.NoError(t, err)
		f.Endpoint = e
		m.opts.Clusterfile = &f
	}
	m.log, m.plan = nil, nil
	return cluster.Apply(t.Context(), m.opts)
}

func (m *moved) wire(ip string, h *fakeHost) {
	there := map[string]bool{}
	on := func(pattern, entry string, do func(hosttest.Call)) {
		h.On(pattern, hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			m.mu.Lock()
			defer m.mu.Unlock()
			text := ip + ": " + entry
			if entry == "" {
				text = ip + ": " + strings.Join(c.Argv, " ")
			}
			m.log = append(m.log, text)
			if len(m.log) == m.fails {
				return hosttest.Answer{Stderr: "it is cut", Code: 1}
			}
			if do != nil {
				do(c)
			}
			return hosttest.Answer{}
		}})
	}
	exists := func(pattern, what string) {
		h.On(pattern, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			m.mu.Lock()
			defer m.mu.Unlock()
			if there[what] {
				return hosttest.Answer{}
			}
			return hosttest.Answer{Code: 1}
		}})
	}
	on("^dist '?(names|tell|follow)", "", nil)
	on(`(?s)sealer-new.* sh /etc/hosts$`, "/etc/hosts", func(c hosttest.Call) { h.Put("/etc/hosts", string(c.Stdin), 0o644) })
	on("endpoint install", "balancer", func(c hosttest.Call) {
		there["balancer"] = true
		h.Put("/var/lib/sealer/node/endpoint/config.json", string(c.Stdin), 0o600)
	})
	on("endpoint uninstall", "no balancer", func(hosttest.Call) { there["balancer"] = false })
	on(" sh HUP ", "carry", nil)
	on(`(?s)sleep 0.5.* sh /etc/kubernetes`, "give up", nil)
	on(`(?s)ip addr del.* sh /var/lib/sealer/vip$`, "take away", func(hosttest.Call) {
		for path := range h.Files() {
			if strings.HasPrefix(path, "/var/lib/sealer/vip/") || path == podFile {
				h.Put(path, "", 0o600)
			}
		}
	})
	exists("^systemctl is-active --quiet sealer-endpoint", "balancer")
	exists("^test -e /var/lib/sealer/node/endpoint/config.json", "balancer")
	h.On("^test -e /var/lib/sealer/vip$", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		for path, f := range h.Files() {
			if strings.HasPrefix(path, "/var/lib/sealer/vip/") && len(f.Data) > 0 {
				return hosttest.Answer{}
			}
		}
		return hosttest.Answer{Code: 1}
	}})
	h.On("^kubectl get leases", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.beats++
		return hosttest.Answer{Stdout: fmt.Sprintf(`{"items":[{"spec":{"renewTime":"%d"}}]}`, m.beats)}
	}})
}

// settled requires of all hosts that they are as the endpoint wants it, and that nothing of another is left.
func (m *moved) settled(t *testing.T, endpoint string) {
	t.Helper()
	e, err := clusterfile.ParseEndpoint(endpoint)
	require.NoError(t, err)
	lead := "10.0.0.1" // a balancer of their own
	switch {
	case e.VIP != "":
		lead = e.Host()
	case e.Balancer:
		lead = "127.0.0.1"
	}
	require.Contains(t, m.file(t, "10.0.0.4", "/etc/hosts"), lead+" apiserver.cluster.local\n")
	require.Equal(t, e.Balancer, m.asks("10.0.0.4", "test", "-e", "/var/lib/sealer/node/endpoint/config.json"))
	for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		require.Contains(t, m.file(t, ip, "/etc/hosts"), ip+" apiserver.cluster.local\n")
		conf := string(m.hosts[ip].Files()[confFile].Data)
		require.Equal(t, e.VIP != "", conf != "")
		if e.VIP != "" {
			require.Equal(t, 1, strings.Count(conf, "vrrp_instance "), conf)
			require.Contains(t, conf, e.VIP+"/32 dev eth0\n")
			require.Equal(t, e.VIP+" eth0\n", m.file(t, ip, "/var/lib/sealer/vip/address"))
		}
		state := m.file(t, ip, runtime.StateFile)
		require.Contains(t, state, `"noting how the API servers are found": "`+e.String()+`"`)
		require.NotContains(t, state, "beginning to change")
		require.Contains(t, m.file(t, ip, "/etc/sealer/definition.json"), map[bool]string{true: "Balancer", false: e.Host()}[e.Balancer])
	}
	require.NoError(t, m.apply(t, endpoint))
	require.True(t, m.plan.Nothing(), m.plan.String())
	require.Empty(t, m.log)
}

func (m *moved) asks(name string, argv ...string) bool {
	return m.hosts[name].Run(context.Background(), host.Command{Argv: argv}) == nil
}

// Whatever the endpoint was, it can become another: what is new comes first, hosts follow one by one, what was before goes last.
func TestMove(t *testing.T) {
	m := newMoved(t, "{balancer: true}")
	var log strings.Builder
	for _, to := range []string{"vip 10.0.0.100", "vip 10.0.0.101", "external 10.0.0.9:443", "external 10.0.0.10", "balancer", "external 10.0.0.9:443", "vip 10.0.0.100", "balancer"} {
		require.NoError(t, m.apply(t, to))
		_, _ = fmt.Fprintf(&log, "%s      %s\n\n", m.plan, strings.Join(m.log, "\n      "))
		m.settled(t, to)
	}
	golden(t, "testdata/move.txt", log.String())
}

// Wherever it is cut, the same call goes on, and so does one that wants the old endpoint back.
func TestMove_Cut(t *testing.T) {
	for _, ends := range [][2]string{{"balancer", "vip 10.0.0.100"}, {"vip 10.0.0.100", "vip 10.0.0.101"}, {"vip 10.0.0.100", "external 10.0.0.9:443"}, {"external 10.0.0.9:443", "balancer"}} {
		from, to := ends[0], ends[1]
		t.Run(from+" to "+to, func(t *testing.T) {
			m := newMoved(t, "{balancer: true}")
			require.NoError(t, m.apply(t, from))
			for at := 1; ; at++ {
				m.fails = at
				err := m.apply(t, to)
				m.fails = 0
				if err == nil {
					require.Greater(t, at, 6)
					break
				}
				require.ErrorContains(t, err, "it is cut")
				if at%2 == 0 {
					e := m.opts.Clusterfile.Endpoint
					require.ErrorContains(t, m.apply(t, "external elsewhere.example.com"), "it is on its way to")
					m.bed.opts.Clusterfile.Endpoint = e
					var half *cluster.HalfMovedError
					require.ErrorAs(t, m.run(t), &half)
					require.NoError(t, m.apply(t, to), "after the cut at %d", at)
					m.settled(t, to)
					require.NoError(t, m.apply(t, from))
				} else {
					require.NoError(t, m.apply(t, from), "back after the cut at %d", at)
				}
				m.settled(t, from)
			}
		})
	}
}

func TestMove_Refused(t *testing.T) {
	m := newMoved(t, "{vip: 10.0.0.100}")
	before := m.file(t, "10.0.0.1", runtime.StateFile)
	for to, want := range map[string]string{
		"vip 10.0.0.100 eth0":        "the address is the same: apply {balancer: true} first",
		"vip 10.9.0.100 eth0":        "the last bytes of the two addresses are the same",
		"ipvs":                       "a cluster has IPVS from its beginning or not at all",
		"external never.example.com": `it is "vip 10.0.0.100", not "external never.example.com": it never is`,
	} {
		var refused *cluster.RefusedError
		require.ErrorAs(t, m.apply(t, to), &refused, to)
		require.ErrorContains(t, refused, want)
	}
	m.hosts["10.0.0.1"].On("(?s)neigh show.* sh 10.0.0.101 6443$", hosttest.Answer{Stdout: "it answers pings\n"})
	var taken *cluster.AddressTakenError
	require.ErrorAs(t, m.apply(t, "vip 10.0.0.101"), &taken)
	m.hosts["10.0.0.4"].On("getent ahosts.* sh k8s.example.com$", hosttest.Answer{}) // it has none
	var nameless *cluster.NoNameError
	require.ErrorAs(t, m.apply(t, "external k8s.example.com"), &nameless)
	require.Equal(t, before, m.file(t, "10.0.0.1", runtime.StateFile), "nothing was touched")

	m.opts.Clusterfile.Endpoint = clusterfile.Endpoint{}
	require.NoError(t, m.apply(t, ""))
	require.True(t, m.plan.Nothing(), "who says nothing keeps it: %s", m.plan)
}
