// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/store"
)

// sharingHost is a host that takes part, as its operator sees it.
type sharingHost struct {
	t       *testing.T
	orders  *io.PipeWriter
	reports *bufio.Reader
	ended   chan string // what it says at the end; empty: all is well
	port    int
	have    []int
}

func (m *machine) share(a *peers.Authority, name string, blobs ...peers.Blob) *sharingHost {
	m.t.Helper()
	in, orders := io.Pipe()
	reports, out := io.Pipe()
	h := &sharingHost{t: m.t, orders: orders, reports: bufio.NewReader(reports), ended: make(chan string, 1)}
	go func() {
		var said bytes.Buffer
		ctx := context.WithoutCancel(m.t.Context())
		node.Run(ctx, []string{"--root", m.root, "--unit-dir", m.unitDir, "content", "share"}, node.Streams{In: in, Out: out, Err: &said})
		_ = out.Close()
		h.ended <- said.String()
	}()
	who, err := a.Issue(name)
	require.NoError(m.t, err)
	h.tell(peers.Order{Hello: &peers.Hello{Identity: who, Blobs: blobs, Token: "the-token"}})
	first := h.report()
	require.NotNil(m.t, first.Serving)
	h.port, h.have = first.Serving.Port, first.Serving.Have
	m.t.Cleanup(func() { _ = orders.Close() })
	return h
}

func (h *sharingHost) tell(o peers.Order) {
	h.t.Helper()
	require.NoError(h.t, peers.Write(h.orders, o))
}

func (h *sharingHost) report() (r peers.Report) {
	h.t.Helper()
	require.NoError(h.t, peers.Read(h.reports, &r))
	return r
}

func (h *sharingHost) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port)) }

func (h *sharingHost) end() {
	h.t.Helper()
	h.tell(peers.Order{End: true})
	require.Empty(h.t, <-h.ended)
	_, err := net.DialTimeout("tcp", h.address(), 5*time.Second)
	require.Error(h.t, err, "nobody listens any more")
}

// A blob goes from the operator to one host and from there to another; the first bytes of a wrong one are found out.
func TestShare(t *testing.T) {
	a, err := peers.NewAuthority(time.Now())
	require.NoError(t, err)
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<15) // 1.5 MiB
	blob := peers.Blob{Digest: digest.FromBytes(data), Size: int64(len(data))}
	other := peers.Blob{Digest: digest.FromString("something else"), Size: 4}
	m, n := newMachine(t), newMachine(t)
	one, two := m.share(a, "h1.sealer.internal", blob, other), n.share(a, "h2.sealer.internal", blob, other)
	require.Empty(t, one.have)
	all := []peers.Part{{Blob: 0, Length: blob.Size}}

	two.tell(peers.Order{Peers: []peers.Peer{{ID: 1, Address: one.address(), Name: "h1.sealer.internal"}}, Get: &peers.Get{ID: 3, From: 1, Parts: all}})
	require.Equal(t, "absent", two.report().Failed.Reason)

	one.tell(peers.Order{Get: &peers.Get{ID: 1, Parts: all}})
	_, err = one.orders.Write(data)
	require.NoError(t, err)
	require.Equal(t, peers.Report{Have: []peers.At{{Blob: 0, Offset: blob.Size}}, Done: []int{1}}, one.report())
	one.tell(peers.Order{Get: &peers.Get{ID: 2, Parts: []peers.Part{{Blob: 1, Length: 4}}}})
	_, err = one.orders.Write([]byte("lies"))
	require.NoError(t, err)
	require.Equal(t, "wrong", one.report().Failed.Reason)

	two.tell(peers.Order{Get: &peers.Get{ID: 4, From: 1, Parts: all}})
	require.Equal(t, []int{4}, two.report().Done)
	two.tell(peers.Order{Peers: []peers.Peer{{ID: 2, Address: "127.0.0.1:1", Name: "h9.sealer.internal"}}, Get: &peers.Get{ID: 5, From: 2, Parts: []peers.Part{{Blob: 1, Length: 4}}}})
	require.Equal(t, "unreachable", two.report().Failed.Reason)
	one.end()
	two.end()
	again := n.share(a, "h3.sealer.internal", blob, other)
	require.Equal(t, []int{0}, again.have)
	again.end()
}

// A damaged beginning of an earlier run is not laid to the host that gives the rest. It is asked for from the first byte then, and what is wrong
// of that is.
func TestShare_DamagedLeftover(t *testing.T) {
	a, err := peers.NewAuthority(time.Now())
	require.NoError(t, err)
	operator := must(store.Open(filepath.Join(t.TempDir(), "s")))
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<15)
	desc := put(t, operator, "x", data)
	m := newMachine(t)
	m.leftover(operator, desc, 1<<20)
	h := m.share(a, "h1.sealer.internal", peers.Blob{Digest: desc.Digest, Size: desc.Size})
	send := func(id int, offset, end int64, data []byte) peers.Report {
		part := peers.Part{Offset: offset, Length: end - offset, Sum: digest.FromBytes(data[:end])}
		h.tell(peers.Order{Get: &peers.Get{ID: id, Parts: []peers.Part{part}}})
		_, err := h.orders.Write(data[offset:end])
		require.NoError(t, err)
		return h.report()
	}
	require.Equal(t, "leftover", send(1, 1<<20, desc.Size, data).Failed.Reason)
	require.Equal(t, []int{2}, send(2, 0, 1<<20, data).Done)
	wrong := slices.Clone(data)
	wrong[desc.Size-1]++
	require.Equal(t, "wrong", send(3, 1<<20, desc.Size, wrong).Failed.Reason, "what was there is checked")
	require.Equal(t, []int{4}, send(4, 0, desc.Size, data).Done)
	h.end()
}

// Orders that come while it ends begin nothing any more.
func TestShare_EndsWhileOrdersCome(t *testing.T) {
	a, err := peers.NewAuthority(time.Now())
	require.NoError(t, err)
	who, err := a.Issue("h1.sealer.internal")
	require.NoError(t, err)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<8)
	var begin, orders bytes.Buffer
	hello := &peers.Hello{Identity: who, Token: "the-token", Port: -1}
	for i := range 64 {
		blob := append(bytes.Clone(data), byte(i))
		hello.Blobs = append(hello.Blobs, peers.Blob{Digest: digest.FromBytes(blob), Size: int64(len(blob))})
		require.NoError(t, peers.Write(&orders, peers.Order{Get: &peers.Get{ID: i + 1, Parts: []peers.Part{{Blob: i, Length: int64(len(blob))}}}}))
		orders.Write(blob)
	}
	require.NoError(t, peers.Write(&begin, peers.Order{Hello: hello}))
	m := newMachine(t)
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		in, tell := io.Pipe()
		reports, out := io.Pipe()
		told := make(chan struct{})
		go func() {
			defer close(told)
			_, _ = tell.Write(begin.Bytes())
			_, _ = tell.Write(orders.Bytes())
		}()
		go func() {
			var r peers.Report
			for n := 0; peers.Read(bufio.NewReader(reports), &r) == nil; n++ {
				if n == i {
					cancel()
				}
			}
		}()
		code := node.Run(ctx, []string{"--root", m.root, "--unit-dir", m.unitDir, "content", "share"}, node.Streams{In: in, Out: out, Err: io.Discard})
		require.NotZero(t, code)
		cancel()
		_, _ = in.Close(), out.Close()
		<-told
	}
}

// Nobody gets anything without a certificate of this transfer, the program goes to those who know the word alone, and a key is on no disk.
func TestShare_Strangers(t *testing.T) {
	a, err := peers.NewAuthority(time.Now())
	require.NoError(t, err)
	m := newMachine(t)
	h := m.share(a, "h1.sealer.internal")
	stranger := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	_, err = stranger.Post("https://"+h.address()+"/parts", "application/json", strings.NewReader("[]")) //nolint:bodyclose // there is none
	require.Error(t, err)

	ask := func(line string) []byte {
		c, err := net.DialTimeout("tcp", h.address(), 5*time.Second)
		require.NoError(t, err)
		_, err = c.Write([]byte(line))
		require.NoError(t, err)
		got, _ := io.ReadAll(c) // a connection that is reset brings nothing either
		require.NoError(t, c.Close())
		return got
	}
	require.Empty(t, ask("sealer-node another\n"))
	own, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.True(t, bytes.Equal(own, ask("sealer-node the-token\n")))

	require.NoError(t, filepath.WalkDir(m.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		require.NotContains(t, string(text), "PRIVATE KEY", path)
		return err
	}))
	// The operator is gone.
	require.NoError(t, h.orders.Close())
	require.Contains(t, <-h.ended, "the operator is gone")
	_, err = net.DialTimeout("tcp", h.address(), 5*time.Second)
	require.Error(t, err)
}
