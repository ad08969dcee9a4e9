// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package testregistry_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/testregistry"
)

func start(t *testing.T, o testregistry.Options) *testregistry.Registry {
	t.Helper()
	r, err := testregistry.Start(t.Context(), o)
	require.NoError(t, err)
	return r
}

func TestStart_ContentStaysInDir(t *testing.T) {
	dir := t.TempDir()
	image, err := random.Image(100_000, 2)
	require.NoError(t, err)

	r := start(t, testregistry.Options{Dir: dir})
	ref, err := name.NewTag(r.Address + "/a/b:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	access, err := os.ReadFile(r.AccessLog)
	require.NoError(t, err)
	assert.Contains(t, string(access), `"PUT /v2/a/b/manifests/1 HTTP/1.1" 201`)
	require.NoError(t, r.Close())
	assert.NoFileExists(t, r.AccessLog)
	_, err = http.Get(r.URL + "/v2/") //nolint:bodyclose // nobody answers
	assert.Error(t, err)

	again := start(t, testregistry.Options{Dir: dir, Address: r.Address})
	defer again.Close()
	got, err := remote.Image(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Image(got))
	want, err := image.Digest()
	require.NoError(t, err)
	digest, err := got.Digest()
	require.NoError(t, err)
	assert.Equal(t, want, digest)
}

func TestStart_PasswordAndTLS(t *testing.T) {
	r := start(t, testregistry.Options{User: "u", Password: "p ss'\"$", TLS: true})
	defer r.Close()
	certificate, err := os.ReadFile(r.CAFile)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certificate))
	trusting := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	ref, err := name.NewTag(r.Address + "/a:1")
	require.NoError(t, err)
	image, err := random.Image(1000, 1)
	require.NoError(t, err)

	require.NoError(t, remote.Write(ref, image, remote.WithTransport(trusting),
		remote.WithAuth(&authn.Basic{Username: "u", Password: "p ss'\"$"})))
	_, err = remote.Head(ref, remote.WithTransport(trusting))
	var refused *transport.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusUnauthorized, refused.StatusCode)
	_, err = remote.Head(ref)
	assert.Error(t, err)
}

func TestStart_BehindProxy(t *testing.T) {
	r := start(t, testregistry.Options{})
	defer r.Close()
	p, err := testregistry.NewProxy(t.Context(), r.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	defer p.Close()
	ref, err := name.NewTag(p.Address + "/a/b:1")
	require.NoError(t, err)
	image, err := random.Image(500_000, 1)
	require.NoError(t, err)
	// Uploads go through the proxy all the way: addresses that the registry gives are relative.
	require.NoError(t, remote.Write(ref, image))
	assert.Equal(t, 2, p.Count(http.MethodPut, "/blobs/uploads/"))
	assert.Greater(t, p.Received(), int64(500_000))

	p.Inject(testregistry.Fault{Path: regexp.MustCompile("/blobs/"), Effect: testregistry.FlipByte(1000)})
	got, err := remote.Image(ref)
	require.NoError(t, err)
	assert.Error(t, validate.Image(got))
	p.Heal()
	got, err = remote.Image(ref)
	require.NoError(t, err)
	assert.NoError(t, validate.Image(got))
}

func TestStart_Mistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := testregistry.Start(t.Context(), testregistry.Options{Dir: filepath.Join(file, "below")})
	assert.ErrorContains(t, err, "starting a registry: mkdir ")
	_, err = testregistry.Start(t.Context(), testregistry.Options{Address: "192.0.2.99:0"})
	assert.ErrorContains(t, err, "starting a registry: listen tcp 192.0.2.99:0: ")
}
