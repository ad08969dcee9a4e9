// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// upstream is an in-process registry with a log of requests, in which a test
// can step in before the registry answers.
type upstream struct {
	*httptest.Server
	host string
	mu   sync.Mutex
	log  []string
	// fault answers a request instead of the registry when it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// cut, where positive, ends the body of a response after so many bytes.
	cut func(r *http.Request) int64
	// slow makes bodies come in pieces.
	slow bool
}

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		entry := r.Method + " " + r.URL.Path
		if rg := r.Header.Get("Range"); rg != "" {
			entry += " " + rg
		}
		u.log = append(u.log, entry)
		fault, cut, slow := u.fault, u.cut, u.slow
		u.mu.Unlock()
		if slow {
			w = &slowWriter{ResponseWriter: w}
		}
		if fault != nil && fault(w, r) {
			return
		}
		if cut != nil {
			if n := cut(r); n > 0 {
				w = &cutter{ResponseWriter: w, left: n}
			}
		}
		inner.ServeHTTP(w, r)
	}))
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(u.Close)
	u.host = strings.TrimPrefix(u.URL, "http://")
	return u
}

// cutter ends the connection after left bytes.
type cutter struct {
	http.ResponseWriter
	left int64
}

func (c *cutter) Write(p []byte) (int, error) {
	if int64(len(p)) < c.left {
		c.left -= int64(len(p))
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// slowWriter sends 32 KiB a millisecond.
type slowWriter struct{ http.ResponseWriter }

func (s *slowWriter) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n, err := s.ResponseWriter.Write(p[:min(len(p), 32<<10)])
		sent += n
		if err != nil {
			return sent, err
		}
		p = p[n:]
		<-time.After(time.Millisecond)
	}
	return sent, nil
}

func (u *upstream) step(fault func(http.ResponseWriter, *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fault = fault
}

func (u *upstream) cutAt(cut func(*http.Request) int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cut = cut
}

// requests returns the log since the last call, of entries that contain part.
func (u *upstream) requests(part string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, l := range u.log {
		if strings.Contains(l, part) {
			out = append(out, l)
		}
	}
	return out
}

func (u *upstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = nil
}

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
	_, _ = r.Read(b)
	return b
}

func layer(seed uint64, n int) v1.Layer {
	return static.NewLayer(randomBytes(seed, n), types.DockerLayer)
}

// image makes an image for a platform.
func image(t testing.TB, platform string, layers ...v1.Layer) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	require.NoError(t, err)
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		RootFS: v1.RootFS{Type: "layers"},
	})
	require.NoError(t, err)
	var adds []mutate.Addendum
	for _, l := range layers {
		adds = append(adds, mutate.Addendum{Layer: l})
	}
	img, err = mutate.Append(img, adds...)
	require.NoError(t, err)
	return img
}

// tarLayer makes a layer that validators can unpack.
func tarLayer(t testing.TB, file string, data []byte) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
	_, err := tw.Write(data)
	require.NoError(t, err)
	require.NoError(t, tw.Close())
	l, err := newTarLayer(buf.Bytes())
	require.NoError(t, err)
	return l
}

func index(t testing.TB, images map[string]v1.Image, attest bool) v1.ImageIndex {
	t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var names []string
	for n := range images {
		names = append(names, n)
	}
	for _, n := range sortedStrings(names) {
		p, err := v1.ParsePlatform(n)
		require.NoError(t, err)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: images[n], Descriptor: v1.Descriptor{Platform: p}})
	}
	if attest {
		a := image(t, "unknown/unknown", layer(999, 100))
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: a, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
		}})
	}
	return idx
}

func (u *upstream) push(t testing.TB, repo string, what remote.Taggable) string {
	t.Helper()
	full := u.host + "/" + repo
	ref, err := name.ParseReference(full)
	require.NoError(t, err)
	require.NoError(t, remote.Push(ref, what))
	return full
}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return st
}

// newClient is a client that does not wait long.
func newClient(t testing.TB, change ...func(*registry.Options)) *registry.Client {
	t.Helper()
	o := registry.Options{AuthDir: t.TempDir(), Backoff: time.Millisecond, StallTimeout: 5 * time.Second}
	for _, c := range change {
		c(&o)
	}
	c, err := registry.NewClient(o)
	require.NoError(t, err)
	return c
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func request(name string) registry.ImageRequest {
	return registry.ImageRequest{Name: name, Platform: amd64}
}

func write(t testing.TB, st *store.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(context.Background(), st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

// rootfs writes an OCI image with one layer, as the builder makes it.
func rootfs(t testing.TB, st *store.Store, platform ocispec.Platform, data []byte, gzipped bool) ocispec.Descriptor {
	t.Helper()
	var tarred bytes.Buffer
	tw := tar.NewWriter(&tarred)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: "Metadata", Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
	_, err := tw.Write(data)
	require.NoError(t, err)
	require.NoError(t, tw.Close())
	var l ocispec.Descriptor
	if gzipped {
		var buf bytes.Buffer
		zw := gzip.NewWriter(&buf)
		_, err := zw.Write(tarred.Bytes())
		require.NoError(t, err)
		require.NoError(t, zw.Close())
		l = write(t, st, ocispec.MediaTypeImageLayerGzip, buf.Bytes())
	} else {
		zw, err := zstd.NewWriter(nil)
		require.NoError(t, err)
		l = write(t, st, ocispec.MediaTypeImageLayerZstd, zw.EncodeAll(tarred.Bytes(), nil))
	}
	cfg, err := json.Marshal(ocispec.Image{
		Platform: platform,
		Config: ocispec.ImageConfig{Labels: map[string]string{
			clusterimage.LabelExtension: string(clusterimage.Extension{Type: clusterimage.KubeInstaller}.Marshal()),
		}},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(tarred.Bytes())}},
	})
	require.NoError(t, err)
	c := write(t, st, ocispec.MediaTypeImageConfig, cfg)
	m, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: c, Layers: []ocispec.Descriptor{l},
	})
	require.NoError(t, err)
	d := write(t, st, ocispec.MediaTypeImageManifest, m)
	d.Platform = &platform
	return d
}

// clusterImage packs images, composes and tags. The rootfs is zstd.
func clusterImage(t testing.TB, c *registry.Client, st *store.Store, tag string, reqs ...registry.ImageRequest) ocispec.Descriptor {
	t.Helper()
	return clusterImageOf(t, c, st, tag, false, reqs...)
}

func clusterImageOf(t testing.TB, c *registry.Client, st *store.Store, tag string, gzipped bool, reqs ...registry.ImageRequest) ocispec.Descriptor {
	t.Helper()
	ctx := context.Background()
	packed, err := c.PackImages(ctx, st, reqs)
	require.NoError(t, err)
	in := clusterimage.Composition{Images: packed}
	seen := map[string]bool{}
	for _, r := range append(reqs, request("x")) {
		if p := fmt.Sprint(r.Platform); !seen[p] {
			seen[p] = true
			in.Rootfs = append(in.Rootfs, rootfs(t, st, r.Platform, []byte("rootfs "+p), gzipped))
		}
	}
	desc, err := clusterimage.Compose(ctx, st.Content(), in)
	require.NoError(t, err)
	require.NoError(t, st.Tag(ctx, tag, desc))
	return desc
}

// complete checks every blob of a ClusterImage against its digest.
func complete(t testing.TB, st *store.Store, desc ocispec.Descriptor, platforms ...ocispec.Platform) []ocispec.Descriptor {
	t.Helper()
	ctx := context.Background()
	img, err := clusterimage.Read(ctx, st.Content(), desc)
	require.NoError(t, err)
	blobs, err := img.Descriptors(ctx, st.Content(), platforms)
	require.NoError(t, err)
	for _, b := range blobs {
		verify(t, st, b)
	}
	return blobs
}

func verify(t testing.TB, st *store.Store, b ocispec.Descriptor) {
	t.Helper()
	data, err := content.ReadBlob(context.Background(), st.Content(), b)
	require.NoError(t, err)
	require.Equal(t, b.Digest, digest.FromBytes(data))
}
