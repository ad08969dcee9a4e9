//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// testOperate looks at a running cluster of two hosts, and works on its hosts.
func testOperate(t *testing.T, root string) {
	login := []string{"--pk", shared.Hosts.KeyFile, "--name", "e2e"}
	on := func(args ...string) string { return sealer(t, root, append(args, login...)...) }
	first, second := shared.Hosts.Hosts[0].Address.String(), shared.Hosts.Hosts[1].Address.String()

	var status struct {
		Contact, Runtime, Version string
		Hosts                     []struct {
			Host, Version, Registry string
			Ready, Complete         bool
		}
		Unwell, Drift []string
	}
	require.NoError(t, json.Unmarshal([]byte(on("status", "-o", "json")), &status))
	require.Empty(t, status.Unwell)
	require.Empty(t, status.Drift)
	require.Equal(t, first, status.Contact)
	require.Len(t, status.Hosts, 2)
	for _, h := range status.Hosts {
		require.True(t, h.Ready && h.Complete, h.Host)
		require.Equal(t, lab.KubernetesVersion, h.Version)
	}
	require.Equal(t, "running", status.Hosts[0].Registry)

	names := strings.Split(strings.TrimSpace(on("exec", "cat /proc/sys/kernel/hostname")), "\n")
	require.Len(t, names, 2)
	require.Contains(t, strings.Join(names, "\n"), second+": ")
	_, stderr, code := runAny(t, root, append([]string{"exec", "--hosts", second, "exit 7"}, login...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, second)

	dir := t.TempDir()
	file := filepath.Join(dir, "motd")
	require.NoError(t, os.WriteFile(file, []byte("kept well\n"), 0o644))
	on("cp", file, ":/run/sealer-test/")
	require.Equal(t, "kept well", strings.TrimSpace(on("exec", "--hosts", first, "cat /run/sealer-test/motd")))
	on("cp", second+":/run/sealer-test/motd", filepath.Join(dir, "back"))
	got, err := os.ReadFile(filepath.Join(dir, "back"))
	require.NoError(t, err)
	require.Equal(t, "kept well\n", string(got))
	on("exec", "rm -r /run/sealer-test")

	// The kubeconfig works from this machine.
	config := filepath.Join(dir, "config")
	on("kubeconfig", "-o", config)
	cmd := exec.CommandContext(t.Context(), filepath.Join(shared.Components, "bin", "kubectl"), "--kubeconfig", config, "get", "nodes", "-o", "name")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Len(t, strings.Fields(string(out)), 2)

	testCertificates(t, on, first)
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(context.Context) error {
		_, _, code := runAny(t, root, append([]string{"check", "--post"}, login...)...)
		if code != 0 {
			return errors.New("check --post still finds something")
		}
		return nil
	}))

	require.Contains(t, sealer(t, root, "logs", "--name", "e2e", "--host", second), "joining the cluster")
	require.Contains(t, sealer(t, root, "gen", shared.AppsImage(), "--masters", first, "--name", "e2e"), "image: "+shared.AppsImage())
}

// testCertificates renews a cluster's certificates, and adds a name to the API server's.
func testCertificates(t *testing.T, on func(...string) string, first string) {
	ends := func() map[string]time.Time {
		var list []struct {
			Host, Name string
			NotAfter   time.Time
		}
		require.NoError(t, json.Unmarshal([]byte(on("cert", "check", "-o", "json")), &list))
		found := map[string]time.Time{}
		for _, c := range list {
			found[c.Host+" "+c.Name] = c.NotAfter
		}
		return found
	}
	server := first + " /etc/kubernetes/pki/apiserver.crt"
	before := ends()
	require.Contains(t, before, first+" /etc/kubernetes/admin.conf")
	require.Contains(t, before, first+" /etc/kubernetes/pki/etcd/server.crt")
	on("cert", "renew")
	after := ends()
	require.True(t, after[server].After(before[server]), "the certificate is a new one")
	require.Equal(t, before[first+" /etc/kubernetes/pki/ca.crt"], after[first+" /etc/kubernetes/pki/ca.crt"], "the CA stays")
	served := func() *x509.Certificate {
		conn, err := tls.Dial("tcp", first+":6443", &tls.Config{InsecureSkipVerify: true}) // only looked at
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	require.Equal(t, after[server], served().NotAfter.UTC(), "it is served")

	require.Error(t, served().VerifyHostname("k8s.site.example"))
	on("cert", "--alt-names", "k8s.site.example,10.200.200.200")
	require.NoError(t, served().VerifyHostname("k8s.site.example"))
	require.NoError(t, served().VerifyHostname("10.200.200.200"))
	require.NoError(t, served().VerifyHostname("apiserver.cluster.local"))
	require.NoError(t, shared.WaitForNodes(t.Context(), 2, 2*time.Minute))
}
