// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

func (b *bed) removeOptions(hosts []clusterfile.Host) cluster.RemoveOptions {
	return cluster.RemoveOptions{
		Name: "prod", Hosts: hosts, DrainTimeout: time.Minute, Operator: b.opts.Operator,
	}
}

func (b *bed) remove(t *testing.T, hosts []clusterfile.Host) error {
	t.Helper()
	b.out.Reset()
	return cluster.Remove(t.Context(), b.removeOptions(hosts))
}

// A worker goes: drained, reset, clean, forgotten.
func TestRemove_Worker(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.Equal(t, "cluster \"prod\" is without 10.0.0.4, and has 3 hosts\n", b.out.String())
	did := newly()
	require.Equal(t, "kubectl annotate node h4 sealer.io/cordoned-by-delete=true --overwrite\nkubectl cordon h4\nkubectl drain h4 --ignore-daemonsets --delete-emptydir-data --timeout 1m0s\ndist leave h4\ndist forget h4", did["10.0.0.1"])
	golden(t, "testdata/delete.txt", did["10.0.0.4"]+"\n")
	require.Equal(t, "127.0.0.1 localhost\n", string(b.hosts["10.0.0.4"].Files()["/etc/hosts"].Data))
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))

	newly = b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "the end of the first may not have been seen")
	require.Equal(t, "cluster \"prod\" is without 10.0.0.4, and has 3 hosts\n", b.out.String())
	for name, did := range newly() {
		require.Empty(t, did, name)
	}
	journal := filepath.Join(b.opts.StateDir, "prod", "journal.jsonl")
	text, err := os.ReadFile(journal)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(text), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, "off the list of hosts") && strings.Contains(line, `"done"`)
	})
	require.NoError(t, os.WriteFile(journal, []byte(strings.Join(lines, "")), 0o600))
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "it was killed before it could say so")

	require.NoError(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.4")), "and may come back")
}

// The first control plane goes: another one is asked, and the hosts that stay know only those that stay.
func TestRemove_FirstControlPlane(t *testing.T) {
	b := newBed(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}, {ips: [10.0.0.4], roles: [node]}]}\n")
	b.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	require.NoError(t, b.run(t))
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1")))
	did := newly()
	require.Contains(t, did["10.0.0.2"], "dist leave h1\ndist forget h1")
	require.Contains(t, did["10.0.0.1"], "dist reset")
	require.NotContains(t, did["10.0.0.1"], "kubectl")
	require.Equal(t, []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"}, b.kept(t))
	hosts := string(b.hosts["10.0.0.4"].Files()["/etc/hosts"].Data)
	require.NotContains(t, hosts, "10.0.0.1 ")
	require.Contains(t, hosts, "127.0.0.1 apiserver.cluster.local\n")
	require.Contains(t, did["10.0.0.4"], "endpoint install")
	require.NotContains(t, string(b.hosts["10.0.0.3"].Files()["/etc/hosts"].Data), "10.0.0.1 ")
	require.Contains(t, string(b.hosts["10.0.0.3"].Files()["/etc/hosts"].Data), "10.0.0.3 apiserver.cluster.local\n", "a control plane keeps to its own API server")
	require.Contains(t, did["10.0.0.2"], "registry install", "the registry knows its peers")

	// What comes next asks those that stay, and launches nothing again.
	newly = b.newly()
	require.NoError(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.9")))
	did = newly()
	require.Contains(t, did["10.0.0.9"], "dist join")
	for name := range b.hosts {
		require.NotContains(t, did[name], "dist init", name)
		require.NotContains(t, did[name], "echo done", name)
	}
}

func TestRemove_Refuses(t *testing.T) {
	b := newBed(t, three)
	var unknown *cluster.UnknownError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), &unknown)
	require.NoError(t, b.run(t))
	newly := b.newly()

	var last *cluster.LastControlPlaneError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1", "10.0.0.2")), &last)
	require.Contains(t, last.Hint(), "delete --all")
	var role *cluster.RoleError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.4")), &role)
	var missing *cluster.NotMemberError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.8")), &missing)
	require.EqualError(t, missing, `the cluster "prod" does not have 10.0.0.8; it has 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4`)
	for name, lines := range newly() {
		require.Empty(t, lines, name)
	}

	b.hosts["10.0.0.2"].On("^dist healthy$", hosttest.Answer{Stderr: "no leader", Code: 1})
	var quorum *cluster.QuorumError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1")), &quorum)
	require.NotContains(t, newly()["10.0.0.1"], "dist reset")
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, b.kept(t))
}

// A removal that was cut is continued.
func TestRemove_Continues(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].On("^dist forget", hosttest.Answer{Code: 1, Times: 1})
	require.ErrorContains(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "forget h4")
	require.Contains(t, b.hosts["10.0.0.4"].did(), "dist reset")
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.NotContains(t, newly()["10.0.0.4"], "dist reset", "it is clean already")
	require.Contains(t, newly()["10.0.0.1"], "dist forget h4")
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))
}

// A host that is gone is taken out by force only, and cleaned when it is back.
func TestRemove_Lost(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.4"].unreachable = &host.UnreachableError{Host: "10.0.0.4", Err: errors.New("no route to host")}
	var gone *cluster.GoneError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), &gone)
	require.Contains(t, gone.Hint(), "--force")

	b.hosts["10.0.0.1"].On("^kubectl get nodes", hosttest.Answer{Stdout: `{"items":[{"metadata":{"name":"h4"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.4"}]}}]}`})
	o := b.removeOptions(b.more(clusterfile.Worker, "10.0.0.4"))
	o.Force = true
	b.out.Reset()
	newly := b.newly()
	require.NoError(t, cluster.Remove(t.Context(), o))
	require.Contains(t, b.out.String(), "10.0.0.4 was not reached and is as it was")
	require.Equal(t, "dist leave h4\ndist forget h4", newly()["10.0.0.1"])
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))

	b.hosts["10.0.0.4"].unreachable = nil
	newly = b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.True(t, strings.HasPrefix(newly()["10.0.0.4"], "dist reset\n"))
	require.Empty(t, newly()["10.0.0.1"], "the cluster has forgotten it before")
}

// Scripts for hosts that leave are those that the cluster was made with.
func TestRemove_Plugins(t *testing.T) {
	b := newBed(t, three+"---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: bye}\nspec: {type: SHELL, action: pre-clean-host, data: \"echo bye\"}\n")
	require.NoError(t, b.run(t))
	did := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.Contains(t, did()["10.0.0.4"], "plugin-bye")
}

// A removal of a lost control plane that is cut after it was taken off the list, and before the others know, is gone on with.
func TestRemove_LostContinues(t *testing.T) {
	b := newBed(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}, {ips: [10.0.0.4], roles: [node]}]}\n")
	b.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].unreachable = &host.UnreachableError{Host: "10.0.0.1", Err: errors.New("no route to host")}
	b.hosts["10.0.0.2"].On("^kubectl get nodes", hosttest.Answer{Stdout: `{"items":[{"metadata":{"name":"h1"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}]}`})
	o := b.removeOptions(b.more(clusterfile.ControlPlane, "10.0.0.1"))
	o.Force = true
	b.hosts["10.0.0.4"].On("endpoint install", hosttest.Answer{Code: 1})
	require.ErrorContains(t, cluster.Remove(t.Context(), o), "endpoint install")

	b.hosts["10.0.0.4"].On("endpoint install", hosttest.Answer{})
	did := b.newly()
	o.Force = false
	var gone *cluster.GoneError
	require.ErrorAs(t, cluster.Remove(t.Context(), o), &gone)
	o.Force = true
	require.NoError(t, cluster.Remove(t.Context(), o))
	now := did()
	require.Contains(t, now["10.0.0.4"], "endpoint install", "the worker is told")
	require.NotContains(t, now["10.0.0.2"], "dist leave")
	require.Contains(t, b.out.String(), "10.0.0.1 was not reached and is as it was")

	// One that the cluster never had is none of its.
	stranger := b.removeOptions(b.more(clusterfile.ControlPlane, "10.0.0.9"))
	b.hosts["10.0.0.9"].unreachable = &host.UnreachableError{Host: "10.0.0.9", Err: errors.New("no route to host")}
	stranger.Force = true
	var missing *cluster.NotMemberError
	require.ErrorAs(t, cluster.Remove(t.Context(), stranger), &missing)
}

func TestRemove_DryRun(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	newly := b.newly()
	o := b.removeOptions(append(b.more(clusterfile.ControlPlane, "10.0.0.2"), b.more(clusterfile.Worker, "10.0.0.3")...))
	o.DryRun = true
	b.out.Reset()
	require.NoError(t, cluster.Remove(t.Context(), o))
	golden(t, "testdata/remove-plan.txt", b.out.String())
	for name, lines := range newly() {
		require.Empty(t, lines, name)
	}
}
