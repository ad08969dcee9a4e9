//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// peersSite is the folder of the sealer that these tests run.
const peersSite = "peers"

// peersBed is four hosts and an image that is larger than small ones. Nothing is installed from it: a plugin ends the run when
// the content is there.
type peersBed struct {
	*lab.Lab
	h       []hosts.Host
	bridge  string // what goes out of this machine to the hosts, and nothing of what goes between them, goes out of it
	program int64  // size of sealer-node in bytes
}

func newPeersBed(t *testing.T) *peersBed {
	t.Helper()
	b := &peersBed{Lab: fiveHosts(t)}
	b.h, b.bridge = b.Hosts.Hosts[:4], bridgeOf(t, b.Hosts)
	require.NoError(t, b.TrustHosts(peersSite))
	_, err := b.BuildRelease(t.Context(), peersSite, peersBase())
	require.NoError(t, err)
	b.build(t)
	return b
}

func peersBase() lab.Release { return lab.Release{Program: "k3s", Version: lab.K3sVersion} }

// bridgeOf is the link that has the set's gateway.
func bridgeOf(t *testing.T, set *hosts.Set) string {
	t.Helper()
	links, err := net.Interfaces()
	require.NoError(t, err)
	for _, l := range links {
		addrs, err := l.Addrs()
		require.NoError(t, err)
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), set.Gateway.String()+"/") {
				return l.Name
			}
		}
	}
	t.Fatal("no link has the hosts' gateway")
	return ""
}

const peersImage = "example.com/peers:1"

// build makes an image that no host has anything new of: files that do not compress, over the double of k3s.
func (b *peersBed) build(t *testing.T) {
	t.Helper()
	dir := filepath.Join(b.Dir, "peers-context")
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755))
	for i := range 3 {
		f, err := os.Create(filepath.Join(dir, "data", strconv.Itoa(i)))
		require.NoError(t, err)
		_, err = io.CopyN(f, rand.Reader, 30<<20)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	kubefile := "FROM " + b.ReleaseImage(peersBase()) + "\nCOPY data/0 data/0\nCOPY data/1 data/1\nCOPY data/2 data/2\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte(kubefile), 0o600))
	b.sealer(t, "build", "-t", peersImage, dir)
	clusterfile := "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: peers}\nspec: {env: []}\n" + k3sSettings +
		"---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: stop}\nspec:\n  type: SHELL\n  action: pre-install\n  data: exit 42\n"
	require.NoError(t, os.WriteFile(b.file(), []byte(clusterfile), 0o600))
	program, err := os.Stat(filepath.Join(b.Source, "bin", "sealer-node"))
	require.NoError(t, err)
	b.program = program.Size()
}

func (b *peersBed) file() string { return filepath.Join(b.Dir, "Clusterfile-peers") }

func (b *peersBed) sealer(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Run(t.Context(), peersSite, args...)
	require.NoError(t, err)
	return out
}

func (b *peersBed) runArgs() []string {
	return []string{"run", peersImage, "-f", b.file(), "--pk", b.Hosts.KeyFile, "--masters", addresses(b.h[0]), "--nodes", addresses(b.h[1:]...)}
}

// run sends the content, and returns what sealer says.
func (b *peersBed) run(t *testing.T) string {
	t.Helper()
	cmd := b.Command(t.Context(), peersSite, append([]string{"--progress", "plain"}, b.runArgs()...)...)
	var said bytes.Buffer
	cmd.Stderr = io.MultiWriter(&said, os.Stderr)
	require.Error(t, cmd.Run(), "the plugin ends it")
	require.Contains(t, said.String(), "exit status 42", "the content is there, and the plugin was reached")
	return said.String()
}

// sent is how many bytes went out of this machine to the hosts so far.
func (b *peersBed) sent(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/sys/class/net/" + b.bridge + "/statistics/tx_bytes")
	require.NoError(t, err)
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	require.NoError(t, err)
	return n
}

// kept is how many bytes of blobs a host has.
func (b *peersBed) kept(ctx context.Context, h hosts.Host) (int64, error) {
	out, err := h.Exec(ctx, "sh", "-c", "du -sb /var/lib/sealer/node/store/blobs /var/lib/sealer/node/store/ingest 2>/dev/null | awk '{n += $1} END {print n + 0}'")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// requireQuiet checks that nothing of a transfer runs on the hosts.
func (b *peersBed) requireQuiet(t *testing.T) {
	t.Helper()
	for _, h := range b.h {
		require.NoError(t, lab.Poll(t.Context(), 30*time.Second, func(ctx context.Context) error {
			out, err := h.Exec(ctx, "sh", "-c", "pgrep -af 'content share' | grep -v pgrep; ss -Hltn 'sport = :9447'; exit 0")
			if err == nil && len(bytes.TrimSpace(out)) > 0 {
				err = fmt.Errorf("%s: still there: %s", h, out)
			}
			return err
		}))
	}
}

// clean deletes what was begun, and checks that nothing is left.
func (b *peersBed) clean(t *testing.T, before map[string]string) {
	t.Helper()
	b.requireQuiet(t)
	args := []string{"delete", "--all", "--yes", "--name", "peers", "--pk", b.Hosts.KeyFile}
	b.sealer(t, args...)
	now := b.snapshots(t)
	for name, was := range before {
		require.Equal(t, was, now[name])
	}
}

func (b *peersBed) snapshots(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, h := range b.h {
		out, err := h.Exec(t.Context(), "sh", "-c", snapshot)
		require.NoError(t, err, string(out))
		all[h.Name] = string(out)
	}
	return all
}

// midway waits until a host has some of the content, and not all.
func (b *peersBed) midway(t *testing.T, h hosts.Host) {
	t.Helper()
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		n, err := b.kept(ctx, h)
		if err == nil && n < 20<<20 {
			err = fmt.Errorf("%s has %d bytes", h, n)
		}
		return err
	}))
}

func TestPeers(t *testing.T) {
	b := newPeersBed(t)
	before := b.snapshots(t)

	// What the operator sends is the image, once, for four hosts.
	began := b.sent(t)
	said := b.run(t)
	sent := b.sent(t) - began
	image, err := b.kept(t.Context(), b.h[0])
	require.NoError(t, err)
	t.Logf("the image has %d MB, sealer-node %d MB; %d MB went out of this machine to 4 hosts", image/1e6, b.program/1e6, sent/1e6)
	require.Less(t, float64(sent), 1.1*float64(image+b.program))
	require.Contains(t, said, "MiB from host to host")
	require.Contains(t, b.run(t), "exit status 42", "and nothing is sent again")
	require.Less(t, b.sent(t)-began-sent, image/10)
	b.clean(t, before)

	t.Run("in the way", func(t *testing.T) {
		// One host's port is closed in both directions, and on another the program is killed while it gets and gives.
		closed, killed := b.h[2], b.h[1]
		rules := "add table inet test; add chain inet test in { type filter hook input priority 0; }; add chain inet test out { type filter hook output priority 0; }; " +
			"add rule inet test in tcp dport 9447 drop; add rule inet test out tcp dport 9447 drop"
		out, err := closed.Exec(t.Context(), "nft", rules)
		require.NoError(t, err, string(out))
		done := make(chan string, 1)
		go func() { done <- b.run(t) }()
		b.midway(t, killed)
		out, err = killed.Exec(t.Context(), "pkill", "-9", "-f", "content share")
		require.NoError(t, err, string(out))
		said := <-done
		// It is seen from either side first: the host wants something of another, or another of it.
		alone := strings.Count(said, closed.Address.String()+" reaches no other host on TCP port 9447")
		silent := strings.Count(said, closed.Address.String()+" gives nothing to other hosts")
		require.Positive(t, alone+silent, said)
		require.LessOrEqual(t, max(alone, silent), 1, said)
		out, err = closed.Exec(t.Context(), "nft", "delete table inet test")
		require.NoError(t, err, string(out))
		b.clean(t, before)
	})
	t.Run("the operator is killed", func(t *testing.T) {
		cmd := b.Command(t.Context(), peersSite, b.runArgs()...)
		require.NoError(t, cmd.Start())
		b.midway(t, b.h[3])
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		b.requireQuiet(t)
		had, err := b.kept(t.Context(), b.h[0])
		require.NoError(t, err)
		began := b.sent(t)
		// The hosts are held until the dead operator's sign of life has run out.
		b.run(t)
		require.Less(t, b.sent(t)-began, image-had+image/10, "it goes on where it was")
		b.clean(t, before)
	})
}
