// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// AdoptRegistry puts another CA, other credentials, or both in the place of this host's: those of another host's registry, or the
// user's own. changed: the host had others, or none.
func (n *Node) AdoptRegistry(a RegistryAccess) (changed bool, err error) {
	if (a.CA == "") != (a.CAKey == "") || (a.Username == "") != (a.Password == "") || a.CA == "" && a.Username == "" {
		return false, errors.New("adopting a registry's credentials: they are incomplete")
	}
	if err := os.MkdirAll(n.registryDir(), 0o700); err != nil {
		return false, fmt.Errorf("adopting a registry's credentials: %w", err)
	}
	if a.CA != "" {
		if changed, err = n.adoptCA(a); err != nil {
			return false, fmt.Errorf("adopting a registry's CA: %w", err)
		}
	}
	if a.Username == "" {
		return changed, nil
	}
	data, err := json.Marshal(RegistryAccess{Username: a.Username, Password: a.Password}) //nolint:gosec // this file is where the password is kept
	if err != nil {
		return false, fmt.Errorf("adopting a registry's credentials: %w", err)
	}
	file := filepath.Join(n.registryDir(), credentialFile)
	if hasContent(file, data) {
		return changed, nil
	}
	return true, atomicfile.Write(file, data, 0o600)
}

func (n *Node) adoptCA(a RegistryAccess) (changed bool, err error) {
	certBlock, _ := pem.Decode([]byte(a.CA))
	keyBlock, _ := pem.Decode([]byte(a.CAKey))
	if certBlock == nil || keyBlock == nil {
		return false, errors.New("it is not PEM")
	}
	ca, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return false, err
	}
	if !ca.IsCA {
		return false, errors.New("the certificate is none of a CA: it cannot sign those of the control planes")
	}
	key, err := parseKey(keyBlock.Bytes)
	if err != nil {
		return false, fmt.Errorf("reading its key: %w", err)
	}
	if !fits(key, ca) {
		return false, errors.New("its key is another's")
	}
	if have, _, err := n.loadPair(caFile, caKeyFile); err == nil && have.Equal(ca) {
		return false, nil
	}
	return true, n.savePair(caFile, caKeyFile, ca, key)
}

// parseKey reads a private key as openssl and others write it: PKCS #8, or the forms of EC (RFC 5915) and RSA (PKCS #1).
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("it is no private key without a passphrase")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("it is a key that cannot sign")
	}
	return key, nil
}

// fits tells whether the key is the certificate's.
func fits(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}
