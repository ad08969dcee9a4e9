// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/internal/secret"
	"github.com/sealerio/sealer/registry"
)

// peerBed is two registries that are each other's peers, on addresses that were chosen before.
type peerBed struct {
	hosts [2]string
	dirs  [2]string
	stops [2]func()
	// htpasswd is that of both, and login what both ask one another with; empty and nil: nobody is asked.
	htpasswd string
	login    func() (string, secret.Text, error)
}

func newPeerBed(t *testing.T) *peerBed {
	t.Helper()
	b := &peerBed{dirs: [2]string{t.TempDir(), t.TempDir()}}
	for i := range b.hosts {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		b.hosts[i] = ln.Addr().String()
		require.NoError(t, ln.Close())
	}
	return b
}

func (b *peerBed) start(t *testing.T, i int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- registry.Serve(ctx, registry.ServerOptions{
			Dir: b.dirs[i], Address: b.hosts[i], Ready: func(a net.Addr) { ready <- a }, HtpasswdFile: b.htpasswd,
			Peers: &registry.Peers{
				Self: "http://" + b.hosts[i], URLs: []string{"http://" + b.hosts[1-i]},
				Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Interval: 50 * time.Millisecond,
				Login: b.login,
			},
		})
	}()
	stopped := false
	b.stops[i] = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(b.stops[i])
	select {
	case <-ready:
	case err := <-done:
		require.NoError(t, err)
	}
}

func (b *peerBed) ref(t *testing.T, i int, image string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(b.hosts[i]+"/"+image, name.Insecure)
	require.NoError(t, err)
	return ref
}

func newImage(t *testing.T) (v1.Image, v1.Hash) {
	t.Helper()
	img, err := random.Image(2000, 3)
	require.NoError(t, err)
	id, err := img.Digest()
	require.NoError(t, err)
	return img, id
}

// digestAt is the digest that a registry has for a tag, and that all of the image is there; empty: none.
func (b *peerBed) digestAt(t *testing.T, i int, image string) string {
	t.Helper()
	img, err := remote.Image(b.ref(t, i, image))
	if err != nil {
		return ""
	}
	layers, err := img.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		r, err := l.Compressed()
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	id, err := img.Digest()
	require.NoError(t, err)
	return id.String()
}

// A push is answered when the peer has it, too.
func TestPeers_PushIsOnBoth(t *testing.T) {
	b := newPeerBed(t)
	b.start(t, 0)
	b.start(t, 1)
	img, id := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "team/app:v1"), img))
	b.stops[0]()
	require.Equal(t, id.String(), b.digestAt(t, 1, "team/app:v1"))

	index, err := random.Index(1000, 2, 2)
	require.NoError(t, err)
	want, err := index.Digest()
	require.NoError(t, err)
	b.start(t, 0)
	require.NoError(t, remote.WriteIndex(b.ref(t, 1, "team/multi:v1"), index))
	b.stops[1]()
	got, err := remote.Index(b.ref(t, 0, "team/multi:v1"))
	require.NoError(t, err)
	have, err := got.Digest()
	require.NoError(t, err)
	require.Equal(t, want, have)
	manifests, err := got.IndexManifest()
	require.NoError(t, err)
	for _, m := range manifests.Manifests {
		_, err := got.Image(m.Digest)
		require.NoError(t, err)
	}
}

// A push goes through while the peer is down; the peer fetches it when it is back. Of two pushes to one tag the later one stays, on both.
func TestPeers_CatchUp(t *testing.T) {
	b := newPeerBed(t)
	b.start(t, 0)
	first, firstID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "app:v1"), first))
	b.stops[0]()
	b.start(t, 1)
	second, secondID := newImage(t)
	require.NotEqual(t, firstID, secondID)
	require.NoError(t, remote.Write(b.ref(t, 1, "app:v1"), second))
	b.start(t, 0)
	for i := range 2 {
		require.Eventually(t, func() bool { return b.digestAt(t, i, "app:v1") == secondID.String() }, 30*time.Second, 20*time.Millisecond)
	}
	require.Equal(t, firstID.String(), b.digestAt(t, 0, "app@"+firstID.String()), "what was pushed before is kept by its digest")
}

// What was pushed by digest alone, or lost its tag meanwhile, is on both, too, and so are the manifests of an index.
func TestPeers_CatchUpByDigest(t *testing.T) {
	b := newPeerBed(t)
	b.start(t, 0)
	alone, aloneID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "app@"+aloneID.String()), alone))
	first, firstID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "app:v1"), first))
	second, secondID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "app:v1"), second))
	b.start(t, 1)
	for _, id := range []v1.Hash{aloneID, firstID, secondID} {
		require.Eventually(t, func() bool { return b.digestAt(t, 1, "app@"+id.String()) == id.String() }, 30*time.Second, 20*time.Millisecond)
	}
	require.Eventually(t, func() bool { return b.digestAt(t, 1, "app:v1") == secondID.String() }, 30*time.Second, 20*time.Millisecond)
}

// A push over another is the later one, also where the clock of the host on which the other was pushed is ahead: it was answered, and stays.
func TestPeers_Skew(t *testing.T) {
	b := newPeerBed(t)
	b.start(t, 0)
	b.start(t, 1)
	first, _ := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 0, "app:v1"), first))
	ahead := time.Now().Add(10 * time.Second)
	for _, d := range b.dirs {
		require.NoError(t, os.Chtimes(filepath.Join(d, filepath.FromSlash("docker/registry/v2/repositories/app/_manifests/tags/v1/current/link")), ahead, ahead))
	}
	second, secondID := newImage(t)
	require.NoError(t, remote.Write(b.ref(t, 1, "app:v1"), second))
	for i := range 2 {
		require.Equal(t, secondID.String(), b.digestAt(t, i, "app:v1"))
		b.stops[i]()
	}
	for i := range 2 { // each asks the other when it starts
		b.start(t, i)
	}
	for range 20 {
		for i := range 2 {
			require.Equal(t, secondID.String(), b.digestAt(t, i, "app:v1"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A push does not wait for another image that is being fetched, however long that takes; one of its layers is fetched once.
func TestPeers_PushDoesNotWait(t *testing.T) {
	theirs, mine := t.TempDir(), t.TempDir()
	host, stop := serve(t, registry.ServerOptions{Dir: theirs})
	defer stop()
	big, bigID := newImage(t)
	small, smallID := newImage(t)
	bigRef, err := name.ParseReference(host+"/team/big:v1", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(bigRef, big))
	smallRef, err := name.ParseReference(host+"/team/small:v1", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(smallRef, small))
	layers, err := big.Layers()
	require.NoError(t, err)
	slow, err := layers[0].Digest()
	require.NoError(t, err)

	asked, goOn := make(chan struct{}, 8), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	through := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/sealer/tags":
			_, _ = io.WriteString(w, `[{"repository":"team/big","tag":"v1","digest":"`+bigID.String()+`","time":"2020-01-02T03:04:05Z"}]`)
			return
		case strings.HasSuffix(r.URL.Path, slow.String()):
			asked <- struct{}{}
			<-goOn
		}
		through.ServeHTTP(w, r)
	}))
	defer peer.Close()
	at, stopMine := serve(t, registry.ServerOptions{Dir: mine, Peers: &registry.Peers{Self: "http://127.0.0.1:1", URLs: []string{peer.URL}, Client: peer.Client()}})
	defer stopMine()
	defer release()
	<-asked // the catching-up is at it
	fetch := func(image string, id v1.Hash) int {
		body := fmt.Sprintf(`{"from":%q,"repository":"team/%s","tag":"v1","digest":%q,"time":"2020-01-02T03:04:05Z"}`, peer.URL, image, id)
		res, err := (&http.Client{Timeout: 20 * time.Second}).Post("http://"+at+"/sealer/fetch", "application/json", strings.NewReader(body))
		if !assert.NoError(t, err, "it waits for the large one") {
			return 0
		}
		assert.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	require.Equal(t, http.StatusNoContent, fetch("small", smallID))
	require.FileExists(t, filepath.Join(mine, filepath.FromSlash("docker/registry/v2/repositories/team/small/_manifests/tags/v1/current/link")))
	both := make(chan int)
	go func() { both <- fetch("big", bigID) }()
	time.Sleep(50 * time.Millisecond) // it would ask by then
	release()
	require.Equal(t, http.StatusNoContent, <-both)
	require.Empty(t, asked, "another asked for the same layer")
}

// While a password changes both are good, and registries that run ask one another with the new one as soon as it is there.
func TestPeers_PasswordChanges(t *testing.T) {
	b := newPeerBed(t)
	b.htpasswd = filepath.Join(t.TempDir(), "htpasswd")
	line := func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		require.NoError(t, err)
		return "team:" + string(hash) + "\n"
	}
	save := func(text string) { require.NoError(t, atomicfile.Write(b.htpasswd, []byte(text), 0o600)) }
	var password atomic.Value
	password.Store("old")
	b.login = func() (string, secret.Text, error) { return "team", secret.Text(password.Load().(string)), nil }
	old, next := line("old"), line("new")
	save(old)
	b.start(t, 0)
	b.start(t, 1)
	push := func(image, with string) error {
		img, _ := newImage(t)
		return remote.Write(b.ref(t, 0, image), img, remote.WithAuth(&authn.Basic{Username: "team", Password: with}))
	}
	there := func(image string) {
		t.Helper()
		_, err := remote.Head(b.ref(t, 1, image), remote.WithAuth(&authn.Basic{Username: "team", Password: password.Load().(string)}))
		require.NoError(t, err, "the push was answered")
	}
	require.NoError(t, push("a:1", "old"))
	there("a:1")
	require.Error(t, push("a:2", "new"))
	save(old + next)
	for i, with := range []string{"old", "new"} {
		require.NoError(t, push(fmt.Sprintf("b:%d", i), with))
		there(fmt.Sprintf("b:%d", i))
	}
	password.Store("new")
	save(next)
	require.NoError(t, push("c:1", "new"))
	there("c:1")
	require.Error(t, push("c:2", "old"))
}

// Nothing is fetched from anywhere but from peers.
func TestPeers_AskOnlyPeers(t *testing.T) {
	b := newPeerBed(t)
	b.start(t, 0)
	res, err := http.Post("http://"+b.hosts[0]+"/sealer/fetch", "application/json", strings.NewReader(
		`{"from":"http://127.0.0.1:1","repository":"a","digest":"sha256:`+strings.Repeat("0", 64)+`"}`))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusBadRequest, res.StatusCode)
}
