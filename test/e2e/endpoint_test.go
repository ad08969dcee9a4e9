//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// forwarder is a balancer of the user's own: it hands TCP on as it is, to one server at a time.
func forwarder(t *testing.T, address string) (listens string, to *atomic.Pointer[string]) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(address, "0"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	to = &atomic.Pointer[string]{}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server := to.Load()
				if server == nil {
					return
				}
				upstream, err := net.Dial("tcp", *server)
				if err != nil {
					return
				}
				defer upstream.Close()
				go func() {
					defer upstream.Close()
					_, _ = io.Copy(upstream, client)
				}()
				_, _ = io.Copy(client, upstream)
			}()
		}
	}()
	return ln.Addr().String(), to
}

// An endpoint outside of the cluster is made sure of: it has to lead to this cluster, and not just anywhere.
func TestExternalEndpoint(t *testing.T) {
	b := &bed{
		name: "outside", site: "outside", lab: fiveHosts(t),
		kubectl: []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"},
	}
	b.h = b.lab.Hosts.Hosts[:2]
	b.before = b.snapshots(t, b.h...)
	require.NoError(t, b.lab.TrustHosts(b.site))
	b.clusterfile(t, k3sSettings)
	releases, err := lab.Releases(t.Context(), "k3s", lab.K3sVersion, lab.K3sNextVersion)
	require.NoError(t, err)
	_, err = b.lab.BuildRelease(t.Context(), b.site, releases[0])
	require.NoError(t, err)
	image := b.lab.ReleaseImage(releases[0])
	outside, to := forwarder(t, b.lab.Hosts.Gateway.String())
	stranger := httptest.NewTLSServer(nil)
	t.Cleanup(stranger.Close)
	other := strings.TrimPrefix(stranger.URL, "https://")
	run := func(endpoint string) []string {
		return b.runArgs(image, b.h[:1], b.h[1:2], "--endpoint", endpoint)
	}
	b.refused(t, run("no-such-name.invalid"), "the external endpoint's name no-such-name.invalid has no address on", "nothing was touched")
	b.asFound(t, b.h...)

	to.Store(&other)
	b.refused(t, run(outside), "the endpoint "+outside+" does not lead to the API servers of this cluster",
		"what answers is no control plane of this cluster", "hint: point the balancer at this cluster's control planes, "+addresses(b.h[0]))
	server := net.JoinHostPort(b.h[0].Address.String(), "6443")
	to.Store(&server)
	b.sealer(t, run(outside)...)
	b.ready(t, b.h...)
	require.Contains(t, b.exec(t, b.h[1], "cat", "/etc/rancher/k3s/config.yaml"), "server: https://"+outside+"\n")
	require.Contains(t, b.sealer(t, b.args("kubeconfig")...), "server: https://"+outside+"\n")
	b.refused(t, run(net.JoinHostPort(b.lab.Hosts.Gateway.String(), "6443")), "was made with the endpoint", "nothing was touched")
	require.Contains(t, b.sealer(t, b.runArgs(image, b.h[:1], b.h[1:2])...), "nothing to change")
	to.Store(nil)
	_, err = b.lab.Run(t.Context(), b.site, b.args("status")...)
	require.Error(t, err, "workers could not find the API servers any more")
	to.Store(&server)
	t.Run("it becomes another, whenever that is cut", func(t *testing.T) {
		another, at := forwarder(t, b.lab.Hosts.Gateway.String())
		_, port, err := net.SplitHostPort(another)
		require.NoError(t, err)
		write := func(endpoint string) {
			text := fmt.Sprintf("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: outside}\nspec:\n  image: %s\n  ssh: {pk: %s}\n  hosts:\n  - {ips: [%s], roles: [master]}\n"+
				"  - {ips: [%s], roles: [node]}\n  hostAliases: [{ip: %s, hostnames: [api.corp.example]}]\n  controlPlaneEndpoint: {%s}\n",
				image, b.lab.Hosts.KeyFile, b.h[0].Address, b.h[1].Address, b.lab.Hosts.Gateway, endpoint)
			require.NoError(t, os.WriteFile(b.file, []byte(text+k3sSettings), 0o600))
		}
		agent := func() string { return b.exec(t, b.h[1], "cat", "/etc/rancher/k3s/config.yaml") }
		apply := []string{"apply", "-f", b.file, "--yes", "--progress", "none"}
		write("external: \"api.corp.example:" + port + "\"")
		at.Store(&other)
		b.refused(t, apply, "what answers is no control plane of this cluster")
		require.Contains(t, agent(), "server: https://"+outside+"\n", "nobody was led there")
		at.Store(&server)
		require.Greater(t, b.watched().killedAtSteps(t, eachName(), apply...), 2)
		to.Store(nil)
		require.Contains(t, agent(), "server: https://api.corp.example:"+port+"\n")
		require.Contains(t, b.sealer(t, apply...), "nothing to do")
		b.sealer(t, b.args("status")...)

		write("balancer: true")
		require.Contains(t, b.sealer(t, apply...), "~ endpoint: external api.corp.example:"+port+" → balancer")
		at.Store(nil)
		require.Contains(t, agent(), "server: https://apiserver.cluster.local:6443\n")
		require.Contains(t, b.sealer(t, apply...), "nothing to do")
		b.sealer(t, b.args("status")...)
		b.ready(t, b.h...)
	})
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h...)
}
