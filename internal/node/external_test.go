// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/test/testregistry"
)

// A host says whether a registry is there, is trusted, and takes the login.
func TestRegistryAsk(t *testing.T) {
	reg, err := testregistry.Start(t.Context(), testregistry.Options{TLS: true, User: "robot", Password: "pass"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	good := node.RegistryAccess{CA: string(must(os.ReadFile(reg.CAFile))), Username: "robot", Password: "pass"}
	m := newMachine(t)
	m.run(toJSON(good), "registry", "ask", "--server", reg.Address)
	for want, a := range map[string]node.RegistryAccess{
		"UNAUTHORIZED": {CA: good.CA, Username: "robot", Password: "wrong"},
		"certificate":  {Username: "robot", Password: "pass"},
	} {
		r := m.try(toJSON(a), "registry", "ask", "--server", reg.Address)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, want)
		require.NotContains(t, r.err, "wrong\"")
	}
	require.Contains(t, m.try(toJSON(good), "registry", "ask", "--server", "127.0.0.1:1").err, "refused")
}

// The user's own CA, of another kind of key and another program's making, signs what the host serves with; the user's own login is kept.
func TestRegistryInit_Own(t *testing.T) {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "corporate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(9 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	own := node.RegistryAccess{
		CA:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		CAKey:    string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		Username: "team", Password: "short one",
	}
	m := newMachine(t)
	args := []string{"registry", "init", "--address", "10.0.0.1", "--alt-name", "more.example", "--adopt", "--share"}
	out := m.run(toJSON(own), args...)
	require.Contains(t, out, `"changed":true`)
	require.NotContains(t, m.run(toJSON(own), args...), "changed")
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(own.CA)))
	server := readCert(t, filepath.Join(m.root, "registry", "server.crt"))
	for _, name := range []string{"10.0.0.1", "more.example", "sea.hub"} {
		_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
		require.NoError(t, err, name)
	}
	loginOnly := m.run(toJSON(node.RegistryAccess{Username: "team", Password: "another"}), args...)
	require.Contains(t, loginOnly, `"changed":true`)
	require.Contains(t, loginOnly, `"password":"another"`)

	leaf := own
	leaf.CA = string(must(os.ReadFile(filepath.Join(m.root, "registry", "server.crt"))))
	require.Contains(t, m.try(toJSON(leaf), args...).err, "none of a CA")
	require.Contains(t, m.try(toJSON(node.RegistryAccess{CA: own.CA}), args...).err, "incomplete")
}
