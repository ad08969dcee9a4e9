// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
)

// What is done on a host depends on what is found there. Lines with ! change the host.
func TestSteps(t *testing.T) {
	d := quick()
	type steps = func(*runtime.Cluster, *runtime.Host) []runtime.Step
	for name, c := range map[string]struct {
		host  int
		setup func(t *testing.T, c *runtime.Cluster, m []*machine)
		steps steps
	}{
		"install":    {0, nil, d.Install},
		"init-new":   {0, nil, d.Init},
		"init-done":  {0, run(0, d.Init), d.Init},
		"init-ended": {0, func(t *testing.T, c *runtime.Cluster, m []*machine) { run(0, d.Init)(t, c, m); m[0].running = false }, d.Init},
		"init-half": {0, func(_ *testing.T, _ *runtime.Cluster, m []*machine) {
			m[0].data = true
			m[0].On("--no-block", hosttest.Answer{Times: 1})
			m[0].On("is-failed", hosttest.Answer{Times: 1})
		}, d.Init},
		"init-settings-changed": {0, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			c.File.K0s = map[string]any{"spec": map[string]any{"api": map[string]any{"sans": []any{"k8s.example.com"}}}}
		}, d.Init},
		"init-flags-changed": {0, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			c.File.K0s = map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sealer.io/ignore-pre-flight-checks": "true"}}}
		}, d.Init},
		"join-worker":        {2, run(0, d.Init), d.Join},
		"join-control-plane": {1, run(0, d.Init), d.Join},
		"join-done": {2, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			run(2, d.Join)(t, c, m)
		}, d.Join},
		"join-stopped": {1, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			run(1, d.Join)(t, c, m)
			m[1].running = false
		}, d.Join},
		"join-stale-member": {1, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			m[0].members["H2"], m[0].nodes["h2"] = "https://10.0.0.2:2380", true
		}, d.Join},
		"join-half": {2, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			m[2].data = true
		}, d.Join},
		"leave-control-plane": {1, func(t *testing.T, c *runtime.Cluster, m []*machine) {
			run(0, d.Init)(t, c, m)
			run(1, d.Join)(t, c, m)
		}, d.Leave},
		"leave-worker": {2, nil, d.Leave},
		"forget": {1, func(_ *testing.T, _ *runtime.Cluster, m []*machine) {
			m[0].nodes["h2"] = true
			m[0].On("get etcdmembers", hosttest.Answer{Stdout: "etcdmember/h2"})
		}, d.Forget},
		"reset": {2, func(_ *testing.T, _ *runtime.Cluster, m []*machine) { m[2].running, m[2].data = true, true }, d.Reset},
		"reset-nothing": {2, func(_ *testing.T, _ *runtime.Cluster, m []*machine) {
			m[2].On(`\[ -x "\$1" \]`, hosttest.Answer{Code: 1})
		}, d.Reset},
	} {
		t.Run(name, func(t *testing.T) {
			cl, runners := newCluster(t, latest, twoAndOne, "")
			machines := play(t, cl, runners)
			if c.setup != nil {
				c.setup(t, cl, machines)
			}
			before := make([]int, len(runners))
			for i, r := range runners {
				before[i] = len(r.Calls())
			}
			_, err := do(t, c.steps(cl, cl.Hosts[c.host]))
			require.NoError(t, err)
			got := lines(runners[c.host].Calls()[before[c.host]:])
			if c.host != 0 {
				got += "-- on the first control plane\n" + lines(runners[0].Calls()[before[0]:])
			}
			golden(t, "testdata/steps/"+name+".txt", got)
		})
	}
}

// run does the steps on a host beforehand.
func run(host int, steps func(*runtime.Cluster, *runtime.Host) []runtime.Step) func(*testing.T, *runtime.Cluster, []*machine) {
	return func(t *testing.T, c *runtime.Cluster, _ []*machine) {
		t.Helper()
		_, err := do(t, steps(c, c.Hosts[host]))
		require.NoError(t, err)
	}
}

// A joining host has a token in a file of its own, that nobody else can read, and in no command, output or error.
func TestJoin_KeepsSecrets(t *testing.T) {
	for _, fails := range []bool{false, true} {
		c, runners := newCluster(t, latest, twoAndOne, "")
		machines := play(t, c, runners)
		run(0, quick().Init)(t, c, machines)
		if fails {
			runners[1].On("--no-block", hosttest.Answer{})
			runners[1].On("journalctl", hosttest.Answer{Stdout: "no route to host"})
		}
		out, err := do(t, quick().Join(c, c.Hosts[1]))
		if fails {
			var late *runtime.StartError
			require.ErrorAs(t, err, &late)
			require.ErrorContains(t, err, "k0scontroller does not come up: it is not part of the cluster after 50ms; the last it wrote:\nno route to host")
			require.Contains(t, late.Hint(), "journalctl -u k0scontroller")
		} else {
			require.NoError(t, err)
		}
		file := runners[1].Files()["/etc/k0s/k0stoken"]
		require.Equal(t, "-rw-------", file.Mode.String())
		require.Equal(t, token(t)+"\n", string(file.Data))
		all := out + lines(runners[0].Calls()) + lines(runners[1].Calls())
		if err != nil {
			all += err.Error()
		}
		require.NotContains(t, all, token(t))
		require.NotContains(t, all, secret)
		require.Contains(t, runners[0].Commands(), "timeout -k 5 30 /usr/local/bin/k0s token invalidate abcdef")
	}
}

// Right before a joining k0s starts, in the same command, it is looked at that it has a token.
func TestJoin_NeverStartsWithoutToken(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	run(0, quick().Init)(t, c, machines)
	for i := range 3 {
		if i > 0 {
			run(i, quick().Join)(t, c, machines)
		}
		for _, call := range runners[i].Calls() {
			if !strings.Contains(call.String(), "--no-block") {
				continue
			}
			require.Equal(t, i > 0, strings.Contains(call.Argv[2], "--token-file=/etc/k0s/k0stoken"))
			require.Equal(t, i > 0, strings.Contains(call.Argv[2], "[ -s /etc/k0s/k0stoken ]"))
		}
	}
}

// A first control plane that lost its data would make a second cluster.
func TestInit_NotBesideACluster(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	play(t, c, runners)
	c.Hosts[2].Facts.Paths = []string{"/var/lib/k0s/kubelet.conf"}
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	var stuck *k0s.StuckError
	require.ErrorAs(t, err, &stuck)
	require.True(t, stuck.Lost)
	require.Contains(t, stuck.Hint(), "sealer join")
	require.NotContains(t, lines(runners[0].Calls()), "--no-block")
}

// One that does not come up, and on which others depend, is not reset.
func TestInit_NotResetWhenOthersHaveJoined(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	machines[0].data = true
	runners[0].On("--no-block", hosttest.Answer{})
	c.Hosts[2].Facts.Paths = []string{"/var/lib/k0s/kubelet.conf"}
	_, err := do(t, quick().Init(c, c.Hosts[0]))
	var stuck *k0s.StuckError
	require.ErrorAs(t, err, &stuck)
	require.False(t, stuck.Lost)
	require.NotContains(t, lines(runners[0].Calls()), "k0s reset")
}

// A service that the host has given up on ends the wait at once.
func TestStart_Failed(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	runners[0].On("--no-block", hosttest.Answer{}).On("is-failed", hosttest.Answer{}).On("journalctl", hosttest.Answer{Stdout: "invalid config\n"})
	d := k0s.New() // its time limit is minutes
	_, err := do(t, d.Init(c, c.Hosts[0]))
	require.ErrorContains(t, err, "10.0.0.1: k0scontroller does not come up: it has failed; the last it wrote:\ninvalid config")
}

// One that systemd starts again and again, as k0s' unit has it, is not waited for until the time is up; its log keeps the cluster's secrets.
func TestStart_Ends(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	c.File.K0s = map[string]any{"spec": map[string]any{"storage": map[string]any{"kine": map[string]any{"dataSource": "postgres://db/k0s?sslkey=verysecret"}}}}
	n := 0
	runners[0].On("--no-block", hosttest.Answer{}).On("NRestarts", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		n++
		return hosttest.Answer{Stdout: fmt.Sprintln(n)}
	}}).On("journalctl", hosttest.Answer{Stdout: "cannot open postgres://db/k0s?sslkey=verysecret\n"})
	d := quick()
	d.Timeout = time.Hour
	_, err := do(t, d.Init(c, c.Hosts[0]))
	require.ErrorContains(t, err, "10.0.0.1: k0scontroller does not come up: it has ended 4 times; the last it wrote:\ncannot open [redacted]")
	require.NotContains(t, err.Error(), "verysecret")
}

// A lost host leaves through the control plane that is asked.
func TestLeave_Lost(t *testing.T) {
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	run(0, quick().Init)(t, c, machines)
	run(1, quick().Join)(t, c, machines)
	c.Contact = c.Hosts[1]
	c.Hosts[0].Lost, c.Hosts[0].Runner = errors.New("no route to host"), nil
	_, err := do(t, append(quick().Leave(c, c.Hosts[0]), quick().Forget(c, c.Hosts[0])...))
	require.NoError(t, err)
	require.Contains(t, lines(runners[1].Calls()), "! timeout -k 5 120 /usr/local/bin/k0s etcd leave --peer-address 10.0.0.1\n")
	require.Equal(t, map[string]string{"H2": "https://10.0.0.2:2380"}, machines[0].members)
	require.NotContains(t, machines[0].nodes, "h1")
}

// etcd lets no member go right after another one has come; what it refuses is asked for again.
func TestLeave_Refused(t *testing.T) {
	c, machines := made(t)
	machines[0].On("etcd leave", hosttest.Answer{Stderr: "etcdserver: unhealthy cluster", Code: 1, Times: 2})
	_, err := do(t, quick().Leave(c, c.Hosts[1]))
	require.NoError(t, err)
	require.NotContains(t, machines[0].members, "H2")

	c, machines = made(t)
	machines[0].On("etcd leave", hosttest.Answer{Stderr: "etcdserver: unhealthy cluster", Code: 1})
	_, err = do(t, quick().Leave(c, c.Hosts[1]))
	require.ErrorContains(t, err, "unhealthy cluster")
}

func TestInstall(t *testing.T) {
	for version, format := range map[string]string{"v1.35.7+k0s.0": "1.7", latest: "2"} {
		c, runners := newCluster(t, version, oneAndOne, "")
		play(t, c, runners)
		steps := quick().Install(c, c.Hosts[1])
		_, err := do(t, steps)
		require.NoError(t, err)
		files := runners[1].Files()
		golden(t, "testdata/registry-"+format+".toml", string(files["/etc/k0s/containerd.d/sealer-registry.toml"].Data))
		require.Equal(t, "-rw-------", files["/etc/k0s/containerd.d/certs.d/_default/hosts.toml"].Mode.String())
		golden(t, "testdata/registry-hosts.toml", string(files["/etc/k0s/containerd.d/certs.d/_default/hosts.toml"].Data))
		require.Equal(t, "CA", string(files["/etc/k0s/containerd.d/certs.d/sealer-ca.crt"].Data))
		last := steps[len(steps)-1]
		done, err := last.Done(t.Context())
		require.NoError(t, err)
		require.True(t, done)
		c.Registry.Password = "another"
		done, err = last.Done(t.Context())
		require.NoError(t, err)
		require.False(t, done, "a new password has to be placed")
		require.NoError(t, last.Do(t.Context(), io.Discard))
	}
}

func TestInstall_OtherVersion(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	runners[0].On("k0s version$", hosttest.Answer{Stdout: "v1.35.7+k0s.0\n"})
	_, err := do(t, quick().Install(c, c.Hosts[0]))
	var image *k0s.ImageError
	require.ErrorAs(t, err, &image)
	require.ErrorContains(t, err, "said to hold k0s v1.36.3+k0s.2, its bin/k0s is v1.35.7+k0s.0")

	c.Metadata.ClusterRuntimeVersion = "" // only the version of Kubernetes is known
	runners[0].On("k0s version$", hosttest.Answer{Stdout: latest + "\n"})
	_, err = do(t, quick().Install(c, c.Hosts[0]))
	require.NoError(t, err)
}

func TestInstall_NoBinary(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	runners[0].On("^test -f /rootfs/bin/k0s", hosttest.Answer{Code: 1})
	_, err := do(t, quick().Install(c, c.Hosts[0]))
	require.ErrorContains(t, err, "it has no bin/k0s")
}

// What k0s finds unfit is named, unless the Clusterfile passes over it.
func TestInstall_Unfit(t *testing.T) {
	c, runners := newCluster(t, latest, one, "")
	play(t, c, runners)
	runners[0].On("sysinfo", hosttest.Answer{Stdout: `[{"name":"memory","value":"8 GiB","category":"pass"},{"name":"cgroup version","value":"version 1","category":"rejected"}]`, Code: 1})
	_, err := do(t, quick().Install(c, c.Hosts[0]))
	var unfit *k0s.UnfitError
	require.ErrorAs(t, err, &unfit)
	require.Equal(t, []string{"cgroup version: version 1"}, unfit.Found)

	c.File.K0s = map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sealer.io/ignore-pre-flight-checks": "true"}}}
	_, err = do(t, quick().Install(c, c.Hosts[0]))
	require.NoError(t, err)
}
