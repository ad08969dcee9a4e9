// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

// unpacked are the files of a bundle, without their folder.
func unpacked(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(text)
	}
}

func TestBundle(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	const (
		registry  = "registry-password-0123456789abc"
		ofSecret  = "value-of-a-Secret"
		clientKey = "TFMwdExTMUNSVWRKVGlCU1UwRWdVRkpKVmtGVVJTQkxSVms="
		sshWord   = "ssh-word"
	)
	secrets := []string{registry, ofSecret, clientKey, sshWord, base64.StdEncoding.EncodeToString([]byte(ofSecret)), "abcdef.0123456789abcdef"}
	leak := strings.Join(secrets, "\n") + "\nDB_PASSWORD: hunter-of-an-env\nplain words stay\n"
	secrets = append(secrets, "hunter-of-an-env")
	for _, h := range b.hosts {
		h.Put("/var/lib/sealer/node/registry/credentials.json", `{"username":"sealer","password":"`+registry+`"}`, 0o600)
		h.Put("/admin.conf", "users:\n- user:\n    client-key-data: "+clientKey+"\n", 0o600)
		h.On("journalctl|^kubectl (describe|logs|version)", hosttest.Answer{Stdout: leak})
		h.On("^kubectl get secrets --all-namespaces", hosttest.Answer{Stdout: `{"items":[{"type":"Opaque","data":{"a":"` + base64.StdEncoding.EncodeToString([]byte(ofSecret)) + `"}}]}`})
		h.On("df -h", hosttest.Answer{Stdout: "Filesystem", Stderr: "df: no", Code: 1})
		h.pods = `{"items":[{"metadata":{"namespace":"default","name":"web"},"status":{"containerStatuses":[{"restartCount":2}]}},{"metadata":{"namespace":"kube-system","name":"dns"}}]}`
	}
	logs := t.TempDir()
	for _, name := range []string{"run-20260101T000000Z.log", "join-20260102T000000Z.log"} {
		require.NoError(t, os.WriteFile(filepath.Join(logs, name), []byte(leak), 0o600))
	}
	b.hosts["10.0.0.3"].unreachable = errors.New("10.0.0.3: no route to host")
	file := filepath.Join(t.TempDir(), "sealer-prod.tar.gz")
	o := cluster.BundleOptions{View: b.view(t), Cluster: "prod", StateDir: b.opts.StateDir, LogDir: logs, Secrets: []host.Secret{sshWord, ""}, File: file}
	report, err := cluster.Bundle(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.3: no route to host"}, report.Lost)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	files := unpacked(t, file)
	require.Len(t, files, report.Entries)
	for _, name := range []string{
		"versions.json", "status.json", "applications.json", "certificates.json", "operator/journal.jsonl", "operator/Clusterfile",
		"operator/logs/run-20260101T000000Z.log", "hosts/10.0.0.1/facts.json", "hosts/10.0.0.1/memory.txt", "hosts/10.0.0.4/units/kubelet.txt", "hosts/10.0.0.3/unreachable.txt",
		"kubernetes/version.txt", "kubernetes/logs/kube-system/dns.txt", "kubernetes/logs/default/web.previous.txt", "kubernetes/events.txt",
	} {
		require.Contains(t, files, name)
	}
	require.Contains(t, files["kubernetes/logs/default/web.txt"], "plain words stay")
	require.Contains(t, files["hosts/10.0.0.1/disks.txt"], "(exit status 1)")
	for name, text := range files {
		for _, s := range secrets {
			require.NotContains(t, text, s, name)
		}
		require.NotContains(t, name, "secret")
	}

	// Where no host answers, there is what this machine knows.
	o.View, o.Unreachable = nil, errors.New("connecting: 4 failed")
	_, err = cluster.Bundle(t.Context(), o)
	require.NoError(t, err)
	files = unpacked(t, file)
	require.Equal(t, "connecting: 4 failed\n", files["hosts/unreachable.txt"])
	require.Contains(t, files, "operator/journal.jsonl")
}

// One that is interrupted leaves nothing behind.
func TestBundle_Interrupted(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	v := b.view(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.hosts["10.0.0.2"].On("df -h", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		cancel()
		return hosttest.Answer{}
	}})
	dir := t.TempDir()
	_, err := cluster.Bundle(ctx, cluster.BundleOptions{View: v, Cluster: "prod", StateDir: b.opts.StateDir, File: filepath.Join(dir, "x.tar.gz")})
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
