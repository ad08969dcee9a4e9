//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testUpgradeOf takes three control planes and two workers to the next version: the control planes one after the other, then the workers.
// It is killed after each of its steps.
func testUpgradeOf(t *testing.T, b *bed) {
	if len(b.versions) < 2 {
		t.Skip("there is no program of a next version")
	}
	b.asked(t)
	upgrade := b.args("upgrade", b.versions[1].image, "--yes")
	require.Greater(t, b.watched().killedAtSteps(t, eachName(), append(upgrade, "--progress", "none")...), 10)
	b.status(t, b.versions[1].kubelet, 5)
	b.members(t, b.h[:3]...)
	require.Empty(t, b.on(t, b.h[0], "get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}"))
	b.inOrder(t, b.wellAsked(t))
	// The Clusterfile names no hosts: they are known.
	require.Contains(t, b.sealer(t, append(upgrade, "-f", b.file)...), "nothing to do")
}

// inOrder: each control plane ran the new version only when the one before was ready with it, and the workers after all
// of them. Which control plane comes first is sealer's choice: one that was replaced is the last.
func (b *bed) inOrder(t *testing.T, all [][]entry) {
	t.Helper()
	if b.journal == "" {
		return
	}
	type upgraded struct {
		host           string
		started, ready time.Time
	}
	var nodes []upgraded
	for i, host := range all {
		started := slices.IndexFunc(host, func(e entry) bool {
			return e.Version == b.versions[1].version && e.Event == "run" && slices.Contains([]string{"server", "agent", "controller", "worker"}, e.Args[0])
		})
		require.NotEqual(t, -1, started, "%s: %+v", b.h[i], host)
		node := upgraded{host: b.h[i].Name, started: host[started].Time}
		if i < 3 {
			at := slices.IndexFunc(host[started:], func(e entry) bool { return e.Event == "ready" })
			require.NotEqual(t, -1, at, "%s: %+v", b.h[i], host)
			node.ready = host[started+at].Time
		}
		nodes = append(nodes, node)
	}
	controlPlanes, workers := nodes[:3], nodes[3:]
	slices.SortFunc(controlPlanes, func(a, b upgraded) int { return a.started.Compare(b.started) })
	for i, one := range controlPlanes[1:] {
		require.True(t, one.started.After(controlPlanes[i].ready), "%s began before %s was ready", one.host, controlPlanes[i].host)
	}
	for _, one := range workers {
		require.True(t, one.started.After(controlPlanes[2].ready), "%s began before %s was ready", one.host, controlPlanes[2].host)
	}
}

func testRollback(t *testing.T, b *bed) {
	if len(b.versions) < 2 {
		t.Skip("there is no program of a next version")
	}
	args := b.args("rollback", b.versions[0].image, "--yes")
	if minor(b.versions[0].version) != minor(b.versions[1].version) {
		b.refused(t, args, "newer than", "sealer etcd restore")
		return
	}
	require.Greater(t, b.watched().killedAtSteps(t, eachName(), append(args, "--progress", "none")...), 10)
	b.status(t, b.versions[0].kubelet, 5)
	b.members(t, b.h[:3]...)
	b.wellAsked(t)
}

// minor is the v1.36 of v1.36.1+k3s1.
func minor(version string) string { return strings.Join(strings.Split(version, ".")[:2], ".") }
