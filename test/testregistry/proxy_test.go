// SPDX-License-Identifier: Apache-2.0

package testregistry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/testregistry"
)

// content is served by an upstream that knows ranges, as registries do.
var content = bytes.Repeat([]byte("0123456789abcdef"), 8192)

func proxy(t *testing.T) *testregistry.Proxy {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil || n != int64(len(content)) {
				http.Error(w, "cut", http.StatusBadRequest)
			}
			return
		}
		http.ServeContent(w, r, "blob", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(upstream.Close)
	p, err := testregistry.NewProxy(t.Context(), upstream.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

// ask returns status and body, and the error of the request or of its body.
func ask(t *testing.T, ctx context.Context, method, url, byteRange string, body io.Reader) (int, []byte, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	if byteRange != "" {
		request.Header.Set("Range", byteRange)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, data, err
}

func TestProxy_WithoutFaults(t *testing.T) {
	p := proxy(t)
	status, got, err := ask(t, t.Context(), http.MethodGet, p.URL+"/v2/a/blobs/x", "", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, content, got)
	status, got, err = ask(t, t.Context(), http.MethodGet, p.URL+"/v2/a/blobs/x?ns=b", "bytes=16-31", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusPartialContent, status)
	assert.Equal(t, content[16:32], got)

	assert.Equal(t, []testregistry.Request{
		{Method: "GET", Path: "/v2/a/blobs/x"},
		{Method: "GET", Path: "/v2/a/blobs/x", Query: "ns=b", Range: "bytes=16-31"},
	}, p.Requests())
	assert.Equal(t, 1, p.Counts()[testregistry.Request{Method: "GET", Path: "/v2/a/blobs/x", Range: "bytes=16-31"}])
	assert.Equal(t, 2, p.Count("GET", "/blobs/"))
	assert.Equal(t, 0, p.Count("HEAD", ""))
	assert.Equal(t, int64(len(content)+16), p.Sent())
	assert.Equal(t, `"GET /v2/a/blobs/x?ns=b (bytes=16-31)"`, p.Requests()[1].String())

	p.Reset()
	_, _, err = ask(t, t.Context(), http.MethodPut, p.URL+"/v2/a/blobs/uploads/1", "", bytes.NewReader(content))
	require.NoError(t, err)
	assert.Equal(t, int64(len(content)), p.Received())
	assert.Len(t, p.Requests(), 1)
}

func TestProxy_Status(t *testing.T) {
	p := proxy(t)
	p.Inject(testregistry.Fault{
		Method: "GET", Path: regexp.MustCompile("/blobs/"), Times: 2,
		Effect: testregistry.Status(http.StatusServiceUnavailable, "Retry-After", "1"),
	})
	var got []int
	for _, path := range []string{"/blobs/x", "/manifests/x", "/blobs/y", "/blobs/x"} {
		status, _, err := ask(t, t.Context(), http.MethodGet, p.URL+path, "", nil)
		require.NoError(t, err)
		got = append(got, status)
	}
	assert.Equal(t, []int{503, 200, 503, 200}, got)
}

func TestProxy_CutAfter(t *testing.T) {
	for _, at := range []int64{0, 1, 40000} {
		p := proxy(t)
		p.Inject(testregistry.Fault{Times: 1, Effect: testregistry.CutAfter(at)})
		status, got, err := ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, content[:at], append([]byte{}, got...))
		_, got, err = ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
		require.NoError(t, err)
		assert.Len(t, got, len(content))
	}
}

func TestProxy_StallAfter(t *testing.T) {
	p := proxy(t)
	p.Inject(testregistry.Fault{Effect: testregistry.StallAfter(1000)})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, got, err := ask(t, ctx, http.MethodGet, p.URL+"/x", "", nil)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Len(t, got, 1000)
	p.Heal()
	_, got, err = ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
	require.NoError(t, err)
	assert.Len(t, got, len(content))
}

func TestProxy_FlipByte(t *testing.T) {
	for _, at := range []int64{0, 40000, int64(len(content)) - 1} {
		p := proxy(t)
		p.Inject(testregistry.Fault{Effect: testregistry.FlipByte(at)})
		_, got, err := ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
		require.NoError(t, err)
		require.Len(t, got, len(content))
		for i := range got {
			if (got[i] != content[i]) != (int64(i) == at) {
				t.Fatalf("byte %d of a flip at %d is %x", i, at, got[i])
			}
		}
	}
}

func TestProxy_IgnoreRange(t *testing.T) {
	p := proxy(t)
	p.Inject(testregistry.Fault{Effect: testregistry.IgnoreRange()})
	status, got, err := ask(t, t.Context(), http.MethodGet, p.URL+"/x", "bytes=5-", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, content, got)
	assert.Equal(t, "bytes=5-", p.Requests()[0].Range)
}

func TestProxy_CutUploadAfter(t *testing.T) {
	p := proxy(t)
	p.Inject(testregistry.Fault{Method: http.MethodPut, Times: 1, Effect: testregistry.CutUploadAfter(1000)})
	_, _, err := ask(t, t.Context(), http.MethodPut, p.URL+"/x", "", bytes.NewReader(content))
	require.Error(t, err)
	status, _, err := ask(t, t.Context(), http.MethodPut, p.URL+"/x", "", bytes.NewReader(content))
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
}

func TestProxy_Delay(t *testing.T) {
	p := proxy(t)
	p.Inject(testregistry.Fault{Times: 1, Effect: testregistry.Delay(200 * time.Millisecond)})
	begin := time.Now()
	_, _, err := ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, time.Since(begin), 200*time.Millisecond)
}

func TestProxy_CloseEndsStalledRequests(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100))
	}))
	defer upstream.Close()
	p, err := testregistry.NewProxy(t.Context(), upstream.URL, testregistry.ProxyOptions{})
	require.NoError(t, err)
	p.Inject(testregistry.Fault{Effect: testregistry.StallAfter(10)})
	answered := make(chan error, 1)
	go func() {
		response, err := http.Get(p.URL + "/x")
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		answered <- err
	}()
	require.Eventually(t, func() bool { return p.Sent() == 10 }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.Close())
	assert.Error(t, <-answered)
}

func TestProxy_TLS(t *testing.T) {
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	defer upstream.Close()
	p, err := testregistry.NewProxy(t.Context(), upstream.URL, testregistry.ProxyOptions{
		TLS: true, Transport: upstream.Client().Transport,
	})
	require.NoError(t, err)
	defer p.Close()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(p.CA))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	response, err := client.Get(p.URL + "/x")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(body))
	_, _, err = ask(t, t.Context(), http.MethodGet, p.URL+"/x", "", nil)
	assert.ErrorContains(t, err, "certificate")
}
