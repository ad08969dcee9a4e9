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
	"golang.org/x/sys/unix"

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
	limit  atomic.Int64
	killed atomic.Bool // by that limit
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
			counted.limit, counted.end = s.got.Load()+limit, func() {
				s.killed.Store(true)
				cancel()
			}
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

func newShareBed(t *testing.T, control, workers string) *shareBed {
	t.Helper()
	text := "spec:\n  hosts:\n  - {ips: [" + control + "], roles: [master]}\n"
	if workers != "" {
		text += "  - {ips: [" + workers + "], roles: [node]}\n"
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
	return b
}

// requireWhole checks that every host has what its role needs, and no other blob of the rootfs is damaged.
func (b *shareBed) requireWhole(t *testing.T) {
	t.Helper()
	for i := range b.sharers {
		b.requireWholeOn(t, i)
	}
}

func (b *shareBed) requireWholeOn(t *testing.T, i int) {
	t.Helper()
	s := b.sharers[i]
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
	display, err := progress.Open(&b.log, progress.Plain, nil)
	require.NoError(t, err)
	b.opts.Display = display
	err = cluster.Run(t.Context(), b.opts)
	require.NoError(t, display.Close())
	return err
}

// The operator sends everything once, whatever the number of hosts.
func TestSharing_OperatorSendsOnce(t *testing.T) {
	b := newShareBed(t, "127.0.0.11-127.0.0.12", "127.0.0.13-127.0.0.15")
	require.NoError(t, b.run(t))
	b.requireWhole(t)
	require.Less(t, float64(b.total()), 1.1*layerSize, "%s", &b.log)
	require.Contains(t, b.log.String(), "content: 22 MiB from here, 85 MiB from host to host")
}

// Where nobody reaches the first host, the second is sent everything, too, and gives it to the others.
func TestSharing_FirstHostUnreachable(t *testing.T) {
	b := newShareBed(t, "192.0.2.1", "127.0.0.12-127.0.0.14") // RFC 5737: nobody is there
	require.NoError(t, b.run(t))
	b.requireWhole(t)
	require.Less(t, float64(b.total()), 2.2*layerSize, "%s", &b.log)
}

// Programs that are killed in the middle are started again and go on; what they had is not sent again.
func TestSharing_Killed(t *testing.T) {
	b := newShareBed(t, "127.0.0.11", "127.0.0.12-127.0.0.14")
	b.sharers[0].limit.Store(5 << 20) // it may be sent less: what is sent once is shared by all
	b.sharers[1].limit.Store(3500)    // in the midst of the first orders
	require.NoError(t, b.run(t))
	b.requireWhole(t)
	require.True(t, b.sharers[1].killed.Load())
	// What was on its way to those that were killed is lost, and others are sent some where nobody is there to ask for a moment; without peers
	// and resumption it would be five times the layer.
	require.Less(t, float64(b.total()), 3.9*layerSize, "%s", &b.log)
}

// Hosts that lack nothing give what they have; one whose disk has changed it is found out and named.
func TestSharing_WrongBytes(t *testing.T) {
	b := newShareBed(t, "127.0.0.11-127.0.0.12", "127.0.0.13")
	require.NoError(t, b.run(t))
	lacks := func() {
		require.NoError(t, os.RemoveAll(b.sharers[2].root))
		for _, s := range b.sharers {
			s.got.Store(0)
		}
	}
	lacks()
	require.NoError(t, b.run(t))
	b.requireWhole(t)
	require.Less(t, b.total(), int64(layerSize/10), "the operator sends nothing")

	for _, s := range b.sharers[:2] {
		st, err := store.Open(filepath.Join(s.root, "store"))
		require.NoError(t, err)
		path := st.BlobPath(b.layer().Digest)
		require.NoError(t, os.Chmod(path, 0o644))
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("wrong"), 5<<20)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	lacks()
	require.NoError(t, b.run(t))
	require.Contains(t, b.log.String(), "127.0.0.11 gives wrong content, and is asked no more")
	require.Contains(t, b.log.String(), "127.0.0.12 gives wrong content, and is asked no more")
	b.requireWholeOn(t, 2)
}

// A damaged beginning on a host is found out, and comes again in the same run; nobody else is blamed for it. With one host alone that is so, too.
func TestSharing_DamagedLeftover(t *testing.T) {
	for name, hosts := range map[string][]string{"several hosts": {"127.0.0.11-127.0.0.12", "127.0.0.13"}, "one host": {"127.0.0.11", ""}} {
		t.Run(name, func(t *testing.T) {
			b := newShareBed(t, hosts[0], hosts[1])
			last := b.sharers[len(b.sharers)-1]
			st, err := store.Open(filepath.Join(last.root, "store"))
			require.NoError(t, err)
			w, err := st.Ingest(t.Context(), b.layer(), store.Resumable())
			require.NoError(t, err)
			_, err = w.Write(make([]byte, 5<<20))
			require.NoError(t, err)
			require.NoError(t, w.Close())
			require.NoError(t, b.run(t))
			b.requireWhole(t)
			require.Regexp(t, last.String()+": what it had .*from before is damaged", b.log.String())
			require.NotContains(t, b.log.String(), "gives wrong content")
		})
	}
}

// A host whose disk is full says so; the others are not held up by it.
func TestSharing_FullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	b := newShareBed(t, "127.0.0.11", "127.0.0.12-127.0.0.13")
	full := b.sharers[1]
	require.NoError(t, os.MkdirAll(full.root, 0o755))
	require.NoError(t, unix.Mount("tmpfs", full.root, "tmpfs", 0, "size=12m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(full.root, 0)) })
	err := b.run(t)
	require.ErrorContains(t, err, "sending the image: 127.0.0.12: storing sha256:")
	require.ErrorContains(t, err, "no space left on device")
	require.NotContains(t, err.Error(), "127.0.0.13:")
}
