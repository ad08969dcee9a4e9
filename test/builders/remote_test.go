//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package builders

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	a.cert, a.key, a.pem = template, a.newKey(), nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	return key
}

// folder has ca.pem, cert.pem and key.pem, as buildctl --tlsdir takes them.
func (a *authority) folder(trusts *authority) string {
	a.t.Helper()
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "builder"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(a.t, err)
	dir := a.t.TempDir()
	for name, data := range map[string][]byte{
		"ca.pem":   trusts.pem,
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}),
	} {
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return dir
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

// proxy puts a program on PATH that notes its arguments and connects its stdin and stdout with the daemon, as docker
// and kubectl do when they are told to run `buildctl dial-stdio` beside it.
func proxy(t *testing.T, program, address string) (arguments func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "arguments")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\nexec " + programs["buildctl"] + " --addr " + address + " dial-stdio\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		data, err := os.ReadFile(log)
		require.NoError(t, err)
		return string(data)
	}
}

// The real daemon builds for sealer, by every way to it.
func TestRemoteBuilders(t *testing.T) {
	mine, other := newAuthority(t), newAuthority(t)
	server := mine.folder(mine)
	tcp := "tcp://" + freePort(t)
	socket := startBuildKit(t, "--addr", tcp, "--tlscacert", filepath.Join(server, "ca.pem"),
		"--tlscert", filepath.Join(server, "cert.pem"), "--tlskey", filepath.Join(server, "key.pem"))
	dir := write(t, map[string]string{
		"Kubefile": "FROM scratch\nCOPY a etc/a\nRUN echo made >etc/made\n", "a": "a",
	})
	root := t.TempDir()
	build := func(args ...string) (string, string, error) {
		return try(t, "sealer", append(append([]string{"--root", root, "build", "-t", "a:v1"}, args...), dir)...)
	}
	digests := map[string]string{}
	must := func(args ...string) {
		t.Helper()
		out, stderr, err := build(args...)
		require.NoError(t, err, stderr)
		digests[out] = args[0]
	}
	must("--builder=" + socket)
	must("--builder="+tcp, "--builder-certs="+mine.folder(mine))
	docker := proxy(t, "docker", socket)
	must("--builder=docker-container://buildkitd")
	require.Equal(t, "exec -i buildkitd buildctl dial-stdio", strings.SplitN(docker(), "\n", 2)[0])
	kubectl := proxy(t, "kubectl", socket)
	must("--builder=kube-pod://buildkitd-0?namespace=ci")
	require.Contains(t, kubectl(), "--namespace=ci")
	require.Contains(t, kubectl(), "buildkitd-0 -- buildctl dial-stdio")
	t.Setenv("BUILDKIT_HOST", socket)
	must("--progress=plain")
	require.Len(t, digests, 1, "one digest, however the daemon is reached")

	for name, args := range map[string][]string{
		"no client certificate":            {"--builder=" + tcp},
		"a client that the daemon refuses": {"--builder=" + tcp, "--builder-certs=" + other.folder(mine)},
		"a daemon that the client refuses": {"--builder=" + tcp, "--builder-certs=" + mine.folder(other)},
		"no daemon":                        {"--builder=tcp://" + freePort(t)},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, err := build(args...)
			require.Error(t, err)
			require.Contains(t, stderr, "reaching the builder")
			require.Contains(t, stderr, "hint: ")
		})
	}
}
