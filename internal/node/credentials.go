// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// Files of the registry folder besides distribution's own tree.
const (
	configFile     = "config.json"
	caFile         = "ca.crt"
	caKeyFile      = "ca.key"
	certFile       = "server.crt"
	keyFile        = "server.key"
	htpasswdFile   = "htpasswd"
	credentialFile = "credentials.json"
	// trustedFile is there while the login or the CA changes: the CAs that the registries of all hosts may have meanwhile.
	trustedFile = "trusted.crt"
)

const (
	validFor    = 10 * 365 * 24 * time.Hour
	renewBefore = 365 * 24 * time.Hour // the server's certificate
	clockSkew   = 24 * time.Hour       // hosts without a network have clocks that are off
	userName    = "sealer"
)

// RegistryConfig says how the host serves images.
type RegistryConfig struct {
	Name      string   `json:"name"`            // host name in references and in the certificate
	Addresses []string `json:"addresses"`       // IP addresses in the certificate
	Names     []string `json:"names,omitempty"` // further host names in the certificate
	Port      int      `json:"port"`
	Writable  bool     `json:"writable"` // pushes are allowed
	// Peers are the addresses of the other hosts that serve the same images on the same port; Addresses[0] is ours among theirs.
	Peers []string `json:"peers,omitempty"`
}

func (c RegistryConfig) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("name: it is empty"))
	}
	if len(c.Addresses) == 0 {
		errs = append(errs, errors.New("address: there is none"))
	}
	for _, a := range slices.Concat(c.Addresses, c.Peers) {
		if net.ParseIP(a) == nil {
			errs = append(errs, fmt.Errorf("address: %q is no IP address", a))
		}
	}
	if c.Port < 1 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("port: %d is not between 1 and 65535", c.Port))
	}
	return errors.Join(errs...)
}

// RegistryAccess is what clients need; with CAKey, what another host needs to serve as one with this one.
type RegistryAccess struct {
	CA       string `json:"ca"`              // PEM
	CAKey    string `json:"caKey,omitempty"` // PEM
	Username string `json:"username"`
	Password string `json:"password"`
	// Changed: what a registry that runs has is another CA, or other credentials.
	Changed bool `json:"changed,omitempty"`
}

// ShareRegistry is what another host needs to serve as one with this one.
func (n *Node) ShareRegistry(a RegistryAccess) (RegistryAccess, error) {
	key, err := os.ReadFile(filepath.Join(n.registryDir(), caKeyFile))
	if err != nil {
		return RegistryAccess{}, fmt.Errorf("sharing the registry's CA: %w", err)
	}
	a.CAKey = string(key)
	return a, nil
}

// writeIfOther leaves a file alone that has the content: its time tells whether a server has to start again.
func writeIfOther(file string, data []byte) error {
	if hasContent(file, data) {
		return nil
	}
	return atomicfile.Write(file, data, 0o600)
}

func hasContent(file string, data []byte) bool {
	have, err := os.ReadFile(file)
	return err == nil && bytes.Equal(have, data)
}

// InitRegistry makes the certificates and credentials of the host's registry. What is there already is kept: the CA always, the
// server's certificate as long as it covers the names and has a year left, the credentials always.
func (n *Node) InitRegistry(c RegistryConfig) (RegistryAccess, error) {
	access, err := n.initRegistry(c)
	if err != nil {
		return RegistryAccess{}, fmt.Errorf("preparing the registry: %w", err)
	}
	return access, nil
}

func (n *Node) initRegistry(c RegistryConfig) (access RegistryAccess, err error) {
	if err := c.validate(); err != nil {
		return access, err
	}
	dir := n.registryDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return access, err
	}
	ca, caKey, err := n.loadPair(caFile, caKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		ca, caKey, err = newCA(c.Name)
		if err == nil {
			err = n.savePair(caFile, caKeyFile, ca, caKey)
		}
	}
	if err != nil {
		return access, err
	}
	cert, _, err := n.loadPair(certFile, keyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return access, err
	}
	if cert == nil || !covers(cert, ca, c) {
		cert, key, err := newServerCert(c, ca, caKey)
		if err == nil {
			err = n.savePair(certFile, keyFile, cert, key)
		}
		if err != nil {
			return access, err
		}
	}
	if access, err = n.credentials(); err != nil {
		return access, err
	}
	access.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return access, err
	}
	return access, writeIfOther(filepath.Join(dir, configFile), append(data, '\n'))
}

// credentials reads the user and password, or makes them.
func (n *Node) credentials() (access RegistryAccess, err error) {
	access, err = n.readCredentials()
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return access, err
		}
		access = RegistryAccess{Username: userName, Password: base64.RawURLEncoding.EncodeToString(secret)}
		data, err := json.Marshal(access) //nolint:gosec // this file is where the password is kept
		if err != nil {
			return access, err
		}
		if err := atomicfile.Write(filepath.Join(n.registryDir(), credentialFile), data, 0o600); err != nil {
			return access, err
		}
	} else if err != nil {
		return RegistryAccess{}, err
	}
	return access, n.writeHtpasswd(access)
}

func (n *Node) readCredentials() (access RegistryAccess, err error) {
	file := filepath.Join(n.registryDir(), credentialFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return access, err
	}
	err = json.Unmarshal(data, &access)
	if err == nil && (access.Username == "" || access.Password == "") {
		err = errors.New("it is incomplete")
	}
	if err != nil {
		return RegistryAccess{}, fmt.Errorf("reading %q: %w", file, err)
	}
	return access, nil
}

// writeHtpasswd keeps a file that fits, with what else AcceptRegistry has written there.
func (n *Node) writeHtpasswd(a RegistryAccess) error {
	lines, err := n.htpasswd()
	if err != nil || slices.ContainsFunc(lines, a.isLine) {
		return err
	}
	line, err := a.line()
	if err != nil {
		return err
	}
	return n.saveHtpasswd([][]byte{line})
}

// htpasswd are the lines of that file.
func (n *Node) htpasswd() ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(n.registryDir(), htpasswdFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return bytes.Fields(data), nil
}

func (n *Node) saveHtpasswd(lines [][]byte) error {
	return atomicfile.Write(filepath.Join(n.registryDir(), htpasswdFile), append(bytes.Join(lines, []byte("\n")), '\n'), 0o600)
}

// isLine tells whether a line of htpasswd is that of the login.
func (a RegistryAccess) isLine(line []byte) bool {
	user, hash, ok := bytes.Cut(line, []byte(":"))
	return ok && string(user) == a.Username && bcrypt.CompareHashAndPassword(hash, []byte(a.Password)) == nil
}

// line is one of htpasswd. A password of 256 random bits needs no slow hash; every request of every kubelet would pay for one.
func (a RegistryAccess) line() ([]byte, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(a.Password), bcrypt.MinCost)
	return []byte(a.Username + ":" + string(hash)), err
}

func newCA(name string) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := certTemplate(name + " image registry CA")
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	cert, err := sign(t, t, key, key)
	return cert, key, err
}

func newServerCert(c RegistryConfig, ca *x509.Certificate, caKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := certTemplate(c.Name)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.DNSNames, t.IPAddresses = subjects(c)
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	cert, err := sign(t, ca, key, caKey)
	return cert, key, err
}

func subjects(c RegistryConfig) (names []string, ips []net.IP) {
	for _, s := range slices.Concat([]string{c.Name, "localhost", "127.0.0.1", "::1"}, c.Addresses, c.Names) {
		if ip := net.ParseIP(s); ip != nil {
			ips = append(ips, ip)
		} else if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return names, ips
}

func certTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"sealer"}},
		NotBefore: now.Add(-clockSkew),
		NotAfter:  now.Add(validFor),
	}
}

func sign(t, parent *x509.Certificate, key, parentKey crypto.Signer) (*x509.Certificate, error) {
	var err error
	// "non-sequential …, containing at least 64 bits of output from a CSPRNG" (CA/Browser Forum, 7.1)
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// covers tells whether a certificate can go on serving.
func covers(cert, ca *x509.Certificate, c RegistryConfig) bool {
	names, ips := subjects(c)
	for _, ip := range ips {
		names = append(names, ip.String())
	}
	for _, name := range names {
		if cert.VerifyHostname(name) != nil {
			return false
		}
	}
	return cert.CheckSignatureFrom(ca) == nil && (time.Until(cert.NotAfter) > renewBefore || cert.NotAfter.Equal(ca.NotAfter))
}

func (n *Node) loadPair(certName, keyName string) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := os.ReadFile(filepath.Join(n.registryDir(), certName))
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(n.registryDir(), keyName))
	if err != nil {
		return nil, nil, err
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("reading %s and %s: they are not PEM", certName, keyName)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", certName, err)
	}
	key, err := parseKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", keyName, err)
	}
	if !fits(key, cert) {
		return nil, nil, fmt.Errorf("reading %s: it does not fit %s: %w", keyName, certName, fs.ErrNotExist)
	}
	return cert, key, nil
}

// savePair writes the key first: a run that is cut between the two leaves a pair that does not fit, which counts as none.
func (n *Node) savePair(certName, keyName string, cert *x509.Certificate, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := atomicfile.Write(filepath.Join(n.registryDir(), keyName), keyPEM, 0o600); err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return atomicfile.Write(filepath.Join(n.registryDir(), certName), certPEM, 0o644)
}
