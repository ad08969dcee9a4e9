// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/node"
)

// authority signs for API servers and kubelets.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)))), key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// sign makes certificate and key in one text.
func (a *authority) sign(t *testing.T, of *x509.Certificate) []byte {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	of.SerialNumber, of.NotBefore, of.NotAfter = big.NewInt(2), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der := must(x509.CreateCertificate(rand.Reader, of, a.cert, &key.PublicKey, a.key))
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})...)
}

// named is an API server that says which ones there are, to nodes alone.
type named struct {
	*httptest.Server
	mu    sync.Mutex
	list  []string
	asked atomic.Int32 // by a node
}

func newNamed(t *testing.T, ca *authority) *named {
	t.Helper()
	s := &named{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		if len(r.TLS.PeerCertificates) == 0 || !slices.Contains(r.TLS.PeerCertificates[0].Subject.Organization, "system:nodes") ||
			r.URL.Path != "/api/v1/namespaces/default/endpoints/kubernetes" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		s.asked.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		text := ""
		for _, server := range s.list {
			host, port, _ := net.SplitHostPort(server)
			text += fmt.Sprintf(`,{"addresses":[{"ip":%q}],"ports":[{"name":"https","port":%s,"protocol":"TCP"}]}`, host, port)
		}
		_, _ = io.WriteString(w, `{"kind":"Endpoints","metadata":{"name":"kubernetes"},"subsets":[{}`+text+`]}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	pair := ca.sign(t, &x509.Certificate{DNSNames: []string{"kubernetes"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{must(tls.X509KeyPair(pair, pair))}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *named) address() string { return s.Listener.Addr().String() }

func (s *named) names(list ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
}

// worker is a host with a kubelet of the cluster.
func newWorker(t *testing.T, ca *authority) (n *node.Node, followed string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), ca.pem(), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kubelet.pem"), ca.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "system:node:h4", Organization: []string{"system:nodes"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}), 0o600))
	n = must(node.New(node.Options{Root: dir, ClusterCA: filepath.Join(dir, "ca.crt"), KubeletPEM: filepath.Join(dir, "kubelet.pem")}))
	return n, filepath.Join(dir, "endpoint", "followed.json")
}

func serveEndpoint(t *testing.T, n *node.Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.ServeEndpoint(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func nobody(t *testing.T) string {
	t.Helper()
	ln := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

// A worker that no operator has told of the control planes that came hears of them from one that it knows, and finds them when
// that one has gone, also after it was started anew. What an operator says then holds alone.
func TestServeEndpoint_Follows(t *testing.T) {
	ca := newAuthority(t)
	known, came := newNamed(t, ca), newNamed(t, ca)
	known.names(came.address(), known.address())
	came.names(came.address())
	n, followed := newWorker(t, ca)
	config := node.EndpointConfig{Listen: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Servers: []string{nobody(t), known.address()}}
	require.NoError(t, n.SetEndpoint(config))
	reach := func() bool {
		return node.CheckServer(t.Context(), config.Listen) == nil
	}
	stop := serveEndpoint(t, n)
	require.Eventually(t, func() bool { _, err := os.Stat(followed); return err == nil }, 20*time.Second, 10*time.Millisecond)
	known.Close()
	require.Eventually(t, reach, 20*time.Second, 50*time.Millisecond)
	stop()
	require.False(t, reach())

	serveEndpoint(t, n)
	require.Eventually(t, reach, 20*time.Second, 50*time.Millisecond)

	config.Servers = []string{nobody(t)}
	require.NoError(t, n.SetEndpoint(config))
	require.Eventually(t, func() bool { return !reach() }, 20*time.Second, 50*time.Millisecond)
}

// Nothing is learned from another cluster, which hears nothing of the kubelet, nor from an answer without API servers.
func TestServeEndpoint_FollowsNobodyElse(t *testing.T) {
	ca := newAuthority(t)
	for name, server := range map[string]*named{"another cluster": newNamed(t, newAuthority(t)), "no list": newNamed(t, ca)} {
		t.Run(name, func(t *testing.T) {
			other := name == "another cluster"
			if other {
				server.names(nobody(t))
			}
			n, followed := newWorker(t, ca)
			require.NoError(t, n.SetEndpoint(node.EndpointConfig{Listen: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Servers: []string{server.address()}}))
			stop := serveEndpoint(t, n)
			time.Sleep(4 * time.Second)
			stop()
			require.NoFileExists(t, followed)
			require.Equal(t, !other, server.asked.Load() > 0)
		})
	}
}
