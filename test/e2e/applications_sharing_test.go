//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
)

// largeApplication is an image of files that do not compress, and of a packed image.
func (b *bed) largeApplication(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "data"))
	require.NoError(t, err)
	_, err = io.CopyN(f, rand.Reader, 40<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	const packed = "docker.io/sealer-test/shared:v1"
	b.sealer(t, "copy", "docker.io/sealer-test/hello:v2", b.lab.Registry+"/"+packed)
	for name, text := range map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList data ./\nAPP large local://large.yaml\nLAUNCH large\n",
		"imageList": packed + "\n", "large.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large, namespace: default}\ndata: {version: " + version + "}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	image := b.lab.Registry + "/team/large:" + version
	b.sealer(t, "build", "-t", image, dir)
	return image
}

// sharesApplication has all hosts, which are control planes, get an application: the operator sends it once, and they give it to one another.
// Where they cannot reach one another, each gets it from here. served is called when they have it.
func (b *bed) sharesApplication(t *testing.T, served func()) {
	kept := func(h hosts.Host) int64 {
		n, err := strconv.ParseInt(b.exec(t, h, "sh", "-c", "du -sb /var/lib/sealer/node/store/blobs | cut -f 1"), 10, 64)
		require.NoError(t, err)
		return n
	}
	sent := func() int64 {
		text, err := os.ReadFile("/sys/class/net/" + bridgeOf(t, b.lab.Hosts) + "/statistics/tx_bytes")
		require.NoError(t, err)
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		require.NoError(t, err)
		return n
	}
	launch := func(args ...string) (said string, out, each int64) {
		had, began := kept(b.h[0]), sent()
		cmd := b.lab.Command(t.Context(), b.site, append([]string{"--progress", "plain"}, b.args(args...)...)...)
		var text bytes.Buffer
		cmd.Stderr = &text
		require.NoError(t, cmd.Run(), "%s", &text)
		out, each = sent()-began, kept(b.h[0])-had
		t.Logf("sealer %s: %d MB are new on each of %d control planes, %d MB went out of this machine", args[0], each/1e6, len(b.h), out/1e6)
		require.Greater(t, each, int64(40<<20))
		for _, h := range b.h {
			require.Equal(t, "[]", b.exec(t, h, "sh", "-c", `echo '["docker.io/sealer-test/shared:v1"]' | sealer-cluster-node registry lacks`), h.Name)
		}
		return text.String(), out, each
	}
	said, out, each := launch("run", b.largeApplication(t, "v1"))
	require.Less(t, float64(out), 1.1*float64(each), said)
	require.Contains(t, said, "MiB from host to host")
	require.Equal(t, "v1", b.on(t, b.h[0], "get", "configmap", "large", "-o", "jsonpath={.data.version}"))

	second := b.largeApplication(t, "v2")
	for _, h := range b.h {
		b.exec(t, h, "nft", "add table inet test; add chain inet test in { type filter hook input priority 0; }; add rule inet test in iifname != lo tcp dport 9447 drop")
	}
	said, out, each = launch("run", second, "--as", "second")
	for _, h := range b.h {
		b.exec(t, h, "nft", "delete table inet test")
	}
	require.Greater(t, out, int64(len(b.h))*each, said)
	served()
	for _, name := range []string{"second", "large"} {
		b.sealer(t, b.args("app", "delete", name, "--yes")...)
	}
}
