// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// selfSigned writes a certificate for 127.0.0.1 and sea.hub.
func selfSigned(t *testing.T, dir string, serial int64) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "sea.hub"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"sea.hub"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	require.NoError(t, err)
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	pemCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(cert, pemCert, 0o644))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd}), 0o600))
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pemCert)
	return cert, key, pool
}

// serve runs a server and returns its host and how to stop it.
func serve(t *testing.T, o registry.ServerOptions) (host string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan net.Addr, 1)
	o.Address = "127.0.0.1:0"
	o.Ready = func(a net.Addr) { ready <- a }
	done := make(chan error, 1)
	go func() { done <- registry.Serve(ctx, o) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	select {
	case a := <-ready:
		return a.String(), stop
	case err := <-done:
		t.Fatal(err)
		return "", nil
	}
}

// published makes a store with a ClusterImage and publishes it.
func published(t *testing.T, dir, tag string, reqs ...registry.ImageRequest) (*store.Store, *clusterimage.Image) {
	t.Helper()
	return publishedFrom(t, newClient(t), dir, tag, reqs...)
}

func publishedFrom(t *testing.T, c *registry.Client, dir, tag string, reqs ...registry.ImageRequest) (*store.Store, *clusterimage.Image) {
	t.Helper()
	ctx := context.Background()
	st := newStore(t)
	d := clusterImage(t, c, st, tag, reqs...)
	img, err := clusterimage.Read(ctx, st.Content(), d)
	require.NoError(t, err)
	require.NoError(t, registry.Publish(ctx, st, img, dir))
	return st, img
}

// answer is what a test looks at of a response.
type answer struct {
	StatusCode int
	Header     http.Header
}

// get asks the server, as containerd and Docker do.
func get(t *testing.T, client *http.Client, method, url string, user ...string) (answer, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "+
		"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json")
	if len(user) == 2 {
		req.SetBasicAuth(user[0], user[1])
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return answer{resp.StatusCode, resp.Header}, string(body)
}

func TestServe(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	multi := index(t, map[string]v1Image{
		"linux/amd64": image(t, "linux/amd64", layer(1, 5000)), "linux/arm64": image(t, "linux/arm64", layer(2, 5000)),
	}, true)
	up.push(t, "quay.io/a/b:1", image(t, "linux/amd64", layer(1, 5000), layer(3, 10)))
	up.push(t, "ghcr.io/a/b:1", image(t, "linux/amd64", layer(1, 5000), layer(4, 10)))
	up.push(t, "docker.io/library/busybox:1", multi)
	up.push(t, "sea.hub/quay.io/own/x:1", image(t, "linux/amd64", layer(6, 10)))
	own := up.push(t, "with/port:1", image(t, "linux/amd64", layer(5, 10)))
	c := newClient(t, func(o *registry.Options) {
		o.Mirrors = map[string]string{
			"quay.io": up.URL + "/quay.io", "ghcr.io": up.URL + "/ghcr.io", "docker.io": up.URL + "/docker.io",
			"sea.hub:5000": up.URL + "/sea.hub",
		}
	})
	dir := t.TempDir()
	multiDigest, err := multi.Digest()
	require.NoError(t, err)
	st, img := publishedFrom(t, c, dir, "example.com/c:1", request("quay.io/a/b:1"), request("ghcr.io/a/b:1"),
		request("busybox:1"), request("docker.io/library/busybox@"+multiDigest.String()), request("sea.hub:5000/quay.io/own/x:1"), request(own))
	require.NoError(t, registry.Publish(context.Background(), st, img, dir), "again")
	byName := map[string]clusterimage.PackedImage{}
	for _, p := range img.Images {
		byName[p.Name] = p
	}
	cert, key, pool := selfSigned(t, t.TempDir(), 1)
	var access, errors syncBuffer
	host, stop := serve(t, registry.ServerOptions{Dir: dir, CertFile: cert, KeyFile: key, AccessLog: &access, ErrorLog: &errors})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	base := "https://" + host + "/v2/"
	top := func(name string) string {
		if p := byName[name]; p.Index != nil {
			return p.Index.Digest.String()
		}
		return byName[name].Manifest.Digest.String()
	}
	for _, tc := range []struct{ path, want string }{
		{"a/b/manifests/1?ns=quay.io", top("quay.io/a/b:1")},
		{"a/b/manifests/1?ns=ghcr.io", top("ghcr.io/a/b:1")},
		{"library/busybox/manifests/1?ns=docker.io", multiDigest.String()},
		{"library/busybox/manifests/" + multiDigest.String() + "?ns=docker.io", multiDigest.String()},
		{"library/busybox/manifests/" + byName["docker.io/library/busybox:1"].Manifest.Digest.String() + "?ns=docker.io", byName["docker.io/library/busybox:1"].Manifest.Digest.String()},
		{"library/busybox/manifests/1", multiDigest.String()},
		{"docker.io/library/busybox/manifests/1", multiDigest.String()},
		{"quay.io/a/b/manifests/1", top("quay.io/a/b:1")},
		{"quay.io/a/b/manifests/1?ns=sea.hub:5000", top("quay.io/a/b:1")},
		{"quay.io/own/x/manifests/1?ns=sea.hub:5000", top("sea.hub:5000/quay.io/own/x:1")},
		{"with/port/manifests/1?ns=" + up.host, top(own)},
		{up.host + "/with/port/manifests/1", top(own)},
	} {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			resp, body := get(t, client, method, base+tc.path)
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s %s: %s", method, tc.path, body)
			require.Equal(t, tc.want, resp.Header.Get("Docker-Content-Digest"), tc.path)
		}
	}
	// Blobs, whole and in part.
	var m struct{ Layers []ociDescriptor }
	require.NoError(t, clusterimage.ReadJSON(context.Background(), st.Content(), byName["quay.io/a/b:1"].Manifest, &m))
	blob := base + "a/b/blobs/" + m.Layers[0].Digest.String() + "?ns=quay.io"
	_, body := get(t, client, http.MethodGet, blob)
	require.Equal(t, string(randomBytes(1, 5000)), body)
	req, err := http.NewRequest(http.MethodGet, blob, nil)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes=100-199")
	resp, err := client.Do(req)
	require.NoError(t, err)
	part, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, randomBytes(1, 5000)[100:200], part)

	for path, want := range map[string]string{
		"library/none/manifests/7?ns=docker.io": "docker.io/library/none:7 is not in this registry",
		"a/b/manifests/2?ns=quay.io":            "quay.io/a/b:2 is not in this registry",
		"a/b/tags/list?ns=gcr.io":               "gcr.io/a/b is not in this registry",
		"a/../../../../etc/manifests/1":         "",
		"a/b/blobs/" + strings.Replace(m.Layers[0].Digest.String(), "sha256:", "sha256:0", 1): "",
		"a/b/manifests/1?ns=../../x": "",
	} {
		resp, body := get(t, client, http.MethodGet, base+path)
		if want == "" {
			continue // anything but a crash; the process is still there
		}
		require.Equal(t, http.StatusNotFound, resp.StatusCode, path)
		require.Contains(t, body, want)
	}
	_, body = get(t, client, http.MethodGet, base+"a/b/tags/list?ns=quay.io")
	require.Contains(t, body, `"tags":["1"]`)

	// One copy on the disk.
	fi, err := os.Stat(st.BlobPath(m.Layers[0].Digest))
	require.NoError(t, err)
	sys, ok := fi.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	require.EqualValues(t, 2, sys.Nlink)
	require.Contains(t, access.String(), `"GET /v2/a/b/manifests/2?ns=quay.io" 404`)
	require.Empty(t, errors.String())

	// TLS 1.1 is refused.
	_, err = tls.Dial("tcp", host, &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11})
	require.Error(t, err)
	stop()

	// Another ClusterImage adds to it, and a new server has all.
	published(t, dir, "example.com/d:1", request(up.push(t, "new/one:1", image(t, "linux/amd64", layer(9, 10)))))
	host, _ = serve(t, registry.ServerOptions{Dir: dir})
	for _, path := range []string{"a/b/manifests/1?ns=quay.io", "new/one/manifests/1?ns=" + up.host} {
		resp, _ := get(t, http.DefaultClient, http.MethodHead, "http://"+host+"/v2/"+path)
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

func TestServe_Users(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	dir := t.TempDir()
	st, img := published(t, dir, "example.com/c:1", request(up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 10)))))
	users := filepath.Join(t.TempDir(), "htpasswd")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(users, []byte("# users\nu:"+string(hash)+"\n"), 0o600))
	var access syncBuffer
	host, _ := serve(t, registry.ServerOptions{Dir: dir, HtpasswdFile: users, AccessLog: &access})
	open, _ := serve(t, registry.ServerOptions{Dir: dir, HtpasswdFile: users, AnonymousPull: true})
	path := "/v2/a/b/manifests/1?ns=" + up.host
	for _, tc := range []struct {
		host, user, password string
		want                 int
	}{
		{host, "", "", 401}, {host, "u", "wrong", 401}, {host, "other", "secret", 401},
		{host, "u", "secret", 200}, {host, "u", "secret", 200}, {host, "u", "wrong", 401},
		{open, "", "", 200}, {open, "u", "wrong", 401},
	} {
		var login []string
		if tc.user != "" {
			login = []string{tc.user, tc.password}
		}
		resp, _ := get(t, http.DefaultClient, http.MethodGet, "http://"+tc.host+path, login...)
		require.Equal(t, tc.want, resp.StatusCode, "%+v", tc)
		if tc.want == 401 {
			require.Contains(t, resp.Header.Get("WWW-Authenticate"), "Basic")
		}
	}
	require.NotContains(t, access.String(), "secret")

	// A push with the same credentials; without them, none.
	c := newClient(t)
	_, err = c.Push(ctx, st, img.Descriptor, host+"/pushed/x:1")
	require.Error(t, err)
	require.NoError(t, c.Login(ctx, host, "u", "secret"))
	_, err = c.Push(ctx, st, img.Descriptor, host+"/pushed/x:1")
	require.NoError(t, err)
	other := newStore(t)
	pulled, err := c.Pull(ctx, other, host+"/pushed/x:1", registry.PullOptions{})
	require.NoError(t, err)
	complete(t, other, pulled)

	readOnly, _ := serve(t, registry.ServerOptions{Dir: dir, ReadOnly: true})
	_, err = newClient(t).Push(ctx, st, img.Descriptor, readOnly+"/pushed/y:1")
	var se *registry.StatusError
	require.ErrorAs(t, err, &se)
	require.Equal(t, http.StatusMethodNotAllowed, se.Status)

	// A changed file is read.
	require.NoError(t, os.WriteFile(users, []byte("other:"+string(hash)+"\n"), 0o600))
	resp, _ := get(t, http.DefaultClient, http.MethodGet, "http://"+host+path, "u", "secret")
	require.Equal(t, 401, resp.StatusCode)
}

func TestServe_Options(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	require.NoError(t, os.WriteFile(bad, []byte("u:plain\n"), 0o600))
	for want, o := range map[string]registry.ServerOptions{
		"missing":         {Dir: dir},
		"a certificate":   {Dir: dir, Address: "0.0.0.0:0"},
		"needs a key":     {Dir: dir, Address: "127.0.0.1:0", CertFile: "x"},
		"bcrypt":          {Dir: dir, Address: "127.0.0.1:0", HtpasswdFile: bad},
		"certificate: op": {Dir: dir, Address: "127.0.0.1:0", CertFile: bad + "1", KeyFile: bad + "2"},
	} {
		require.ErrorContains(t, registry.Serve(context.Background(), o), want)
	}
}

func TestServe_CertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, _ := selfSigned(t, dir, 1)
	host, _ := serve(t, registry.ServerOptions{Dir: t.TempDir(), CertFile: cert, KeyFile: key})
	serial := func() int64 {
		conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // only read from
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 1, serial())
	selfSigned(t, dir, 2)
	require.EqualValues(t, 2, serial())
}
