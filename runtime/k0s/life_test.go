// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
)

// made is a cluster of two control planes and a worker that runs.
func made(t *testing.T) (*runtime.Cluster, []*machine) {
	t.Helper()
	c, runners := newCluster(t, latest, twoAndOne, "")
	machines := play(t, c, runners)
	for i := range c.Hosts {
		steps := quick().Join
		if i == 0 {
			steps = quick().Init
		}
		run(i, steps)(t, c, machines)
	}
	return c, machines
}

// since are the commands on a host after the first n.
func since(m *machine, n int) string { return lines(m.Calls()[n:]) }

func TestUpgrade(t *testing.T) {
	for i, name := range []string{"first", "next", "worker"} {
		t.Run(name, func(t *testing.T) {
			c, machines := made(t)
			m := machines[i]
			if i == 0 {
				c.Contact = c.Hosts[1]
			}
			// The new binary is in place once it was placed, and what runs is the old one until it is started.
			placed := false
			m.On(`^cmp -s`, answer(func() hosttest.Answer { return code(placed) }))
			m.On(`/rootfs/bin/k0s /usr/local/bin/k0s`, answer(func() hosttest.Answer { placed = true; return hosttest.Answer{} }))
			m.On(`is-active`, answer(func() hosttest.Answer { return code(m.running) }))
			m.On(`^cmp -s`, answer(func() hosttest.Answer { return code(placed) }))
			n := len(m.Calls())
			upgrade := func() (string, string) {
				running, drained := quick().Upgrade(c, c.Hosts[i])
				n := len(m.Calls())
				_, err := do(t, running)
				require.NoError(t, err)
				k := len(m.Calls())
				_, err = do(t, drained)
				require.NoError(t, err)
				return lines(m.Calls()[n:k]), since(m, k)
			}
			before, after := upgrade()
			golden(t, "testdata/upgrade/"+name+".txt", before+"-- drained\n"+after)
			require.NotEmpty(t, since(m, n))

			before, after = upgrade()
			require.NotContains(t, before+after, "! ", "a second time changes nothing")
		})
	}
}

func code(well bool) hosttest.Answer {
	if well {
		return hosttest.Answer{}
	}
	return hosttest.Answer{Code: 1}
}

func TestSnapshot(t *testing.T) {
	c, machines := made(t)
	machines[0].On("^test -s", hosttest.Answer{Code: 1})
	n := len(machines[0].Calls())
	_, err := do(t, quick().Snapshot(c, c.Hosts[0], "/var/lib/sealer/backup.tar.gz"))
	require.NoError(t, err)
	require.Equal(t, "test -s /var/lib/sealer/backup.tar.gz\n! sh -c 'set -eu… sh /var/lib/sealer/backup.tar.gz /usr/local/bin/k0s\n", since(machines[0], n))

	c.File.K0s = map[string]any{"spec": map[string]any{"storage": map[string]any{"type": "kine", "kine": map[string]any{"dataSource": "mysql://db"}}}}
	var foreign *k0s.ForeignStorageError
	_, err = do(t, quick().Snapshot(c, c.Hosts[0], "/x/y"))
	require.ErrorAs(t, err, &foreign)
	_, err = do(t, quick().Restore(c, c.Hosts[0], "/x/y"))
	require.ErrorAs(t, err, &foreign)
}

func TestRestore(t *testing.T) {
	c, machines := made(t)
	before := []int{len(machines[0].Calls()), len(machines[1].Calls())}
	_, err := do(t, quick().Restore(c, c.Hosts[0], "/backup.tar.gz"))
	require.NoError(t, err)
	golden(t, "testdata/restore.txt", since(machines[0], before[0])+"-- the other control plane\n"+since(machines[1], before[1]))
	require.Equal(t, map[string]string{"H1": "https://10.0.0.1:2380", "H2": "https://10.0.0.2:2380"}, machines[0].members)

}

// A backup of a host that is gone is restored on another one: the script runs here, with a k0s that keeps what it is given.
func TestRestore_OnAnotherHost(t *testing.T) {
	c, machines := made(t)
	_, err := do(t, quick().Restore(c, c.Hosts[0], "/backup.tar.gz"))
	require.NoError(t, err)
	var script []string
	for _, call := range machines[0].Calls() {
		if len(call.Argv) == 7 && strings.Contains(call.Argv[2], "--config-out") {
			script = call.Argv
		}
	}
	require.Equal(t, []string{"/backup.tar.gz", "/usr/local/bin/k0s", "10.0.0.1"}, script[4:])

	for _, backup := range []struct{ line, want string }{
		{"peerAddress: 10.0.0.9", `peerAddress: "10.0.0.1"`},
		{`peerAddress: "10.0.0.1"`, `peerAddress: "10.0.0.1"`},
		{"peerAddress: 10.0.0.1", "peerAddress: 10.0.0.1"},
		{"type: kine", "type: kine"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "saved.db")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "in", "pki"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "in", "k0s.yaml"), []byte("spec:\n  storage:\n    etcd:\n      "+backup.line+"\n"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "in", "pki", "ca.key"), []byte("key"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "k0s"), []byte("#!/bin/sh\nmkdir "+dir+"/out && tar -xzf \"$4\" -C "+dir+"/out\n"), 0o700))
		out, err := exec.CommandContext(t.Context(), "tar", "-czf", file, "-C", filepath.Join(dir, "in"), ".").CombinedOutput()
		require.NoError(t, err, string(out))
		out, err = exec.CommandContext(t.Context(), "sh", "-c", script[2], "sh", file, filepath.Join(dir, "k0s"), script[6]).CombinedOutput()
		require.NoError(t, err, string(out))
		text, err := os.ReadFile(filepath.Join(dir, "out", "k0s.yaml"))
		require.NoError(t, err)
		require.Equal(t, "spec:\n  storage:\n    etcd:\n      "+backup.want+"\n", string(text))
		require.FileExists(t, filepath.Join(dir, "out", "pki", "ca.key"))
		left, err := filepath.Glob(filepath.Join(dir, ".*"))
		require.NoError(t, err)
		require.Empty(t, left, "nothing of it is left beside the backup")
	}
}

func certificate(t *testing.T, ca bool, until time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until, IsCA: ca, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestCertificates(t *testing.T) {
	c, machines := made(t)
	until := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	machines[0].On("BEGIN CERTIFICATE", hosttest.Answer{Stdout: "file: pki/ca.crt\n" + certificate(t, true, until.AddDate(9, 0, 0)) + "file: pki/server.crt\n" + certificate(t, false, until)})
	got, err := quick().Certificates(t.Context(), c, c.Hosts[0])
	require.NoError(t, err)
	require.Equal(t, []runtime.Certificate{
		{Name: "pki/ca.crt", NotAfter: until.AddDate(9, 0, 0), CA: true}, {Name: "pki/server.crt", NotAfter: until},
	}, got)
	machines[0].On("BEGIN CERTIFICATE", hosttest.Answer{Stdout: "file: pki/ca.crt\nrubbish"})
	_, err = quick().Certificates(t.Context(), c, c.Hosts[0])
	require.ErrorContains(t, err, `10.0.0.1: reading "pki/ca.crt": it holds no certificate`)
}

// Certificates are made anew by a restart; workers look after theirs.
func TestRenew(t *testing.T) {
	c, machines := made(t)
	n := len(machines[1].Calls())
	_, err := do(t, quick().Renew(c, c.Hosts[1]))
	require.NoError(t, err)
	require.Contains(t, since(machines[1], n), "sh k0scontroller restart\n")
	require.Empty(t, quick().Renew(c, c.Hosts[2]))
	require.Empty(t, quick().ServerNames(c, c.Hosts[2]))
}

func TestServerNames(t *testing.T) {
	c, machines := made(t)
	n := len(machines[1].Calls())
	_, err := do(t, quick().ServerNames(c, c.Hosts[1]))
	require.NoError(t, err)
	require.NotContains(t, since(machines[1], n), "! ", "the names are there")
	c.File.K0s = map[string]any{"spec": map[string]any{"api": map[string]any{"sans": []any{"k8s.example.com"}}}}
	_, err = do(t, quick().ServerNames(c, c.Hosts[1]))
	require.NoError(t, err)
	require.Contains(t, since(machines[1], n), "sh k0scontroller restart\n")
	require.Contains(t, string(machines[1].Files()["/etc/k0s/k0s.yaml"].Data), "k8s.example.com")
	require.Contains(t, string(machines[1].Files()["/etc/systemd/system/k0scontroller.service"].Data), "--token-file=")
}

// Names in the environment are as good as the document's.
func TestServerNames_Environment(t *testing.T) {
	c, machines := made(t)
	c.File.Env = map[string]string{"CertSANs": "a.example.com;10.9.9.9"}
	_, err := do(t, quick().ServerNames(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, string(machines[0].Files()["/etc/k0s/k0s.yaml"].Data), "- a.example.com\n    - 10.9.9.9\n")
}

// Names that were asked for once stay, whoever runs the cluster again.
func TestServerNames_Stay(t *testing.T) {
	c, machines := made(t)
	c.AltNames = []string{"alt.example.com"}
	_, err := do(t, quick().ServerNames(c, c.Hosts[0]))
	require.NoError(t, err)
	require.Contains(t, string(machines[0].Files()["/etc/k0s/k0s.yaml"].Data), "alt.example.com")
	c.AltNames = nil
	n := len(machines[0].Calls())
	_, err = do(t, quick().Init(c, c.Hosts[0])[:2])
	require.NoError(t, err)
	require.NotContains(t, since(machines[0], n), "! ")
	require.Contains(t, string(machines[0].Files()["/etc/k0s/k0s.yaml"].Data), "alt.example.com")
}

func TestHealth(t *testing.T) {
	c, machines := made(t)
	unwell := func(h *runtime.Host) (names []string) {
		for _, p := range quick().Health(c, h) {
			require.NotEmpty(t, p.Fix)
			if p.Ask(t.Context()) != nil {
				names = append(names, p.Name)
			}
		}
		return names
	}
	for _, h := range c.Hosts {
		require.Empty(t, unwell(h))
	}
	machines[0].On("readyz/etcd", hosttest.Answer{Stderr: "etcd failed", Code: 1})
	require.Equal(t, []string{runtime.ProbeDatastore}, unwell(c.Hosts[0]))
	require.Contains(t, lines(machines[0].Calls()), "--server https://10.0.0.1:6443 get --raw /readyz ")
	machines[1].running = false
	require.Equal(t, []string{"k0s"}, unwell(c.Hosts[1]))
	machines[2].On("status -o json", hosttest.Answer{Stdout: `{"Role":"worker","WorkerToAPIConnectionStatus":{"Message":"refused"}}`})
	require.ErrorContains(t, quick().Health(c, c.Hosts[2])[0].Ask(t.Context()), "it does not reach the API server: refused")
	machines[2].On("status -o json", hosttest.Answer{Stdout: `WARN`})
	require.ErrorContains(t, quick().Health(c, c.Hosts[2])[0].Ask(t.Context()), "reading the status of k0s")

	c.File.K0s = map[string]any{"spec": map[string]any{"storage": map[string]any{"type": "kine"}}}
	require.Len(t, quick().Health(c, c.Hosts[0]), 2, "one file is no datastore of members")
	require.Empty(t, quick().Leave(c, c.Hosts[0]))
}

// Where k0s itself cannot reset, what it would have taken is taken all the same.
func TestReset_WithoutItsHelp(t *testing.T) {
	c, machines := made(t)
	machines[2].On("k0s reset", hosttest.Answer{Stderr: "panic", Code: 2})
	out, err := do(t, quick().Reset(c, c.Hosts[2]))
	require.NoError(t, err)
	require.Contains(t, out, "going on without k0s reset")
	last := machines[2].Calls()[len(machines[2].Calls())-2]
	require.Contains(t, string(last.Stdin), "Puts the host back")

	machines[1].On("k0s reset", hosttest.Answer{Err: errors.New("the connection was lost")})
	_, err = do(t, quick().Reset(c, c.Hosts[1]))
	require.ErrorContains(t, err, "the connection was lost")
}

func TestScripts_Shellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	out, err := exec.CommandContext(t.Context(), shellcheck, "-s", "sh", "scripts/prepare.sh", "scripts/clean.sh").CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Marks tell a part of an installation from a whole one.
func TestMarks(t *testing.T) {
	m := k0s.New().Marks()
	require.Equal(t, k0s.Name, m.Name)
	require.Contains(t, fmt.Sprint(m.Started), "/var/lib/k0s/kubelet.conf")
	require.Contains(t, strings.Join(m.Units, " "), "k0sworker.service")
}
