// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

// Types of the PEM block of a private key: what cosign writes, and wrote before 2.0.
const (
	pemPrivate    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemPrivateOld = "ENCRYPTED COSIGN PRIVATE KEY"
)

// PublicKey verifies signatures.
type PublicKey struct {
	// Name is what messages call the key, commonly its file.
	Name     string
	verifier sigstore.Verifier
}

// PrivateKey makes signatures.
type PrivateKey struct {
	signer sigstore.Signer
}

// KeyError says that a key cannot be used.
type KeyError struct {
	Name string
	Err  error
	hint string
}

func (e *KeyError) Error() string { return fmt.Sprintf("reading the key %q: %v", e.Name, e.Err) }

func (e *KeyError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *KeyError) Hint() string { return e.hint }

// ReadPublicKey reads a public key in PEM, as cosign.pub is: ECDSA, RSA or
// Ed25519. The error is a *KeyError.
func ReadPublicKey(name string, data []byte) (*PublicKey, error) {
	if block, _ := pem.Decode(data); block != nil && strings.Contains(block.Type, "PRIVATE KEY") {
		return nil, &KeyError{Name: name, Err: errors.New("it is a private key"), hint: "verifying takes the public one, commonly cosign.pub"}
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(data)
	if err != nil {
		return nil, &KeyError{Name: name, Err: err, hint: "a public key is a PEM file as 'sealer sign --generate-key' or 'cosign generate-key-pair' write it"}
	}
	verifier, err := sigstore.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, &KeyError{Name: name, Err: err}
	}
	return &PublicKey{Name: name, verifier: verifier}, nil
}

// ReadPrivateKey reads a private key as cosign keeps it: PKCS #8, encrypted
// with a password by scrypt and NaCl's secretbox, in PEM. The error is a *KeyError.
func ReadPrivateKey(name string, data, password []byte) (*PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemPrivate && block.Type != pemPrivateOld {
		return nil, &KeyError{Name: name, Err: errors.New("it is not a private key as cosign keeps it"),
			hint: "'sealer sign --generate-key' makes one; 'cosign import-key-pair' takes one of another format over"}
	}
	der, err := encrypted.Decrypt(block.Bytes, password)
	if err != nil {
		return nil, &KeyError{Name: name, Err: errors.New("the password is wrong, or the file is damaged")}
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, &KeyError{Name: name, Err: err}
	}
	signer, err := newSigner(key)
	if err != nil {
		return nil, &KeyError{Name: name, Err: err}
	}
	return &PrivateKey{signer: signer}, nil
}

// newSigner makes signatures as cosign does: PKCS #1 v1.5 for RSA, and SHA-256
// for all but Ed25519, which hashes by itself.
func newSigner(key any) (sigstore.Signer, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return sigstore.LoadECDSASigner(k, crypto.SHA256)
	case *rsa.PrivateKey:
		return sigstore.LoadRSAPKCS1v15Signer(k, crypto.SHA256)
	case ed25519.PrivateKey:
		return sigstore.LoadED25519Signer(k)
	}
	return nil, fmt.Errorf("it is a %T, which nobody signs images with", key)
}

// KeyPair is a new key in cosign's files.
type KeyPair struct {
	Private []byte // cosign.key
	Public  []byte // cosign.pub
}

// GenerateKey makes an ECDSA key on P-256, as cosign does, and encrypts it with
// the password.
func GenerateKey(password []byte) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("making a key: %w", err)
	}
	sealed, err := encrypted.Encrypt(der, password)
	if err != nil {
		return KeyPair{}, fmt.Errorf("making a key: %w", err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return KeyPair{}, fmt.Errorf("making a key: %w", err)
	}
	return KeyPair{Private: pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: sealed}), Public: public}, nil
}

// Public is the key that verifies what this one signs, in PEM.
func (k *PrivateKey) Public() ([]byte, error) {
	public, err := k.signer.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("reading the public part of a key: %w", err)
	}
	return cryptoutils.MarshalPublicKeyToPEM(public)
}

func (k *PrivateKey) sign(data []byte) ([]byte, error) {
	return k.signer.SignMessage(bytes.NewReader(data))
}

func joinNames(names []string) string { return strings.Join(names, " or ") }
