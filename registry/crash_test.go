// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// The test program is also the process that gets killed: it pulls and packs
// what SEALER_TEST_PULL says.
func TestMain(m *testing.M) {
	if job := os.Getenv("SEALER_TEST_PULL"); job != "" {
		if err := victim(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// job is what the victim does.
type job struct {
	Dir, Pull, Publish string
	Pack               []string
	Rootfs             ocispec.Descriptor
}

func victim(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	ctx := context.Background()
	st, err := store.Open(j.Dir)
	if err != nil {
		return err
	}
	c, err := registry.NewClient(registry.Options{AuthDir: filepath.Join(j.Dir, "auth"), Backoff: time.Millisecond})
	if err != nil {
		return err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	var reqs []registry.ImageRequest
	for _, n := range j.Pack {
		reqs = append(reqs, request(n))
	}
	packed, err := c.PackImages(ctx, st, reqs)
	if err != nil {
		return err
	}
	desc, err := clusterimage.Compose(ctx, st.Content(), clusterimage.Composition{Rootfs: []ocispec.Descriptor{j.Rootfs}, Images: packed})
	if err != nil {
		return err
	}
	if err := st.Tag(ctx, "example.com/packed:1", desc); err != nil {
		return err
	}
	if desc, err = c.Pull(ctx, st, j.Pull, registry.PullOptions{}); err != nil {
		return err
	}
	img, err := clusterimage.Read(ctx, st.Content(), desc)
	if err != nil {
		return err
	}
	return errors.Join(registry.Publish(ctx, st, img, j.Publish), release())
}

// However often it is killed, and wherever: what has a tag is whole, the next
// run continues, and Prune leaves what the tags need and nothing else.
func TestKilled(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	var names []string
	for i := range 4 {
		names = append(names, up.push(t, fmt.Sprintf("a/i%d:1", i), image(t, "linux/amd64", layer(1, 1<<20), layer(uint64(10+i), 1<<20))))
	}
	packer := newStore(t)
	var reqs []registry.ImageRequest
	for i := range 4 {
		reqs = append(reqs, request(up.push(t, fmt.Sprintf("b/i%d:1", i), image(t, "linux/amd64", layer(2, 1<<20), layer(uint64(20+i), 1<<20)))))
	}
	_, err := newClient(t).Push(ctx, packer, clusterImage(t, newClient(t), packer, "example.com/c:1", reqs...), up.host+"/c:1")
	require.NoError(t, err)
	up.forget()
	up.mu.Lock()
	up.slow = true // so that a kill meets the bodies
	up.mu.Unlock()

	st := newStore(t)
	j := job{Dir: st.Dir(), Pull: up.host + "/c:1", Publish: t.TempDir(), Pack: names, Rootfs: rootfs(t, st, amd64, []byte("r"), false)}
	text, err := json.Marshal(j)
	require.NoError(t, err)
	run := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SEALER_TEST_PULL="+string(text))
		return cmd
	}
	killed := 0
	for i := range 40 {
		cmd := run()
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(20+rand.IntN(8*(i+1)))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		wholeTags(t, st)
		if err == nil {
			break
		}
		killed++
		if i == 20 { // a Prune in between takes nothing that is needed
			_, err := st.Prune(ctx, store.PruneOptions{})
			require.NoError(t, err)
			j.Rootfs = rootfs(t, st, amd64, []byte("r"), false)
		}
	}
	require.Positive(t, killed)
	t.Logf("killed %d times, %d requests for the rest of a blob", killed, len(up.requests("bytes=")))
	out, err := run().CombinedOutput()
	require.NoError(t, err, string(out))
	require.Len(t, wholeTags(t, st), 2)
	_, err = st.Prune(ctx, store.PruneOptions{})
	require.NoError(t, err)
	wholeTags(t, st)
	for _, dir := range []string{"ingest", "locks", "holders"} {
		left, err := os.ReadDir(filepath.Join(st.Dir(), dir))
		require.NoError(t, err)
		require.Empty(t, left, dir)
	}
	host, _ := serve(t, registry.ServerOptions{Dir: j.Publish})
	for i := range 4 {
		resp, body := get(t, http.DefaultClient, http.MethodGet, fmt.Sprintf("http://%s/v2/b/i%d/manifests/1?ns=%s", host, i, up.host))
		require.Equal(t, http.StatusOK, resp.StatusCode, body)
		require.Equal(t, resp.Header.Get("Docker-Content-Digest"), digest.FromString(body).String())
	}
}

// wholeTags checks every tagged image.
func wholeTags(t *testing.T, st *store.Store) []store.Tagged {
	t.Helper()
	all, err := st.List(context.Background())
	require.NoError(t, err)
	for _, tagged := range all {
		complete(t, st, tagged.Descriptor)
	}
	return all
}

func TestNoLeaks(t *testing.T) {
	// Not parallel: it counts goroutines.
	up := newUpstream(t)
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 100_000), layer(2, 10)))
	before := runtime.NumGoroutine()
	for range 5 {
		c := newClient(t)
		st := newStore(t)
		desc := clusterImage(t, c, st, "example.com/c:1", request(ref))
		_, err := c.Push(context.Background(), st, desc, up.host+"/c:1")
		require.NoError(t, err)
		_, err = c.Pull(context.Background(), newStore(t), up.host+"/none:1", registry.PullOptions{})
		require.Error(t, err)
		dir := t.TempDir()
		img, err := clusterimage.Read(context.Background(), st.Content(), desc)
		require.NoError(t, err)
		require.NoError(t, registry.Publish(context.Background(), st, img, dir))
		_, stop := serve(t, registry.ServerOptions{Dir: dir})
		stop()
		c.Close()
	}
	ended := assert.Eventually(t, func() bool {
		up.CloseClientConnections()
		return runtime.NumGoroutine() <= before+2
	}, 30*time.Second, 50*time.Millisecond)
	if !ended {
		stacks := make([]byte, 1<<20)
		t.Fatalf("%d goroutines before, now these:\n%s", before, stacks[:runtime.Stack(stacks, true)])
	}
}

// crane's library reads the store as a layout.
func TestLayout(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	st := newStore(t)
	desc := clusterImageOf(t, newClient(t), st, "example.com/c:1", true, mixed(t, up)...)
	l, err := layout.ImageIndexFromPath(st.Dir())
	require.NoError(t, err)
	idx, err := l.IndexManifest()
	require.NoError(t, err)
	require.Len(t, idx.Manifests, 1)
	require.Equal(t, desc.Digest.String(), idx.Manifests[0].Digest.String())
	require.NoError(t, validate.Index(l))
}

// Certificates of a private authority, as Docker keeps them, and none for a listed host.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	dir := t.TempDir()
	st, img := published(t, dir, "example.com/c:1", request(up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 10)))))
	cert, key, _ := selfSigned(t, t.TempDir(), 1)
	host, _ := serve(t, registry.ServerOptions{Dir: dir, CertFile: cert, KeyFile: key})
	// By a name that is not loopback in the client's eyes.
	_, port, _ := strings.Cut(host, ":")
	certs := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(certs, host), 0o755))
	data, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(certs, host, "ca.crt"), data, 0o644))
	for name, tc := range map[string]struct {
		change func(*registry.Options)
		ok     bool
	}{
		"unknown authority": {func(*registry.Options) {}, false},
		"known authority":   {func(o *registry.Options) { o.CertsDir = certs }, true},
		"listed":            {func(o *registry.Options) { o.Insecure = []string{"127.0.0.1:" + port} }, true},
	} {
		c := newClient(t, func(o *registry.Options) { o.CertsDir = t.TempDir() }, tc.change)
		_, err := c.Push(ctx, st, img.Descriptor, host+"/c:1")
		if tc.ok {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, "certificate", name)
	}
}
