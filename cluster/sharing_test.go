// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/store"
)

// sharer is a fake host whose content is real: sealer-node runs in this process, in a folder of its own, and serves the others over TLS on
// the loopback network.
type sharer struct {
	*fakeHost
	t    *testing.T
	root string
	got  atomic.Int64 // bytes that the operator sent
	// limit ends the first session after so many bytes from the operator, as a kill does; 0: none.
	limit atomic.Int64
}

func (s *sharer) Run(ctx context.Context, c host.Command) error {
	if len(c.Argv) < 2 || c.Argv[1] != "content" || c.Argv[2] == "tag" {
		return s.Runner.Run(ctx, c)
	}
	in := c.Stdin
	if in == nil {
		in = strings.NewReader("")
	}
	out := c.Stdout
	if out == nil {
		out = io.Discard
	}
	var said bytes.Buffer
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	counted := &countedReader{r: in, n: &s.got}
	if c.Argv[2] == "share" {
		if limit := s.limit.Swap(0); limit > 0 {
			counted.limit, counted.end = s.got.Load()+limit, cancel
		}
	}
	code := node.Run(ctx, append([]string{"--root", s.root}, c.Argv[1:]...), node.Streams{In: counted, Out: out, Err: &said})
	if code != 0 {
		return &host.ExitError{Host: s.String(), Command: c.String(), Code: code, Output: said.String()}
	}
	return nil
}

type countedReader struct {
	r     io.Reader
	n     *atomic.Int64
	limit int64
	end   func()
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if total := c.n.Add(int64(n)); c.end != nil && total > c.limit {
		c.end()
	}
	return n, err
}

// shareBed is a cluster of such hosts.
type shareBed struct {
	*bed
	sharers []*sharer
	log     lockedBuffer
	close   func()
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// layerSize is that of the rootfs' layer: several parts, and a rest.
const layerSize = 21<<20 + 12345

func newShareBed(t *testing.T, control, workers int) *shareBed {
	t.Helper()
	text := fmt.Sprintf("spec:\n  hosts:\n  - {ips: [127.0.0.11-127.0.0.%d], roles: [master]}\n", 10+control)
	if workers > 0 {
		text += fmt.Sprintf("  - {ips: [127.0.0.%d-127.0.0.%d], roles: [node]}\n", 11+control, 10+control+workers)
	}
	layer := make([]byte, layerSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(layer)
	b := &shareBed{bed: newBedWith(t, text, clusterimage.Extension{}, nil, string(layer))}
	for _, m := range b.opts.Clusterfile.Machines() {
		b.sharers = append(b.sharers, &sharer{fakeHost: b.hosts[m.String()], t: t, root: filepath.Join(t.TempDir(), "node")})
	}
	b.opts.Dial = func(_ context.Context, m clusterfile.Host) (host.Runner, error) {
		for _, s := range b.sharers {
			if s.String() == m.String() {
				return s, nil
			}
		}
		return nil, fmt.Errorf("there is no %s", m)
	}
	display, err := progress.Open(&b.log, progress.Plain, nil)
	require.NoError(t, err)
	b.opts.Display = display
	b.close = func() { require.NoError(t, display.Close()) }
	return b
}

// requireWhole checks that every host has what its role needs, and no other blob of the rootfs is damaged.
func (b *shareBed) requireWhole(t *testing.T) {
	t.Helper()
	for i, s := range b.sharers {
		st, err := store.Open(filepath.Join(s.root, "store"))
		require.NoError(t, err)
		var want []ocispec.Platform
		if b.opts.Clusterfile.Machines()[i].Role == clusterfile.ControlPlane {
			want = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}
		}
		descs, err := b.opts.Image.Descriptors(t.Context(), b.opts.Content, []ocispec.Platform{{OS: "linux", Architecture: "amd64"}})
		require.NoError(t, err)
		if want == nil {
			r := b.opts.Image.Rootfs[0]
			descs = append([]ocispec.Descriptor{b.opts.Image.Descriptor, r.Descriptor, r.Manifest.Config}, r.Manifest.Layers...)
		}
		for _, d := range descs {
			data, err := os.ReadFile(st.BlobPath(d.Digest))
			require.NoError(t, err, "%s: %s", s, d.MediaType)
			require.Equal(t, d.Digest, digest.FromBytes(data), "%s", s)
		}
		partial, err := filepath.Glob(filepath.Join(s.root, "store", "ingest", "*"))
		require.NoError(t, err)
		require.Empty(t, partial, "%s", s)
	}
}

// layer is the rootfs' only one.
func (b *shareBed) layer() ocispec.Descriptor { return b.opts.Image.Rootfs[0].Manifest.Layers[0] }

// total is how much the operator sent, in bytes.
func (b *shareBed) total() int64 {
	sum := int64(0)
	for _, s := range b.sharers {
		sum += s.got.Load()
	}
	return sum
}

func (b *shareBed) run(t *testing.T) error {
	t.Helper()
	err := cluster.Run(t.Context(), b.opts)
	b.close()
	return err
}

// The operator sends everything once, whatever the number of hosts.
func TestSharing_OperatorSendsOnce(t *testing.T) {
	b := newShareBed(t, 2, 3)
	require.NoError(t, b.run(t))
	b.requireWhole(t)
	require.Less(t, float64(b.total()), 1.1*layerSize, "%s", &b.log)
	require.Contains(t, b.log.String(), "content: 22 MiB from here, 85 MiB from host to host")
}
