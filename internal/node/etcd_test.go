// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What goes over the wire to etcd's gateway; test/e2e has the real one at the other end.
func TestEtcd(t *testing.T) {
	m := newMachine(t)
	m.initRegistry("--address", "127.0.0.1") // a CA and a pair
	dir := filepath.Join(m.root, "registry")
	var asked []string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
		switch r.URL.Path {
		case "/v3/cluster/member/list":
			_, _ = io.WriteString(w, `{"header":{"cluster_id":"1"},"members":[{"ID":"10276657743932975437","name":"a","peerURLs":["https://10.0.0.1:2380"],"clientURLs":[]},{"ID":"2","isLearner":true}]}`)
		case "/v3/cluster/member/remove":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":"etcdserver: member not found","code":5}`)
		}
	}))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	clients := x509.NewCertPool()
	require.True(t, clients.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(dir, "ca.crt")))))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	access := []string{"--endpoint", srv.URL, "--cacert", filepath.Join(dir, "ca.crt"), "--cert", filepath.Join(dir, "server.crt"), "--key", filepath.Join(dir, "server.key")}

	out := m.run(nil, append([]string{"etcd", "members"}, access...)...)
	require.JSONEq(t, `[{"id":"10276657743932975437","name":"a","peerURLs":["https://10.0.0.1:2380"]},{"id":"2","name":"","peerURLs":null,"learner":true}]`, out)
	failed := m.try(nil, append([]string{"etcd", "remove", "--id", "7"}, access...)...)
	require.Contains(t, failed.err, "removing the member 7 of etcd: it answers 404 Not Found")
	require.Contains(t, failed.err, "member not found")
	require.Contains(t, m.try(nil, append([]string{"etcd", "remove", "--id", "x"}, access...)...).err, "it is no number")
	require.Equal(t, []string{`POST /v3/cluster/member/list {"linearizable":true}`, `POST /v3/cluster/member/remove {"ID":"7"}`}, asked)
}
