// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// basic asks for the user u with the password p.
func basic(w http.ResponseWriter, r *http.Request) bool {
	if u, p, _ := r.BasicAuth(); u == "u" && p == "p" {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// bearer gives tokens for a scope to the user u with the password p.
func bearer(u *upstream) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if user, p, _ := r.BasicAuth(); user != "u" || p != "p" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, _ = fmt.Fprintf(w, `{"access_token":%q}`, "t:"+strings.Join(r.URL.Query()["scope"], " "))
			return true
		}
		scope := ""
		if parts := strings.Split(r.URL.Path, "/"); len(parts) > 4 {
			scope = "repository:" + parts[2] + "/" + parts[3]
		}
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer t:"); ok && strings.Contains(token, scope) {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x",scope="%s:pull"`, u.host, scope))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, scheme := range map[string]func(*upstream) func(http.ResponseWriter, *http.Request) bool{
		"basic":  func(*upstream) func(http.ResponseWriter, *http.Request) bool { return basic },
		"bearer": bearer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			one := up.push(t, "a/one:1", image(t, "linux/amd64", layer(1, 10)))
			two := up.push(t, "a/two:1", image(t, "linux/amd64", layer(2, 10)))
			up.step(scheme(up))
			dir := t.TempDir()
			c := newClient(t, func(o *registry.Options) { o.AuthDir = dir })

			_, err := c.PackImages(ctx, newStore(t), []registry.ImageRequest{request(one)})
			require.Error(t, err)
			var se interface{ Hint() string }
			require.ErrorAs(t, err, &se)
			require.Contains(t, se.Hint(), "sealer login "+up.host)

			err = c.Login(ctx, up.host, "u", "wrong")
			require.ErrorAs(t, err, &se)
			require.Contains(t, se.Hint(), "check the user and the password")
			require.NotContains(t, err.Error(), "wrong")
			_, err = os.Stat(filepath.Join(dir, "config.json"))
			require.ErrorIs(t, err, os.ErrNotExist)

			require.NoError(t, c.Login(ctx, "http://"+up.host+"/", "u", "p"))
			saved, err := os.ReadFile(filepath.Join(dir, "config.json"))
			require.NoError(t, err)
			require.Contains(t, string(saved), base64.StdEncoding.EncodeToString([]byte("u:p")))
			fi, err := os.Stat(filepath.Join(dir, "config.json"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

			st := newStore(t)
			_, err = c.PackImages(ctx, st, []registry.ImageRequest{request(one), request(two)})
			require.NoError(t, err)
			tagged, err := c.Pull(ctx, st, one, registry.PullOptions{})
			require.NoError(t, err)
			_, err = c.Push(ctx, st, tagged, up.host+"/b/three:1")
			require.NoError(t, err)

			require.NoError(t, c.Logout(up.host))
			_, err = c.PackImages(ctx, newStore(t), []registry.ImageRequest{request(one)})
			require.Error(t, err)
		})
	}
}

func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(`#!/bin/sh
read host
[ "$1" = get ] && echo '{"ServerURL":"'"$host"'","Username":"u","Secret":"p"}'
`), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	up := newUpstream(t)
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 10)))
	up.step(basic)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credHelpers":{"`+up.host+`":"test"}}`), 0o600))
	c := newClient(t, func(o *registry.Options) { o.AuthDir = dir })
	_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(ref)})
	require.NoError(t, err)
}

// toHost sends every request for a host to a test server.
type toHost struct {
	host string
	to   string
	tls  http.RoundTripper
}

func (h toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == h.host {
		r = r.Clone(r.Context())
		r.URL.Host = h.to
		r.Host = h.host
	}
	return h.tls.RoundTrip(r)
}

func TestInsecure(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 10)))
	for _, host := range []string{"plain.example.com", "10.1.2.3:5000", "x.localhost:5000"} {
		via := func(o *registry.Options) { o.Transport = toHost{host: host, to: up.host, tls: http.DefaultTransport} }
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, via).PackImages(ctx, newStore(t), []registry.ImageRequest{request(host + "/a/b:1")})
			var insecure *registry.InsecureError
			require.ErrorAs(t, err, &insecure)
			require.ErrorContains(t, err, "--insecure-registry "+host)
			_, err = newClient(t, via, func(o *registry.Options) { o.Insecure = []string{host} }).
				PackImages(ctx, newStore(t), []registry.ImageRequest{request(host + "/a/b:1")})
			require.NoError(t, err)
		})
	}
}

// A secure registry must not be able to send the client to plain HTTP.
func TestInsecure_Redirect(t *testing.T) {
	t.Parallel()
	var asked int
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer plain.Close()
	up := newUpstream(t)
	ref := up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 10)))
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, r, "http://blobs.example.com/x", http.StatusTemporaryRedirect)
		return true
	})
	c := newClient(t, func(o *registry.Options) {
		o.Transport = toHost{host: "blobs.example.com", to: strings.TrimPrefix(plain.URL, "http://"), tls: http.DefaultTransport}
	})
	_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request(ref)})
	var insecure *registry.InsecureError
	require.ErrorAs(t, err, &insecure)
	require.Equal(t, "blobs.example.com", insecure.Host)
	require.Zero(t, asked)
}

// An untrusted certificate is not the same as plain HTTP: no flag is offered, nothing is asked in clear.
func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	c := newClient(t, func(o *registry.Options) {
		o.Transport = toHost{host: "tls.example.com", to: strings.TrimPrefix(secure.URL, "https://"), tls: http.DefaultTransport}
	})
	_, err := c.PackImages(context.Background(), newStore(t), []registry.ImageRequest{request("tls.example.com/a/b:1")})
	require.ErrorContains(t, err, "certificate")
	require.NotErrorAs(t, err, new(*registry.InsecureError))
}

func TestMirrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	up.push(t, "hub/library/x:1", image(t, "linux/amd64", layer(1, 10)))
	up.push(t, "quay.io/a/b:1", image(t, "linux/amd64", layer(2, 10)))
	c := newClient(t, func(o *registry.Options) {
		o.Mirrors = map[string]string{"docker.io": up.URL + "/hub/", "quay.io": up.URL + "/quay.io", "ghcr.io": up.URL}
	})
	st := newStore(t)
	packed, err := c.PackImages(ctx, st, []registry.ImageRequest{request("x:1"), request("quay.io/a/b:1")})
	require.NoError(t, err)
	require.Equal(t, "docker.io/library/x:1", packed[0].Name)
	require.Equal(t, "quay.io/a/b:1", packed[1].Name)

	_, err = c.PackImages(ctx, st, []registry.ImageRequest{request("ghcr.io/none/x:2")})
	require.ErrorContains(t, err, "ghcr.io/none/x:2 (asked of mirror "+up.URL)

	for raw, want := range map[string]string{
		"ftp://x":                "http://",
		"http://mirror.corp/x":   "plain HTTP",
		"https://u:secret@x/y":   "credentials",
		"https://x/y?z=1":        "query",
		"https://x:bad:port/y":   "not a URL",
		"docker.io":              "http://",
		"https://mirror.corp/ok": "",
	} {
		_, err := registry.NewClient(registry.Options{Mirrors: map[string]string{"docker.io": raw}})
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestPull_And_Push(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	c := newClient(t)
	st := newStore(t)
	a := up.push(t, "a/a:1", index(t, map[string]v1Image{
		"linux/amd64": image(t, "linux/amd64", layer(1, 5000), layer(2, 10)),
		"linux/arm64": image(t, "linux/arm64", layer(1, 5000), layer(3, 10)),
	}, true))
	b := up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 5000), layer(4, 10)))
	onARM := request(a)
	onARM.Platform.Architecture = "arm64"
	desc := clusterImage(t, c, st, "example.com/c:1", request(a), request(b), onARM)

	up.forget()
	_, err := c.Push(ctx, st, desc, up.host+"/cluster/x:1")
	require.NoError(t, err)
	// What a/a and a/b have is mounted, not sent.
	require.Empty(t, up.requests("GET /v2/cluster"))
	up.forget()
	_, err = c.Push(ctx, st, desc, up.host+"/cluster/x:2")
	require.NoError(t, err)
	require.Empty(t, up.requests("POST"))
	require.Len(t, up.requests("PUT"), 1, "only the tag")

	t.Run("all platforms", func(t *testing.T) {
		t.Parallel()
		up := upstreamLike(t, c, st, desc)
		other := newStore(t)
		pulled, err := newClient(t).Pull(ctx, other, up.host+"/cluster/x:1", registry.PullOptions{})
		require.NoError(t, err)
		complete(t, other, pulled)
		require.Len(t, up.requests("GET /v2/cluster/x/manifests/"), 1+2+2, "index, rootfs, lists")
		tagged, err := other.Resolve(ctx, up.host+"/cluster/x:1")
		require.NoError(t, err)
		require.Equal(t, desc.Digest, tagged.Descriptor.Digest)
		// Again: only a look at the tag.
		up.forget()
		_, err = newClient(t).Pull(ctx, other, up.host+"/cluster/x:1", registry.PullOptions{})
		require.NoError(t, err)
		require.Empty(t, up.requests("GET /v2/cluster"))
		// It can be pushed on from there.
		_, err = newClient(t).Push(ctx, other, pulled, newUpstream(t).host+"/again:1")
		require.NoError(t, err)
	})
	t.Run("one platform", func(t *testing.T) {
		t.Parallel()
		up := upstreamLike(t, c, st, desc)
		other := newStore(t)
		pulled, err := newClient(t).Pull(ctx, other, up.host+"/cluster/x:1", registry.PullOptions{Platforms: []ociPlatform{amd64}})
		require.NoError(t, err)
		require.Len(t, up.requests("GET /v2/cluster/x/manifests/"), 1+1+1)
		complete(t, other, pulled, amd64)
		_, err = newClient(t).Push(ctx, other, pulled, up.host+"/again:1")
		require.ErrorAs(t, err, new(*registry.IncompleteError))
		_, err = newClient(t).Pull(ctx, other, up.host+"/cluster/x:1", registry.PullOptions{Platforms: []ociPlatform{{OS: "linux", Architecture: "s390x"}}})
		require.ErrorContains(t, err, "linux/amd64, linux/arm64")
		// Prune keeps all of what was pulled.
		before := complete(t, other, pulled, amd64)
		_, err = other.Prune(ctx, store.PruneOptions{})
		require.NoError(t, err)
		require.Equal(t, before, complete(t, other, pulled, amd64))
	})
	t.Run("another image", func(t *testing.T) {
		t.Parallel()
		other := newStore(t)
		_, err := c.Pull(ctx, other, a, registry.PullOptions{})
		require.NoError(t, err)
		got, err := c.Pull(ctx, other, b, registry.PullOptions{Platforms: []ociPlatform{amd64}})
		require.NoError(t, err)
		_, err = c.Push(ctx, other, got, newUpstream(t).host+"/b:1")
		require.NoError(t, err)
	})
}

// upstreamLike is a fresh registry that has only the ClusterImage.
func upstreamLike(t *testing.T, c *registry.Client, st *store.Store, desc ociDescriptor) *upstream {
	t.Helper()
	up := newUpstream(t)
	_, err := c.Push(context.Background(), st, desc, up.host+"/cluster/x:1")
	require.NoError(t, err)
	up.forget()
	return up
}

func TestPush_Retries(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	c := newClient(t)
	st := newStore(t)
	desc := clusterImage(t, c, st, "example.com/c:1", request(up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 300_000)))))
	target := newUpstream(t)
	failed := map[string]bool{}
	target.step(func(w http.ResponseWriter, r *http.Request) bool {
		// Requests of one kind fail the first time.
		key := r.Method + " ping"
		if parts := strings.Split(r.URL.Path, "/"); len(parts) > 3 {
			key = r.Method + parts[3]
		}
		target.mu.Lock()
		defer target.mu.Unlock()
		if failed[key] {
			return false
		}
		failed[key] = true
		if r.Method == http.MethodPut {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	_, err := c.Push(context.Background(), st, desc, target.host+"/c:1")
	require.NoError(t, err)
	target.step(nil)
	other := newStore(t)
	pulled, err := c.Pull(context.Background(), other, target.host+"/c:1", registry.PullOptions{})
	require.NoError(t, err)
	complete(t, other, pulled)
}

// Logins are for their own repositories, and win over docker's.
func TestLogins(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	one := up.push(t, "a/one:1", image(t, "linux/amd64", layer(1, 10)))
	two := up.push(t, "a/two:1", image(t, "linux/amd64", layer(2, 10)))
	up.step(basic)
	logins := []registry.Login{{Host: up.host, Repositories: []string{"a/one"}, Username: "u", Password: "p"}}
	c := newClient(t, func(o *registry.Options) { o.Logins = logins })
	_, err := c.PackImages(ctx, newStore(t), []registry.ImageRequest{request(one)})
	require.NoError(t, err)
	_, err = c.PackImages(ctx, newStore(t), []registry.ImageRequest{request(two)})
	require.ErrorContains(t, err, two)

	// A mirror is somebody else.
	c = newClient(t, func(o *registry.Options) { o.Logins, o.Mirrors = logins, map[string]string{up.host: up.URL} })
	_, err = c.PackImages(ctx, newStore(t), []registry.ImageRequest{request(one)})
	require.ErrorContains(t, err, one)
}
