//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/lab"
)

// testForeign finds something else of a runtime on each host, and tells all of it at once.
func testForeign(t *testing.T, b *bed) {
	for i, f := range []string{
		"mkdir -p /etc/kubernetes && touch /etc/kubernetes/kubelet.conf",
		"mkdir -p /var/lib/rancher/k3s/server && touch /var/lib/rancher/k3s/server/token",
		"printf '#!/bin/sh\\n' >/usr/local/bin/k3s",
		"printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/k0scontroller.service && systemctl daemon-reload",
		"systemd-run --quiet --unit k0sworker sleep 600",
	} {
		b.exec(t, b.h[i], "sh", "-ec", f)
	}
	undo := func() {
		for _, h := range b.h {
			_, _ = h.Exec(context.WithoutCancel(t.Context()), "sh", "-c", "systemctl stop k0sworker; rm -rf /etc/kubernetes /var/lib/rancher /usr/local/bin/k3s /etc/systemd/system/k0scontroller.service; systemctl daemon-reload")
		}
	}
	t.Cleanup(undo)
	before := b.snapshots(t, b.h...)
	says := func(i int, what string) string {
		return b.h[i].Address.String() + ": " + what + " is installed on it, and not by sealer [foreign]"
	}
	b.refused(t, b.runArgs(b.versions[0].image, b.h[:3], b.h[3:]), "nothing was changed",
		says(0, "Kubernetes by kubeadm (/etc/kubernetes/kubelet.conf)"),
		says(1, "k3s (/var/lib/rancher/k3s/server/token)"),
		says(2, "part of k3s (/usr/local/bin/k3s)"),
		says(3, "part of k0s (k0scontroller.service)"),
		says(4, "k0s (k0sworker.service)"))
	unchanged(t, before, b.snapshots(t, b.h...))
	undo()
	b.asFound(t, b.h...)
}

// testOneNode makes a cluster of one in as many runs as it has steps, each killed after one of them, but for the last.
func testOneNode(t *testing.T, b *bed) {
	b.killAt = eachKind(b.h[3:]...)
	if b.name == "kubernetes" { // what a worker has alike is not killed once more
		b.killAt = eachName()
	}
	args := b.runArgs(b.versions[0].image, b.h[:1], nil)
	require.Greater(t, b.watched().killedAtSteps(t, b.killAt, append(args, "--progress", "none")...), 10)
	b.status(t, b.versions[0].kubelet, 1)
	b.ready(t, b.h[0])
	require.Empty(t, b.on(t, b.h[0], "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}"), "pods can run nowhere else")
	require.Contains(t, b.sealer(t, args...), "nothing to change")
}

// testOneAndTwo is killed after each step of a worker.
func testOneAndTwo(t *testing.T, b *bed) {
	args := b.args("join", "--nodes", addresses(b.h[3:]...))
	require.Positive(t, b.watched().killedAtSteps(t, b.killAt, append(args, "--progress", "none")...))
	b.ready(t, b.h[0], b.h[3], b.h[4])
	require.Contains(t, b.sealer(t, args...), "nothing to change")
	b.status(t, b.versions[0].kubelet, 3)
	b.wellAsked(t)
}

// testThreeAndTwo is killed after each step of a control plane that joins, but for those that the first one had, too.
func testThreeAndTwo(t *testing.T, b *bed) {
	args := b.args("join", "--masters", addresses(b.h[1:3]...))
	require.Positive(t, b.watched().killedAtSteps(t, b.killAt, append(args, "--progress", "none")...))
	b.ready(t, b.h...)
	b.members(t, b.h[:3]...)
	b.status(t, b.versions[0].kubelet, 5)
}

// testLost has the first control plane, which made the cluster, lose its power, and the same host come back in its place, to lose its power
// once more while it joins: with kubeadm when its kubelet has what it needs, and before it is a control plane; with the others when their
// programs are there, and have no settings yet, without which they must not begin a cluster of their own.
func testLost(t *testing.T, b *bed) {
	first, second := b.h[0], b.h[1]
	looked := b.beforeLoss(t)
	require.NoError(t, first.Kill(t.Context()))
	back := looked()
	b.refused(t, b.args("delete", "--masters", addresses(first), "--yes"), "--force")
	b.eventuallyReady(t, second, 4)
	forced := b.args("delete", "--masters", addresses(first), "--yes", "--force", "--progress", "none")
	require.Greater(t, b.watched().killedAtSteps(t, eachName(), forced...), 2)
	b.ready(t, second, b.h[2], b.h[3], b.h[4])
	b.members(t, second, b.h[2])

	require.NoError(t, first.Start(t.Context()))
	b.sealer(t, b.args("delete", "--masters", addresses(first), "--yes")...)
	b.asFound(t, first)
	join := b.args("join", "--masters", addresses(first))
	step, come := "installing "+b.name, "done"
	if b.name == "kubernetes" {
		step, come = "joining", "started"
	}
	stderr, err := b.watched().whenStep(t, first, step, come, func() {
		if b.name == "kubernetes" {
			require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
				_, err := first.Exec(ctx, "test", "-e", "/etc/kubernetes/kubelet.conf")
				return err
			}))
		}
		require.NoError(t, first.Kill(t.Context()))
		require.NoError(t, first.Start(t.Context()))
	}, append(join, "--progress", "plain")...)
	t.Log("the join whose host lost its power:", err, stderr)
	b.sealer(t, join...)
	b.ready(t, b.h...)
	b.members(t, b.h[:3]...)
	require.Equal(t, 3, strings.Count(b.on(t, second, "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name"), "node/"))
	back()
}

// testReplacedWorker has a worker lose its power while it joins again.
func testReplacedWorker(t *testing.T, b *bed) {
	worker := b.h[4]
	b.sealer(t, b.args("delete", "--nodes", addresses(worker), "--yes")...)
	b.asFound(t, worker)
	b.ready(t, b.h[:4]...)
	join := b.args("join", "--nodes", addresses(worker))
	stderr, err := b.watched().whenStep(t, worker, "joining", "started", func() {
		require.NoError(t, worker.Kill(t.Context()))
		require.NoError(t, worker.Start(t.Context()))
	}, append(join, "--progress", "plain")...)
	t.Log("the join whose host lost its power:", err, stderr)
	b.sealer(t, join...)
	b.ready(t, b.h...)
}

// testShrink is killed after each step of a control plane's leaving.
func testShrink(t *testing.T, b *bed) {
	args := b.args("delete", "--yes", "--masters", addresses(b.h[1:3]...), "--nodes", addresses(b.h[4]))
	require.Greater(t, b.watched().killedAtSteps(t, eachName(), append(args, "--progress", "none")...), 5)
	b.ready(t, b.h[0], b.h[3])
	b.members(t, b.h[0])
	b.takeSnapshots(t)
	b.asFound(t, b.h[1], b.h[2], b.h[4])
	b.refused(t, b.args("delete", "--masters", addresses(b.h[0]), "--yes"), "no control plane left")
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.takeSnapshots(t)
	b.asFound(t, b.h...)
}

// testFromBare makes all five at once what they had become one after the other, and deletes them at once.
func testFromBare(t *testing.T, b *bed) {
	b.sealer(t, b.runArgs(b.versions[0].image, b.h[:3], b.h[3:])...)
	b.ready(t, b.h...)
	b.members(t, b.h[:3]...)
	b.status(t, b.versions[0].kubelet, 5)
	b.wellAsked(t)
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h...)
}

// takeSnapshots removes what was saved, and stays on hosts that are deleted. Of what was sent to be restored there is no copy.
func (b *bed) takeSnapshots(t *testing.T) {
	t.Helper()
	for _, h := range b.h {
		kept := b.exec(t, h, "sh", "-c", "cd /var/lib/sealer 2>/dev/null || exit 0; ls snapshots 2>/dev/null; rm -rf snapshots; rmdir /var/lib/sealer 2>/dev/null || :")
		require.NotContains(t, kept, "restore-")
	}
}

// testLostForGood leaves one of three control planes, which alone decides nothing, and has two others in their place in the end.
func testLostForGood(t *testing.T, b *bed) {
	first, gone := b.h[0], b.h[1:3]
	b.on(t, first, "create", "configmap", "before", "--from-literal", "a=b")
	saved := filepath.Join(t.TempDir(), "saved.db")
	if b.name != "kubernetes" { // its member gives what it has when the others are gone, too
		b.sealer(t, b.args("etcd", "snapshot", "-o", saved)...)
	}
	for _, h := range gone {
		require.NoError(t, h.Kill(t.Context()))
	}
	if b.name == "kubernetes" {
		b.sealer(t, b.args("etcd", "snapshot", "-o", saved)...)
	}
	b.refused(t, b.args("delete", "--masters", addresses(gone...), "--yes", "--force"), "sealer etcd restore --force")
	b.refused(t, b.args("etcd", "restore", saved, "--yes"), addresses(gone[0]), addresses(gone[1]), "--force")
	require.Contains(t, b.sealer(t, b.args("etcd", "restore", saved, "--yes", "--force")...), "delete --force --masters "+addresses(gone...))
	b.eventuallyReady(t, first, 3)
	b.members(t, first)
	b.on(t, first, "get", "configmap", "before")
	b.sealer(t, b.args("delete", "--masters", addresses(gone...), "--yes", "--force")...)
	b.ready(t, first, b.h[3], b.h[4])

	var both errgroup.Group // either waits for the other one before it has started
	for _, h := range gone {
		both.Go(func() error { return h.Start(t.Context()) })
	}
	require.NoError(t, both.Wait())
	b.sealer(t, b.args("delete", "--masters", addresses(gone...), "--yes")...)
	b.takeSnapshots(t) // the control plane that answered may have been one of them
	b.asFound(t, gone...)
	b.members(t, first) // not with those of the cluster that was, which have come back
	b.sealer(t, b.args("join", "--masters", addresses(gone...))...)
	b.ready(t, b.h...)
	b.members(t, b.h[:3]...)
}

func testDatastore(t *testing.T, b *bed) {
	first := b.h[0]
	b.on(t, first, "create", "configmap", "kept", "--from-literal", "a=b")
	saved := filepath.Join(t.TempDir(), "saved.db")
	require.Equal(t, saved, b.sealer(t, b.args("etcd", "snapshot", "-o", saved)...))
	info, err := os.Stat(saved)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	b.on(t, first, "delete", "configmap", "kept")
	b.on(t, first, "create", "configmap", "later", "--from-literal", "a=b")

	damaged := filepath.Join(t.TempDir(), "damaged.db")
	data, err := os.ReadFile(saved)
	require.NoError(t, err)
	changed := slices.Clone(data)
	changed[len(data)/2] ^= 0xff
	for _, bad := range [][]byte{data[:len(data)/2], changed} {
		require.NoError(t, os.WriteFile(damaged, bad, 0o600))
		b.refused(t, b.args("etcd", "restore", damaged, "--yes"), "checking the snapshot")
	}
	b.on(t, first, "get", "configmap", "later")

	where := saved
	if b.name == "k0s" { // whose backups name the control plane that made them: it need not be the one that they are restored on
		where = b.h[2].Address.String() + ":/root/saved.db"
		var out bytes.Buffer
		require.NoError(t, b.h[2].Pipe(t.Context(), bytes.NewReader(data), &out, &out, "sh", "-c", "umask 077; cat >/root/saved.db"), out.String())
	}
	b.sealer(t, b.args("etcd", "restore", where, "--yes")...)
	b.exec(t, b.h[2], "rm", "-f", "/root/saved.db")
	b.on(t, first, "get", "configmap", "kept")
	_, err = first.Exec(t.Context(), append(b.kubectl, "get", "configmap", "later")...)
	require.Error(t, err)
	b.eventuallyReady(t, first, 5)
	b.members(t, b.h[:3]...)
}

func testCertificatesOf(t *testing.T, b *bed) {
	require.Contains(t, b.sealer(t, b.args("cert", "check")...), "(CA)")
	served := func(i int) string {
		return b.exec(t, b.h[i], "sh", "-c", "openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null | openssl x509 -noout -startdate -ext subjectAltName")
	}
	before := served(1)
	b.sealer(t, b.args("cert", "renew")...)
	require.NotEqual(t, strings.Split(before, "\n")[0], strings.Split(served(1), "\n")[0], "it began later")
	b.sealer(t, b.args("cert", "--alt-names", "k8s.example.com,192.0.2.7")...)
	for i := range 3 {
		require.Contains(t, served(i), "DNS:k8s.example.com")
		require.Contains(t, served(i), "192.0.2.7")
	}
	b.eventuallyReady(t, b.h[0], 5)
	b.status(t, b.versions[0].kubelet, 5)
}
