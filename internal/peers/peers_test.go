// SPDX-License-Identifier: Apache-2.0

package peers_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/peers"
)

func config(t *testing.T, a *peers.Authority, name string) *tls.Config {
	t.Helper()
	id, err := a.Issue(name)
	require.NoError(t, err)
	c, err := id.TLS()
	require.NoError(t, err)
	return c
}

// handshake connects a client to a server that greets it.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: client}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	_, err = io.ReadAll(c)
	_ = c.Close()
	return err
}

// Hosts of one transfer know one another, whatever their clocks say; nobody else gets in, and no host stands in for another.
func TestAuthority(t *testing.T) {
	old, err := peers.NewAuthority(time.Now().AddDate(-3, 0, 0)) // as on a host whose clock is three years ahead
	require.NoError(t, err)
	other, err := peers.NewAuthority(time.Now())
	require.NoError(t, err)
	named := func(c *tls.Config, server string) *tls.Config {
		c = c.Clone()
		c.ServerName = server
		return c
	}
	server := config(t, old, "h1.sealer.internal")
	client := config(t, old, "h2.sealer.internal")
	require.NoError(t, handshake(t, server, named(client, "h1.sealer.internal")))
	require.ErrorContains(t, handshake(t, server, named(client, "h3.sealer.internal")), "h1.sealer.internal, not h3")
	require.Error(t, handshake(t, server, named(config(t, other, "h2.sealer.internal"), "h1.sealer.internal")), "of another transfer")
	bare := named(client, "h1.sealer.internal")
	bare.Certificates = nil
	require.Error(t, handshake(t, server, bare), "without a certificate")
}

func TestRead(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("{\"end\":true}\n{\"get\":{\"id\":7,\"parts\":[{\"b\":1,\"o\":2,\"n\":3}]}}\n{\"cut"))
	var o peers.Order
	require.NoError(t, peers.Read(r, &o))
	require.True(t, o.End)
	o = peers.Order{}
	require.NoError(t, peers.Read(r, &o))
	require.Equal(t, &peers.Get{ID: 7, Parts: []peers.Part{{Blob: 1, Offset: 2, Length: 3}}}, o.Get)
	require.ErrorIs(t, peers.Read(r, &o), io.ErrUnexpectedEOF)
	require.ErrorContains(t, peers.Read(bufio.NewReader(strings.NewReader("nonsense\n")), &o), `"nonsense\n"`)
}
