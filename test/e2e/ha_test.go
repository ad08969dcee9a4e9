//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/testregistry"
)

// corporate is a registry of the user's own: TLS by an authority of its own, a login, on the hosts' network, under a name that only the
// Clusterfile knows.
func corporate(t *testing.T, set *hosts.Set) *testregistry.Registry {
	t.Helper()
	reg, err := testregistry.Start(t.Context(), testregistry.Options{
		Address: net.JoinHostPort(set.Gateway.String(), "0"), TLS: true, Name: "hub.corp.example", User: "robot", Password: "s3cret of robots",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
}

// A real cluster of three control planes and two workers, made at once, whose images all come from a registry of the user's own, and
// one of whose hosts is given by its name.
func TestHighAvailability(t *testing.T) {
	l := fiveHosts(t)
	const site = "ha"
	_, err := l.BuildBase(t.Context(), site)
	require.NoError(t, err)
	_, err = l.BuildShop(t.Context(), site)
	require.NoError(t, err)
	require.NoError(t, l.TrustHosts(site))
	g := &bed{lab: l, name: "ha", site: site, h: l.Hosts.Hosts, kubectl: []string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}}
	g.before = g.snapshots(t, g.h...)
	reg := corporate(t, l.Hosts)
	_, port, err := net.SplitHostPort(reg.Address)
	require.NoError(t, err)
	t.Setenv("CORP_PASSWORD", "s3cret of robots")
	file, err := l.WriteClusterfile("ha")
	require.NoError(t, err)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	spec := fmt.Sprintf(`spec:
  hostAliases: [{ip: %s, hostnames: [hub.corp.example]}, {ip: %s, hostnames: [third.corp.example]}]
  registry:
    externalRegistry: {domain: hub.corp.example, port: %s, path: mirror/all, username: robot, password: "env:CORP_PASSWORD", ca: "file:%s"}
`, l.Hosts.Gateway, g.h[2].Address, port, reg.CAFile)
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), "spec:\n", spec, 1)), 0o600))
	g.sealer(t, "run", l.ShopImage(), "-f", file, "--pk", l.Hosts.KeyFile, "--masters", addresses(g.h[:2]...)+",third.corp.example", "--nodes", addresses(g.h[3:]...))
	g.ready(t, g.h...)

	t.Run("images come from there", func(t *testing.T) {
		for _, h := range g.h {
			g.pulls(t, h)
			_, err := h.Exec(t.Context(), "systemctl", "is-active", "sealer-registry.service")
			require.Error(t, err, "no registry of the cluster's own")
		}
		log, err := os.ReadFile(reg.AccessLog)
		require.NoError(t, err)
		require.Contains(t, string(log), "GET /v2/mirror/all/docker.io/sealer-test/multi/manifests/")
		for _, h := range g.h {
			_, err := l.GetShopOn(t.Context(), h, time.Minute)
			require.NoError(t, err)
		}
	})
	g.sealer(t, "delete", "--all", "--name", "ha", "--pk", l.Hosts.KeyFile, "--yes")
	g.asFound(t, g.h...)
}
