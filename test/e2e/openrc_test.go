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

// A cluster of k3s on hosts that boot with OpenRC, and have no systemd: control plane and worker, the registry of the packed images, a boot.
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
}
