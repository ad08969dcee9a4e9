// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/node"
)

// apiServer answers /readyz with a status; its certificate is for example.com and 127.0.0.1.
func apiServer(t *testing.T, status int) (server, ca string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

func TestWay(t *testing.T) {
	good, ca := apiServer(t, http.StatusOK)
	asking, _ := apiServer(t, http.StatusUnauthorized)
	unready, _ := apiServer(t, http.StatusInternalServerError)
	plain := httptest.NewServer(nil)
	t.Cleanup(plain.Close)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := ln.Addr().String()
	require.NoError(t, ln.Close())
	_, port, err := net.SplitHostPort(good)
	require.NoError(t, err)
	for name, c := range map[string]struct{ server, obstacle, why string }{
		"good":                {good, "", ""},
		"wants a name":        {asking, "", ""},
		"not ready":           {unready, node.WayNotReady, "500"},
		"no TLS":              {strings.TrimPrefix(plain.URL, "http://"), node.WayTLS, "does not speak TLS"},
		"nobody listens":      {nobody, node.WayClosed, "refused"},
		"a name it has not":   {net.JoinHostPort("localhost", port), node.WayUnnamed, "does not say localhost; it says example.com"},
		"a name without host": {"no-such-name.invalid:6443", node.WayName, "the name no-such-name.invalid has no address"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := node.Way{Server: c.server, CA: ca}.Try(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.obstacle, got.Obstacle, got.Why)
			require.Contains(t, got.Why, c.why)
		})
	}
	_, err = node.Way{Server: good, CA: "PEM"}.Try(t.Context())
	require.ErrorContains(t, err, "no certificate in PEM")
	_, err = node.Way{Server: "here", CA: ca}.Try(t.Context())
	require.ErrorContains(t, err, "is not host:port")

	require.NoError(t, node.CheckServer(t.Context(), good))
	require.Error(t, node.CheckServer(t.Context(), unready))
	require.Error(t, node.CheckServer(t.Context(), nobody))
}

// Another cluster's API server is none of this one's, though all else about it is right.
func TestWay_Foreign(t *testing.T) {
	server, _ := apiServer(t, http.StatusOK)
	n, err := node.New(node.Options{Root: t.TempDir()})
	require.NoError(t, err)
	other, err := n.InitRegistry(node.RegistryConfig{Name: "sea.hub", Addresses: []string{"127.0.0.1"}, Port: 5000}) // any CA will do
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(server)
	require.NoError(t, err)
	for _, way := range []string{server, net.JoinHostPort("localhost", port)} { // also where its certificate says another name besides
		got, err := node.Way{Server: way, CA: other.CA}.Try(t.Context())
		require.NoError(t, err)
		require.Equal(t, node.WayForeign, got.Obstacle)
		require.Contains(t, got.Why, "no control plane of this cluster: its certificate is that of")
	}
}
