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
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

const withPlugins = `spec:
  env: [GREETING=hi]
  hosts: [{ips: [10.0.0.1], roles: [master]}, {ips: [10.0.0.2-10.0.0.3], roles: [node]}]
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: b}
spec: {type: SHELL, action: pre-install|post-install|pre-init-host|pre-uninstall, scope: master, data: "b of $HostIP"}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: a}
spec: {type: SHELL, action: pre-init-host|post-init-host|pre-clean-host|post-clean-host, data: "a"}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: names}
spec: {type: HOSTNAME, data: "10.0.0.3 w3"}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: marks}
spec: {type: LABEL, data: "10.0.0.2 rack=1"}
`

// story records on every host the scripts of plugins, by what they hold, and what the distribution is told.
func story(b *bed) func() []string {
	var mu sync.Mutex
	var lines []string
	for name, h := range b.hosts {
		note := func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, strings.TrimPrefix(name, "10.0.0.")+" "+line)
		}
		h.On("(?s)exec bash.*plugin-", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			note(string(h.Files()[c.Argv[len(c.Argv)-1]].Data))
			return hosttest.Answer{}
		}})
		h.On("^dist ", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			note(c.Argv[1])
			return hosttest.Answer{}
		}})
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		told := lines
		lines = nil
		return told
	}
}

// only is the part of a story that one host tells.
func only(lines []string, host string) string {
	var told []string
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, host+" "); ok {
			told = append(told, rest)
		}
	}
	return strings.Join(told, ", ")
}

func TestRun_Plugins(t *testing.T) {
	b := newBedOf(t, withPlugins, clusterimage.Extension{}, nil)
	b.opts.Clusterfile.Cmd = nil
	var nodes []string
	for _, name := range []string{"h1", "h2", "w3"} { // a plugin names the third
		nodes = append(nodes, fmt.Sprintf(nodeJSON, name, "True"))
	}
	b.hosts["10.0.0.1"].On("^kubectl get nodes", hosttest.Answer{Stdout: `{"items":[` + strings.Join(nodes, ",") + `]}`})
	tell := story(b)
	require.NoError(t, b.run(t))
	told := tell()
	require.Equal(t, "b of $HostIP, a, b of $HostIP, install, init, a, b of $HostIP", only(told, "1"))
	require.Equal(t, "a, install, prefetch, join, a", only(told, "2"))
	for _, c := range b.hosts["10.0.0.2"].Calls() {
		if strings.Contains(c.String(), "exec bash") {
			require.Subset(t, c.Env, []string{"GREETING=hi", "HostIP=10.0.0.2", "ROOTFS=" + rootfs})
			require.NotContains(t, strings.Join(c.Argv, " "), "b of", "the script is no argument")
		}
	}
	labelled := strings.Join(b.hosts["10.0.0.1"].did(), "\n")
	require.Contains(t, labelled, "kubectl label node h2 --overwrite rack=1")

	// The host that gets a name is known by it.
	require.Contains(t, strings.Join(b.hosts["10.0.0.3"].did(), "\n"), "sh -c set -eu")
	var named bool
	for _, c := range b.hosts["10.0.0.3"].Calls() {
		named = named || len(c.Argv) == 6 && c.Argv[4] == "w3" && c.Argv[5] == "/etc/sealer/hostname-before"
	}
	require.True(t, named)

	require.NoError(t, b.run(t))
	require.Empty(t, tell(), "what was run is not run again")

	b.opts.Clusterfile.Plugins[1].Data = "a2"
	require.NoError(t, b.run(t))
	require.Equal(t, "a2, a2", only(tell(), "2"))

	require.NoError(t, cluster.Delete(t.Context(), b.deleteOptions()))
	told = tell()
	require.Equal(t, "b of $HostIP, a2, reset, a2", only(told, "1"))
	require.Equal(t, "a2, reset, a2", only(told, "2"))
	require.Equal(t, "1 b of $HostIP", told[0], "the cluster's own phase comes first")
}

// Hosts that join a cluster which was complete have phases of their own, each time others join.
func TestJoin_Plugins(t *testing.T) {
	b := newBedOf(t, `spec:
  hosts: [{ips: [10.0.0.1], roles: [master]}, {ips: [10.0.0.2], roles: [node]}]
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: p}
spec: {type: SHELL, action: pre-scaleup|post-scaleup|post-install, data: "p"}
`, clusterimage.Extension{}, nil)
	tell := story(b)
	require.NoError(t, b.run(t))
	require.Equal(t, "install, init, p", only(tell(), "1"), "a cluster that is made does not grow")

	for _, newly := range []string{"10.0.0.5", "10.0.0.6"} {
		hosts := b.more(clusterfile.Worker, newly)
		tell = story(b)
		require.NoError(t, b.join(t, hosts))
		told := tell()
		require.Equal(t, "p, p", only(told, "1"))
		require.Equal(t, []string{"1 p", strings.TrimPrefix(newly, "10.0.0.") + " install"}, told[:2])
	}
	require.NoError(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.6")))
	require.Empty(t, tell())
}

// silent gives none of the values that follow from others.
type silent struct{ distribution }

func (silent) ServiceIPs(*runtime.Cluster) (api, dns string) { return "", "" }

// What was done is not done anew because a sealer gives more values that follow from others.
func TestPlugins_DerivedValues(t *testing.T) {
	b := newBed(t, strings.Replace(withPlugins, "10.0.0.3 w3", "10.0.0.3 h3", 1))
	b.opts.Distributions = runtime.Distributions{"fake": silent{}}
	require.NoError(t, b.run(t))
	n := len(b.hosts["10.0.0.1"].Calls())
	lines := story(b)
	b.opts.Distributions = runtime.Distributions{"fake": distribution{}}
	require.NoError(t, b.run(t))
	require.NotContains(t, strings.Join(lines(), "\n"), " of $HostIP")
	for _, c := range b.hosts["10.0.0.1"].Calls()[n:] {
		require.NotContains(t, c.String(), "echo done")
	}
}
