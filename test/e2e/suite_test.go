//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// bed is a distribution on five hosts, and what the suite has to know of it. To whoever uses sealer all of them are the same.
type bed struct {
	lab  *lab.Lab
	name string // of the distribution and of the cluster
	site string // the root of sealer
	// versions are what clusters are made of and, where there is a second, what they are upgraded to.
	versions []release
	kubectl  []string // on a control plane
	// peers prints the names of etcd's members, one a line, where it runs on a control plane.
	peers string
	// journal is where the double of the distribution writes on its host; empty: what runs is no double.
	journal string
	file    string // the Clusterfile, without hosts
	h       []hosts.Host
	before  map[string]string // snapshots, by name of the host
	killAt  boundaries        // of an installation
}

// suite is one life of a cluster, the same for all distributions. Each case begins with what the one before it has left.
func suite() []struct {
	name string
	run  func(*testing.T, *bed)
	of   []string // distributions; none: all
} {
	doubled := []string{"k3s", "k0s"} // kubeadm's own are in TestCluster and TestUpgrade
	return []struct {
		name string
		run  func(*testing.T, *bed)
		of   []string
	}{
		{"what others have installed is refused by name", testForeign, nil},
		{"one node, by runs that are killed after each of its steps", testOneNode, nil},
		{"one control plane and two workers, in the same way", testOneAndTwo, nil},
		{"three control planes and two workers", testThreeAndTwo, nil},
		{"what is pushed is on all control planes", testPushed, []string{"kubernetes"}},
		{"the registry's login changes while hosts pull", testRegistryLogin, nil},
		{"a pod and its budget are named", testBudget, []string{"kubernetes"}},
		{"a control plane is lost and replaced", testLost, nil},
		{"a worker is replaced on the same host, which is rebooted meanwhile", testReplacedWorker, nil},
		{"the datastore is restored without two control planes, which are gone for good", testLostForGood, nil},
		{"the datastore is saved and restored", testDatastore, doubled},
		{"certificates are renewed and named", testCertificatesOf, doubled},
		{"an upgrade that is killed after each of its steps goes node by node", testUpgradeOf, doubled},
		{"there is a way back within a minor version", testRollback, doubled},
		{"it shrinks and goes", testShrink, nil},
		{"three control planes and two workers at once", testFromBare, doubled}, // kubeadm's are in TestHighAvailability
	}
}

// release is an image, what its programs say of their version, and what kubelets report.
type release struct{ image, version, kubelet string }

func (b *bed) live(t *testing.T) {
	b.before = b.snapshots(t, b.h...)
	t.Cleanup(func() {
		if t.Failed() { // the next distribution wants clean hosts
			_, err := b.lab.Run(context.WithoutCancel(t.Context()), b.site, b.args("delete", "--all", "--yes", "--force")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
	})
	for _, c := range suite() {
		if c.of != nil && !slices.Contains(c.of, b.name) {
			continue
		}
		if !t.Run(c.name, func(t *testing.T) { c.run(t, b) }) {
			t.FailNow() // the next one would begin with something else
		}
	}
}

// fiveHosts are beside the two of shared. They are made once, for all distributions.
func fiveHosts(t *testing.T) *lab.Lab {
	t.Helper()
	if five == nil {
		var err error
		five, err = shared.With(t.Context(), lab.Options{Hosts: 5, Name: labName() + "-five"})
		require.NoError(t, err)
	}
	return five
}

func (b *bed) watched() watched { return watched{b.lab, b.site, b.name} }

// args are those of a command on the bed's cluster.
func (b *bed) args(args ...string) []string {
	return append(args, "--name", b.name, "--pk", b.lab.Hosts.KeyFile)
}

// runArgs are those that make a cluster of the hosts.
func (b *bed) runArgs(image string, masters, nodes []hosts.Host, more ...string) []string {
	args := []string{"run", image, "-f", b.file, "--pk", b.lab.Hosts.KeyFile, "--masters", addresses(masters...)}
	if len(nodes) > 0 {
		args = append(args, "--nodes", addresses(nodes...))
	}
	return append(args, more...)
}

func addresses(list ...hosts.Host) string {
	var all []string
	for _, h := range list {
		all = append(all, h.Address.String())
	}
	return strings.Join(all, ",")
}

// sealer runs sealer and returns its stdout.
func (b *bed) sealer(t *testing.T, args ...string) string {
	t.Helper()
	began := time.Now()
	out, err := b.lab.Run(t.Context(), b.site, args...)
	require.NoError(t, err)
	t.Logf("sealer %s took %s", args[0], time.Since(began).Round(100*time.Millisecond))
	return out
}

// refused runs sealer, which must fail and say all of the words.
func (b *bed) refused(t *testing.T, args []string, words ...string) {
	t.Helper()
	_, err := b.lab.Run(t.Context(), b.site, args...)
	require.Error(t, err)
	for _, w := range words {
		require.ErrorContains(t, err, w)
	}
}

func (b *bed) exec(t *testing.T, h hosts.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), argv...)
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

// snapshots are what the hosts hold, by name.
func (b *bed) snapshots(t *testing.T, list ...hosts.Host) map[string]string {
	t.Helper()
	out := make([]string, len(list))
	var g errgroup.Group
	for i, h := range list {
		g.Go(func() error {
			text, err := h.Exec(t.Context(), "sh", "-c", snapshot)
			out[i] = string(text)
			return err
		})
	}
	require.NoError(t, g.Wait())
	all := map[string]string{}
	for i, h := range list {
		all[h.Name] = out[i]
	}
	return all
}

// asFound requires of the hosts that nothing has been left on them, and nothing taken.
func (b *bed) asFound(t *testing.T, list ...hosts.Host) {
	t.Helper()
	before := map[string]string{}
	for _, h := range list {
		before[h.Name] = b.before[h.Name]
	}
	unchanged(t, before, b.snapshots(t, list...))
}

func (b *bed) on(t *testing.T, h hosts.Host, kubectl ...string) string {
	t.Helper()
	return b.exec(t, h, append(slices.Clone(b.kubectl), kubectl...)...)
}

const readyNodes = `{range .items[*]}{.metadata.name}={range .status.conditions[?(@.type=="Ready")]}{.status}{end}{"\n"}{end}`

func (b *bed) readyNow(t *testing.T, h hosts.Host) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(b.on(t, h, "get", "nodes", "-o", "jsonpath="+readyNodes)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), "=True"); ok {
			names = append(names, name)
		}
	}
	return names
}

// ready requires of the nodes that they are those hosts, and all Ready. It asks the first of them.
func (b *bed) ready(t *testing.T, want ...hosts.Host) {
	t.Helper()
	require.ElementsMatch(t, namesOf(want), b.readyNow(t, want[0]))
	require.Len(t, strings.Fields(b.on(t, want[0], "get", "nodes", "-o", "name")), len(want))
}

func namesOf(list []hosts.Host) []string {
	var names []string
	for _, h := range list {
		names = append(names, h.Name)
	}
	return names
}

// members requires of etcd that its members are those hosts, asked on the first of them.
func (b *bed) members(t *testing.T, want ...hosts.Host) {
	t.Helper()
	var names []string
	for m := range strings.FieldsSeq(b.exec(t, want[0], "sh", "-c", b.peers)) {
		name, _, _ := strings.Cut(m, "-") // k3s adds a number
		names = append(names, name)
	}
	require.ElementsMatch(t, namesOf(want), names)
}

// status requires of `sealer status` that everything is well and of the version.
func (b *bed) status(t *testing.T, version string, count int) {
	t.Helper()
	var status struct {
		Runtime string
		Hosts   []struct {
			Host, Version string
			Ready         bool
		}
		Unwell, Drift []string
	}
	require.NoError(t, json.Unmarshal([]byte(b.sealer(t, b.args("status", "-o", "json")...)), &status))
	require.Equal(t, b.name, status.Runtime)
	require.Len(t, status.Hosts, count)
	require.Empty(t, status.Unwell)
	require.Empty(t, status.Drift)
	for _, h := range status.Hosts {
		require.True(t, h.Ready, h.Host)
		require.Equal(t, version, h.Version, h.Host)
	}
}

// eventuallyReady waits until so many nodes are Ready.
func (b *bed) eventuallyReady(t *testing.T, h hosts.Host, want int) {
	t.Helper()
	require.NoError(t, lab.Poll(t.Context(), 3*time.Minute, func(context.Context) error {
		if n := len(b.readyNow(t, h)); n != want {
			return fmt.Errorf("%d nodes are Ready", n)
		}
		return nil
	}))
}

// clusterfile writes the bed's Clusterfile.
func (b *bed) clusterfile(t *testing.T, settings string) {
	t.Helper()
	b.file = filepath.Join(t.TempDir(), "Clusterfile")
	text := "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: " + b.name + "}\nspec:\n  env: []\n" + settings
	require.NoError(t, os.WriteFile(b.file, []byte(text), 0o600))
}
