// SPDX-License-Identifier: Apache-2.0

// Package pki makes the authorities and certificates that both distributions keep on disk, as PEM files.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte
	key  crypto.Signer
}

// Want is what a certificate has to say.
type Want struct {
	Name   string
	Groups []string
	// Names are DNS names and addresses; a certificate for servers has some.
	Names  []string
	Server bool
	Client bool
	Valid  time.Duration // the default is a year
}

// backdate lets hosts' clocks differ a little.
const backdate = time.Minute

// Year is how long leaves live in both distributions.
const Year = 365 * 24 * time.Hour

// EnsureCA reads the authority in base.crt and base.key, or makes one.
func EnsureCA(base, name string, valid time.Duration) (*Authority, error) {
	if a, err := ReadCA(base); err == nil || !errors.Is(err, os.ErrNotExist) {
		return a, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(valid),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the authority %s: %w", name, err)
	}
	if err := write(base, der, key); err != nil {
		return nil, err
	}
	return ReadCA(base)
}

// ReadCA reads the authority in base.crt and base.key.
func ReadCA(base string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return nil, fmt.Errorf("reading the authority %s: %w", base, err)
	}
	text, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, fmt.Errorf("reading the authority %s: %w", base, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading the authority %s: its key cannot sign", base)
	}
	return &Authority{Cert: pair.Leaf, PEM: text, key: key}, nil
}

// Ensure leaves base.crt and base.key as they are where they still say what is wanted for longer than renew, and
// makes them anew where not.
func (a *Authority) Ensure(base string, w Want, renew time.Duration) error {
	if c, err := ReadCert(base + ".crt"); err == nil && c.CheckSignatureFrom(a.Cert) == nil && covers(c, w) && time.Until(c.NotAfter) > renew {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := a.sign(w, key.Public())
	if err != nil {
		return err
	}
	return write(base, der, key)
}

func covers(c *x509.Certificate, w Want) bool {
	return !slices.ContainsFunc(w.Names, func(n string) bool { return c.VerifyHostname(n) != nil })
}

// Issue makes a certificate and key without files.
func (a *Authority) Issue(w Want) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(w, k.Public())
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return certPEM(der), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

// SignRequest answers a certificate signing request; its subject is taken as it is.
func (a *Authority) SignRequest(request []byte, check func(*x509.CertificateRequest) error) ([]byte, error) {
	block, _ := pem.Decode(request)
	if block == nil {
		return nil, errors.New("the request is not PEM")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	if err := errors.Join(r.CheckSignature(), check(r)); err != nil {
		return nil, err
	}
	der, err := a.sign(Want{Name: r.Subject.CommonName, Groups: r.Subject.Organization, Client: true}, r.PublicKey)
	if err != nil {
		return nil, err
	}
	return certPEM(der), nil
}

func (a *Authority) sign(w Want, public crypto.PublicKey) ([]byte, error) {
	if w.Valid == 0 {
		w.Valid = Year
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: w.Name, Organization: w.Groups},
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(w.Valid),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
	}
	if w.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if w.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, n := range w.Names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if n != "" {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of %s: %w", w.Name, err)
	}
	return der, nil
}

// Pool trusts this authority only.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Hash of PEM text, as K10 tokens carry it.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// ReadCert reads the first certificate of a file.
func ReadCert(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("reading %s: it is not PEM", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

// EnsureKey makes a private key in path, where there is none.
func EnsureKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return writeKey(path, key)
}

// NewRequest makes a key in keyPath, where there is none, and a certificate signing request with it.
func NewRequest(keyPath, name string, groups ...string) ([]byte, error) {
	if err := EnsureKey(keyPath); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("reading %s: it is not PEM", keyPath)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: groups}}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func write(base string, der []byte, key *ecdsa.PrivateKey) error {
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return err
	}
	if err := writeKey(base+".key", key); err != nil {
		return err
	}
	return WriteFile(base+".crt", certPEM(der), 0o644)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// WriteFile replaces a file whole, and makes its folder.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return os.Chmod(path, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}
