//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// Clusters of k3s and k0s on hosts that boot with OpenRC, and have no systemd: control plane and worker, the registry of the packed images, a boot.
func TestOpenRC(t *testing.T) {
	l, err := shared.With(t.Context(), lab.Options{Hosts: 2, Name: labName() + "-rc", OpenRC: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close(context.WithoutCancel(t.Context()))) })
	r := lab.Release{Program: "k3s", Version: lab.K3sVersion}
	b := &bed{
		lab: l, name: "k3s", site: "openrc", h: l.Hosts.Hosts, journal: "/var/log/k3s-double.jsonl",
		versions: []release{{l.ReleaseImage(r), r.Version, r.Version}},
		kubectl:  []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"},
	}
	require.NoError(t, l.TrustHosts(b.site))
	b.clusterfile(t, k3sSettings)
	_, err = l.BuildRelease(t.Context(), b.site, r)
	require.NoError(t, err)
	for _, h := range b.h {
		require.Empty(t, b.exec(t, h, "sh", "-c", "command -v systemctl || :"))
	}
	b.before = b.snapshots(t, b.h...)
	run := b.runArgs(b.versions[0].image, b.h[:1], b.h[1:])
	b.sealer(t, run...)
	b.status(t, r.Version, 2)
	b.wellAsked(t)
	require.Contains(t, b.sealer(t, run...), "nothing to change")

	t.Run("the registry is started again", func(t *testing.T) {
		b.exec(t, b.h[0], "rc-service", "sealer-registry", "stop")
		out, err := l.Run(t.Context(), b.site, b.args("status")...)
		require.Error(t, err)
		require.Contains(t, out, "the registry of the packed images does not run")
		b.sealer(t, run...)
		b.status(t, r.Version, 2)
	})
	t.Run("everything is back after a boot", func(t *testing.T) {
		for _, h := range b.h {
			require.NoError(t, h.Kill(t.Context()))
			require.NoError(t, h.Start(t.Context()))
		}
		require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
			_, err := l.Run(ctx, b.site, b.args("status")...)
			return err
		}))
	})
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h...)
	t.Run("k0s", func(t *testing.T) { testOpenRCk0s(t, l) })
}

// k0s writes its own script for OpenRC, whose services it wants to be after a network.
func testOpenRCk0s(t *testing.T, l *lab.Lab) {
	r := lab.Release{Program: "k0s", Version: lab.K0sVersion}
	b := &bed{
		lab: l, name: "k0s", site: "openrc", h: l.Hosts.Hosts, journal: "/var/log/k0s-double.jsonl",
		versions: []release{{l.ReleaseImage(r), r.Version, kubeletVersion(r.Version)}},
		kubectl:  []string{"/usr/local/bin/k0s", "kubectl", "--kubeconfig", "/var/lib/k0s/pki/admin.conf", "--cache-dir", "/tmp/kubectl"},
	}
	b.clusterfile(t, k0sSettings)
	_, err := l.BuildRelease(t.Context(), b.site, r)
	require.NoError(t, err)
	for _, h := range b.h { // the hosts' network is there before they boot, and OpenRC leaves cgroups mounted until the next boot
		b.exec(t, h, "sh", "-c", `grep -q '^rc_provide=' /etc/rc.conf || echo 'rc_provide="net"' >>/etc/rc.conf; rc-service --quiet --ifstopped cgroups start`)
	}
	b.before = b.snapshots(t, b.h...)
	run := b.runArgs(b.versions[0].image, b.h[:1], b.h[1:])
	b.sealer(t, run...)
	b.status(t, kubeletVersion(r.Version), 2)
	b.wellAsked(t)
	require.Contains(t, b.sealer(t, run...), "nothing to change")
	require.Contains(t, b.exec(t, b.h[0], "rc-update", "show", "default"), "k0scontroller |")
	b.exec(t, b.h[1], "rc-service", "k0sworker", "status")
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h...)
	for _, h := range b.h {
		require.Empty(t, b.exec(t, h, "sh", "-c", "ls /var/log/k0s.* 2>/dev/null || :"))
	}
}
