// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/goldenfile"
)

// What k3s is told of an endpoint. Servers join through the control plane that is asked, agents through the endpoint.
func TestConfig_Endpoint(t *testing.T) {
	for name, e := range map[string]clusterfile.Endpoint{"endpoint-vip": {VIP: "10.0.0.100"}, "endpoint-external": {External: "k8s.example.com:443"}} {
		t.Run(name, func(t *testing.T) {
			cl, hosts := newCluster(t, threeHosts, "")
			cl.File.Endpoint = e
			onNewHost(hosts[0])
			_, err := do(t, quick().Init(cl, cl.Hosts[0]))
			require.NoError(t, err)
			goldenfile.Equal(t, "testdata/"+name+"/first.yaml", configOf(t, hosts[0]))
			onServer(hosts[0], "").Put(config, string(hosts[0].Files()[config].Data), 0o600)
			for i, file := range []string{1: "server.yaml", 2: "agent.yaml"} {
				if file == "" {
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

// An agent follows another endpoint by its config.yaml, and starts anew where that is another.
func TestFollowEndpoint(t *testing.T) {
	cl, hosts := newCluster(t, threeHosts, "")
	onNewHost(hosts[0])
	_, err := do(t, quick().Init(cl, cl.Hosts[0]))
	require.NoError(t, err)
	onServer(hosts[0], "").Put(config, string(hosts[0].Files()[config].Data), 0o600)
	onNewHost(hosts[2])
	_, err = do(t, quick().Join(cl, cl.Hosts[2]))
	require.NoError(t, err)
	before := configOf(t, hosts[2])

	cl.File.Endpoint = clusterfile.Endpoint{External: "k8s.example.com:443"}
	require.Empty(t, quick().FollowEndpoint(cl, cl.Hosts[0], clusterfile.Endpoint{}))
	_, err = do(t, quick().FollowEndpoint(cl, cl.Hosts[2], clusterfile.Endpoint{}))
	require.NoError(t, err)
	require.Equal(t, strings.Replace(before, "https://apiserver.cluster.local:6443", "https://k8s.example.com:443", 1), configOf(t, hosts[2]))
	require.Contains(t, lines(hosts[2]), "k3s-agent")
}
