// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert, _ = a.issue(&x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a key and a certificate, of the authority or, for its own, by itself.
func (a *authority) issue(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template.Subject = pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return key, cert, der
}

// leaf is a certificate for a server and a client, with its key, in PEM.
func (a *authority) leaf() (cert, key []byte) {
	a.t.Helper()
	private, _, der := a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	data, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: data})
}

func (a *authority) folder(withKey bool) string {
	a.t.Helper()
	dir := a.t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	require.NoError(a.t, os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600))
	if withKey {
		cert, key := a.leaf()
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600))
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
	}
	return dir
}

// A builder at tcp:// that wants certificates takes those of its authority, and no others.
func TestRemoteBuilder_Certificates(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	a := newAuthority(t)
	cert, key := a.leaf()
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	e, err := engine.Open(t.Context(), engine.Options{Root: filepath.Join(t.TempDir(), "state"), Isolation: engine.Chroot})
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
		require.NoError(t, e.Close())
	})
	with := func(certs string) func(*build.Options) {
		return func(o *build.Options) { o.Builder, o.BuilderCerts = "tcp://"+l.Addr().String(), certs }
	}
	require.Equal(t, []string{"Metadata", "f"}, names(b.files(b.mustBuild(with(a.folder(true))), 0)))
	for _, certs := range []string{a.folder(false), newAuthority(t).folder(true), ""} {
		_, err := b.build(with(certs))
		var builder *engine.BuilderError
		require.ErrorAs(t, err, &builder)
	}
}
