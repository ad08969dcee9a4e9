// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/registry"
)

// The wide case: images that share a base layer.
const (
	benchImages = 16
	benchBase   = 16 << 20
	benchLayer  = 2 << 20
)

// benchUpstream has the images; total is the sum of their blobs, each once.
func benchUpstream(b *testing.B) (up *upstream, reqs []registry.ImageRequest, total int64) {
	b.Helper()
	up = newUpstream(b)
	base := layer(1, benchBase)
	for i := range benchImages {
		ref := up.push(b, fmt.Sprintf("bench/i%d:1", i), image(b, "linux/amd64", base,
			layer(uint64(10+2*i), benchLayer), layer(uint64(11+2*i), benchLayer)))
		reqs = append(reqs, request(ref))
	}
	return up, reqs, benchBase + benchImages*2*benchLayer
}

func BenchmarkPack(b *testing.B) {
	up, reqs, total := benchUpstream(b)
	b.SetBytes(total)
	for b.Loop() {
		b.StopTimer()
		c, st := newClient(b), newStore(b)
		up.forget()
		b.StartTimer()
		_, err := c.PackImages(context.Background(), st, reqs)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(len(up.requests("/v2/"))), "requests/op")
}

// Again, with a ClusterImage of them in the store.
func BenchmarkPackUnchanged(b *testing.B) {
	up, reqs, _ := benchUpstream(b)
	st := newStore(b)
	clusterImage(b, newClient(b), st, "example.com/c:1", reqs...)
	for b.Loop() {
		up.forget()
		_, err := newClient(b).PackImages(context.Background(), st, reqs)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(len(up.requests("/v2/"))), "requests/op")
}

func BenchmarkPush(b *testing.B) {
	_, reqs, total := benchUpstream(b)
	c, st := newClient(b), newStore(b)
	desc := clusterImage(b, c, st, "example.com/c:1", reqs...)
	b.SetBytes(total)
	var requests int
	for b.Loop() {
		b.StopTimer()
		target := newUpstream(b)
		b.StartTimer()
		_, err := c.Push(context.Background(), st, desc, target.host+"/c:1")
		require.NoError(b, err)
		b.StopTimer()
		requests = len(target.requests("/v2/"))
		target.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(requests), "requests/op")
}

func BenchmarkPull(b *testing.B) {
	_, reqs, total := benchUpstream(b)
	c, st := newClient(b), newStore(b)
	desc := clusterImage(b, c, st, "example.com/c:1", reqs...)
	target := newUpstream(b)
	_, err := c.Push(context.Background(), st, desc, target.host+"/c:1")
	require.NoError(b, err)
	b.SetBytes(total)
	for b.Loop() {
		b.StopTimer()
		st := newStore(b)
		target.forget()
		b.StartTimer()
		_, err := newClient(b).Pull(context.Background(), st, target.host+"/c:1", registry.PullOptions{})
		require.NoError(b, err)
	}
	b.ReportMetric(float64(len(target.requests("/v2/"))), "requests/op")
}

// BenchmarkFloor is the least that can be done: the same bytes, eight requests
// at a time, hashed, written and synced, with nothing else.
func BenchmarkFloor(b *testing.B) {
	up, reqs, total := benchUpstream(b)
	st := newStore(b)
	packed, err := newClient(b).PackImages(context.Background(), st, reqs)
	require.NoError(b, err)
	var urls []string
	seen := map[string]bool{}
	for i := range packed {
		var m struct{ Layers []ociDescriptor }
		readJSON(b, st, packed[i].Manifest, &m)
		for _, l := range m.Layers {
			if d := l.Digest.String(); !seen[d] {
				seen[d] = true
				urls = append(urls, fmt.Sprintf("%s/v2/bench/i%d/blobs/%s", up.URL, i, d))
			}
		}
	}
	b.SetBytes(total)
	for b.Loop() {
		dir := b.TempDir()
		var g errgroup.Group
		g.SetLimit(8)
		for i, u := range urls {
			g.Go(func() error { return rawCopy(u, filepath.Join(dir, fmt.Sprint(i))) })
		}
		require.NoError(b, g.Wait())
	}
	b.ReportMetric(float64(len(urls)), "requests/op")
}

func rawCopy(url, file string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(io.MultiWriter(f, sha256.New()), struct{ io.Reader }{resp.Body}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return f.Sync()
}

// Many small blobs: what each of them costs beside its bytes.
func BenchmarkPackMany(b *testing.B) {
	const images, layers = 60, 12
	up := newUpstream(b)
	var reqs []registry.ImageRequest
	for i := range images {
		var own []v1.Layer
		for j := range layers {
			own = append(own, layer(uint64(1000+layers*i+j), 64<<10))
		}
		reqs = append(reqs, request(up.push(b, fmt.Sprintf("bench/many%d:1", i), image(b, "linux/amd64", own...))))
	}
	b.SetBytes(images * layers * 64 << 10)
	for b.Loop() {
		b.StopTimer()
		c, st := newClient(b), newStore(b)
		b.StartTimer()
		_, err := c.PackImages(context.Background(), st, reqs)
		require.NoError(b, err)
	}
}
