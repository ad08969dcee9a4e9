// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

// datastoreOf is what saves and restores the data of a bed that runs.
func datastoreOf(t *testing.T, b *bed) cluster.DatastoreOptions {
	t.Helper()
	require.NoError(t, b.run(t))
	b.out.Reset()
	return cluster.DatastoreOptions{
		Operator: b.opts.Operator, Clusterfile: b.opts.Clusterfile,
	}
}

func TestSnapshot(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	require.NoError(t, cluster.Snapshot(t.Context(), o))
	where := strings.TrimSpace(b.out.String())
	file, ok := strings.CutPrefix(where, "10.0.0.1:"+cluster.SnapshotDir+"/prod-")
	require.True(t, ok, where)
	require.Contains(t, strings.Join(b.hosts["10.0.0.1"].did(), "\n"), "dist snapshot "+cluster.SnapshotDir+"/prod-"+file)
	require.NotContains(t, strings.Join(b.hosts["10.0.0.2"].did(), "\n"), "dist snapshot")
}

func TestSnapshot_BroughtHere(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	sum := sha256.Sum256([]byte("the data"))
	h := b.hosts["10.0.0.1"]
	h.On("^sh -c 'sha256sum", hosttest.Answer{Stdout: hex.EncodeToString(sum[:]) + "  /a\n8\n"})
	h.On("^cat -- /var/lib/sealer/snapshots", hosttest.Answer{Stdout: "the data"})
	o.File = filepath.Join(t.TempDir(), "saved.db")
	require.NoError(t, cluster.Snapshot(t.Context(), o))
	require.Equal(t, o.File+"\n", b.out.String())
	data, err := os.ReadFile(o.File)
	require.NoError(t, err)
	require.Equal(t, "the data", string(data))
	info, err := os.Stat(o.File)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	h.On("^cat -- /var/lib/sealer/snapshots", hosttest.Answer{Stdout: "the date"})
	o.File += "2"
	require.ErrorContains(t, cluster.Snapshot(t.Context(), o), "it changed meanwhile")
	require.NoFileExists(t, o.File)
}

// A cluster that has lost the majority of its control planes has no API server; what is left of its data is saved all the same.
func TestSnapshot_WithoutMajority(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	b.hosts["10.0.0.1"].unreachable = &host.UnreachableError{Host: "10.0.0.1", Err: errors.New("no route to host")}
	b.hosts["10.0.0.2"].On("^kubectl get --raw /readyz", hosttest.Answer{Code: 1})
	require.NoError(t, cluster.Snapshot(t.Context(), o))
	require.Regexp(t, "^10.0.0.2:"+cluster.SnapshotDir+"/prod-.*\\.db\n$", b.out.String())

	b.hosts["10.0.0.2"].On("^dist .snapshot", hosttest.Answer{Stderr: "no etcd runs in a container", Code: 1})
	err := cluster.Snapshot(t.Context(), o)
	var contact *cluster.NoContactError
	require.ErrorAs(t, err, &contact)
	require.Equal(t, []string{"10.0.0.2"}, contact.Asked)
	require.ErrorContains(t, err, "no etcd runs in a container")
}

func TestRestore(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	o.File = filepath.Join(t.TempDir(), "saved.db")
	require.NoError(t, os.WriteFile(o.File, []byte("the data"), 0o600))
	o.Confirm = func(plan string) error {
		require.Contains(t, plan, "what was changed in it since is lost")
		return errors.New("not today")
	}
	h := b.hosts["10.0.0.1"]
	before := h.did()
	require.ErrorContains(t, cluster.Restore(t.Context(), o), "not today")
	require.Equal(t, before, h.did(), "nothing was changed")

	o.Confirm = nil
	require.NoError(t, cluster.Restore(t.Context(), o))
	sum := sha256.Sum256([]byte("the data"))
	file := cluster.SnapshotDir + "/restore-" + hex.EncodeToString(sum[:])[:16] + ".db"
	sent := h.Files()[file]
	require.Equal(t, "the data", string(sent.Data))
	require.Equal(t, os.FileMode(0o600), sent.Mode)
	require.Contains(t, h.did(), "dist restore "+file)
}

func TestRestore_WhereTheFileIs(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	for i, host := range []string{"10.0.0.2", "[::ffff:10.0.0.2]", "h2"} {
		file := fmt.Sprintf("/var/lib/sealer/snapshots/%d.db", i)
		o.File = host + ":" + file
		require.NoError(t, cluster.Restore(t.Context(), o))
		require.Contains(t, b.hosts["10.0.0.2"].did(), "dist restore "+file)
	}

	for _, file := range []string{"10.0.0.3:/a.db", "nowhere.db"} { // a worker; nothing
		o.File = file
		require.ErrorContains(t, cluster.Restore(t.Context(), o), "reading the snapshot")
	}
}

// A control plane that nobody named would go on as another cluster; one that is lost is left out by force alone, and asks nothing of a snapshot.
func TestRestore_Part(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	o.File = filepath.Join(t.TempDir(), "saved.db")
	require.NoError(t, os.WriteFile(o.File, []byte("the data"), 0o600))
	all := o.Clusterfile
	first := *all
	first.Hosts = all.Hosts[:1]
	o.Clusterfile = &first
	did := b.newly()
	var unnamed *cluster.UnnamedError
	require.ErrorAs(t, cluster.Restore(t.Context(), o), &unnamed)
	require.Equal(t, []string{"10.0.0.2"}, unnamed.Hosts)

	o.Clusterfile = all
	b.hosts["10.0.0.2"].unreachable = &host.UnreachableError{Host: "10.0.0.2", Err: errors.New("no route to host")}
	var lost *cluster.LostControlPlanesError
	require.ErrorAs(t, cluster.Restore(t.Context(), o), &lost)
	require.Contains(t, lost.Hint(), "--force")
	require.NotContains(t, did()["10.0.0.1"], "dist restore")
	o.Force = true
	var asked string
	o.Confirm = func(plan string) error { asked = plan; return nil }
	b.out.Reset()
	require.NoError(t, cluster.Restore(t.Context(), o))
	require.Contains(t, asked, "without 10.0.0.2, which must not come back as they are")
	require.Contains(t, did()["10.0.0.1"], "dist restore")
	require.Contains(t, b.out.String(), "sealer delete --force --masters 10.0.0.2 --name prod\n")
	o.File = "10.0.0.2:/var/lib/sealer/snapshots/a.db"
	require.ErrorContains(t, cluster.Restore(t.Context(), o), "10.0.0.2 cannot be reached; name a snapshot")

	o.File = ""
	require.NoError(t, cluster.Snapshot(t.Context(), o))
}

func TestDatastore_OtherHosts(t *testing.T) {
	b := newBed(t, fourHosts)
	o := datastoreOf(t, b)
	o.Clusterfile.Name = "another"
	var other *cluster.OtherClusterError
	require.ErrorAs(t, cluster.Snapshot(t.Context(), o), &other)
	require.ErrorAs(t, cluster.Restore(t.Context(), o), &other)
}
