// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// onBlob makes a fault that acts on the first n GETs of a blob.
func onBlob(d string, n int32, act http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+d) || seen.Add(1) > n {
			return false
		}
		act(w, r)
		return true
	}
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func TestPackImages_Faults(t *testing.T) {
	t.Parallel()
	data := randomBytes(7, 300<<10)
	big := digest.FromBytes(data)
	gets := "GET /v2/a/b/blobs/" + big.String()
	ranged := fmt.Sprintf("%s bytes=%d-%d", gets, 100_000, len(data)-1)
	for name, tc := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		cut   func(*http.Request) int64
		want  []string
	}{
		"nothing wrong": {want: []string{gets}},
		"503 twice":     {fault: onBlob(big.String(), 2, status(503)), want: []string{gets, gets, gets}},
		"429 with Retry-After": {
			fault: onBlob(big.String(), 1, status(429, "Retry-After", "0")),
			want:  []string{gets, gets},
		},
		"connection closed at once": {
			fault: onBlob(big.String(), 1, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
			want:  []string{gets, gets},
		},
		"cut in the middle: only the rest is asked for": {
			cut:  firstGET(big.String(), 100_000),
			want: []string{gets, ranged},
		},
		"the rest is answered with the whole": {
			cut: firstGET(big.String(), 100_000),
			fault: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					return false
				}
				_, _ = w.Write(data)
				return true
			},
			want: []string{gets, ranged},
		},
		"the rest is refused: once more from the start": {
			cut: firstGET(big.String(), 100_000),
			fault: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					return false
				}
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			},
			want: []string{gets, ranged, gets},
		},
		"the rest is wrong: once more from the start": {
			cut: firstGET(big.String(), 100_000),
			fault: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					return false
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(make([]byte, len(data)-100_000))
				return true
			},
			want: []string{gets, ranged, gets},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, len(data)), layer(8, 10)))
			up.forget()
			up.step(tc.fault)
			up.cutAt(tc.cut)
			st := newStore(t)
			_, err := newClient(t).PackImages(context.Background(), st, []registry.ImageRequest{request(ref)})
			require.NoError(t, err)
			got, err := content.ReadBlob(context.Background(), st.Content(), desc(big, len(data)))
			require.NoError(t, err)
			require.Equal(t, data, got)
			require.Equal(t, tc.want, up.requests(gets))
			require.Empty(t, ingests(t, st))
		})
	}
}

// A server may ask for a wait; beyond two minutes the user is told at once.
func TestPackImages_RetryAfter(t *testing.T) {
	t.Parallel()
	data := randomBytes(7, 1000)
	d := digest.FromBytes(data).String()
	for after, ok := range map[string]bool{"1": true, "3600": false, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): false} {
		up := newUpstream(t)
		ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, len(data))))
		up.step(onBlob(d, 1, status(429, "Retry-After", after)))
		up.forget()
		var log syncBuffer
		c := newClient(t, func(o *registry.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(ref)})
		if ok {
			require.NoError(t, err)
			require.Contains(t, log.String(), "after=1s")
			continue
		}
		var se *registry.StatusError
		require.ErrorAs(t, err, &se)
		require.Equal(t, 429, se.Status)
		require.Contains(t, se.Hint(), "mirror")
		require.Len(t, up.requests(d), 1)
	}
}

// firstGET cuts the first response of a blob after n bytes.
func firstGET(d string, n int64) func(*http.Request) int64 {
	var seen atomic.Bool
	return func(r *http.Request) int64 {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, d) && seen.CompareAndSwap(false, true) {
			return n
		}
		return 0
	}
}

func ingests(t *testing.T, st *store.Store) []content.Status {
	t.Helper()
	out, err := st.Content().ListStatuses(context.Background())
	require.NoError(t, err)
	return out
}

func TestPackImages_Stall(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	data := randomBytes(7, 200<<10)
	d := digest.FromBytes(data).String()
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, len(data))))
	stop := make(chan struct{})
	defer close(stop)
	up.step(onBlob(d, 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:50_000])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}))
	up.forget()
	c := newClient(t, func(o *registry.Options) { o.StallTimeout = 200 * time.Millisecond })
	_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(ref)})
	require.NoError(t, err)
	require.Len(t, up.requests(d+" bytes=50000-"), 1)
}

func TestPackImages_WrongBytes(t *testing.T) {
	t.Parallel()
	data := randomBytes(7, 1000)
	d := digest.FromBytes(data)
	for name, body := range map[string][]byte{
		"other bytes": randomBytes(9, 1000),
		"too many":    append(append([]byte{}, data...), 'x'),
		"too few":     data[:999],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, 1000)))
			up.step(onBlob(d.String(), 100, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
			up.forget()
			st := newStore(t)
			_, err := newClient(t).PackImages(context.Background(), st, []registry.ImageRequest{request(ref)})
			var wrong *registry.DigestError
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, d, wrong.Want)
			require.ErrorContains(t, err, ref)
			require.ErrorContains(t, err, d.String())
			require.Len(t, up.requests(d.String()), 1)
			require.Empty(t, ingests(t, st))
			_, err = st.Content().Info(context.Background(), d)
			require.Error(t, err)
		})
	}
}

func TestPackImages_WrongManifest(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	img := image(t, "linux/amd64", layer(7, 1000))
	ref := up.push(t, "a/b:1", img)
	d, err := img.Digest()
	require.NoError(t, err)
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		w.Header().Set("Docker-Content-Digest", d.String())
		_, _ = w.Write([]byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
		return true
	})
	for _, r := range []string{ref, strings.TrimSuffix(ref, ":1") + "@" + d.String()} {
		_, err = newClient(t).PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(r)})
		var wrong *registry.DigestError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, d.String(), wrong.Want.String())
	}
}

// A process that was killed leaves an ingest; the next continues at its last byte.
func TestPackImages_ResumesAfterProcess(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	up := newUpstream(t)
	data := randomBytes(7, 300<<10)
	d := digest.FromBytes(data)
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, len(data))))
	up.step(onBlob(d.String(), 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:123_456])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	dir := t.TempDir()
	st, err := store.Open(dir)
	require.NoError(t, err)
	c := newClient(t, func(o *registry.Options) {
		o.Track = func(_ string, total int64) registry.Tracker {
			return trackFunc(func(n int64) {
				if total == int64(len(data)) && n >= 123_456 {
					cancel()
				}
			})
		}
	})
	_, err = c.PackImages(ctx, st, []registry.ImageRequest{request(ref)})
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, ingests(t, st), 1)

	up.forget()
	st, err = store.Open(dir)
	require.NoError(t, err)
	_, err = newClient(t).PackImages(context.Background(), st, []registry.ImageRequest{request(ref)})
	require.NoError(t, err)
	require.Equal(t, []string{fmt.Sprintf("GET /v2/a/b/blobs/%s bytes=123456-%d", d, len(data)-1)}, up.requests(d.String()))
	verify(t, st, desc(d, len(data)))
}

// trackFunc is a tracker that is told the sum.
func trackFunc(f func(sum int64)) registry.Tracker { return &sumTracker{f: f} }

type sumTracker struct {
	f   func(int64)
	sum int64
}

func (s *sumTracker) Advance(n int64) { s.sum += n; s.f(s.sum) }
func (s *sumTracker) Done(error)      {}

func TestPackImages_SharedBlobOnce(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	var reqs []registry.ImageRequest
	for i := range 20 {
		reqs = append(reqs, request(up.push(t, fmt.Sprintf("a/i%d:1", i),
			image(t, "linux/amd64", layer(7, 100_000), layer(uint64(100+i), 500)))))
	}
	up.forget()
	st := newStore(t)
	c := newClient(t)
	packed, err := c.PackImages(context.Background(), st, reqs)
	require.NoError(t, err)
	require.Len(t, packed, 20)
	require.Len(t, up.requests(digest.FromBytes(randomBytes(7, 100_000)).String()), 1)
	// The config, the shared and the own layers: each once.
	require.Len(t, up.requests("GET /v2/a/"), 20 /* manifests */ +20 /* configs */ +20+1)
	require.Len(t, up.requests("GET /v2/"), 1+20+20+20+1, "one ping")

	// Once a ClusterImage has them, a tag costs a HEAD and nothing else.
	rootfs := clusterImage(t, c, st, "example.com/c:1", reqs...)
	require.NotEmpty(t, rootfs.Digest)
	up.forget()
	again, err := newClient(t).PackImages(context.Background(), st, reqs)
	require.NoError(t, err)
	require.Equal(t, packed, again)
	require.Len(t, up.requests("HEAD /v2/a/"), 20)
	require.Empty(t, up.requests("GET /v2/a/"))
}

func TestPackImages_ConcurrentCallsAndStores(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, 1<<20)))
	up.forget()
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 6)
	shared := newClient(t)
	for i := range errs {
		c, st := shared, newStoreIn(t, dir)
		if i%2 == 1 {
			c = newClient(t) // as another process would be
		}
		wg.Go(func() { _, errs[i] = c.PackImages(context.Background(), st, []registry.ImageRequest{request(ref)}) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, up.requests(digest.FromBytes(randomBytes(7, 1<<20)).String()), 1)
}

func newStoreIn(t *testing.T, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(dir)
	require.NoError(t, err)
	return st
}

func TestPackImages_AllErrors(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	ok := up.push(t, "a/ok:1", image(t, "linux/amd64", layer(1, 10)))
	_, err := newClient(t).PackImages(context.Background(), newStore(t), []registry.ImageRequest{
		request(ok), request(up.host + "/a/none:1"), request(up.host + "/b/none:2"),
	})
	require.ErrorContains(t, err, "/a/none:1")
	require.ErrorContains(t, err, "/b/none:2")
	require.NotContains(t, err.Error(), "/a/ok:1")
	var se *registry.StatusError
	require.ErrorAs(t, err, &se)
	require.Equal(t, http.StatusNotFound, se.Status)
}

func TestPackImages_RedirectedBlobs(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	data := randomBytes(7, 100_000)
	d := digest.FromBytes(data)
	var leaked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		_, _ = w.Write(data)
	}))
	defer elsewhere.Close()
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(7, len(data))))
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u != "u" || p != "p" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		http.Redirect(w, r, elsewhere.URL+"/x?signature=secret", http.StatusTemporaryRedirect)
		return true
	})
	c := newClient(t)
	require.NoError(t, c.Login(context.Background(), up.host, "u", "p"))
	_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(ref)})
	require.NoError(t, err)
	require.False(t, leaked.Load())
}
