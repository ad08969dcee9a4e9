// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

const (
	kubeconfigPath   = "/etc/rancher/k3s/k3s.yaml"
	nodePasswordPath = "/etc/rancher/node/password"
)

// folders of a data directory.
type folders struct{ data string }

func (f folders) server(parts ...string) string {
	return filepath.Join(append([]string{f.data, "server"}, parts...)...)
}

func (f folders) agent(parts ...string) string {
	return filepath.Join(append([]string{f.data, "agent"}, parts...)...)
}

func (f folders) tls(parts ...string) string { return f.server(append([]string{"tls"}, parts...)...) }
func (f folders) etcd() string               { return f.server("db", "etcd") }
func (f folders) tombstone() string          { return f.server("db", "etcd", "tombstone") }
func (f folders) resetFlag() string          { return f.server("db", "reset-flag") }

// token is a server or agent token, in the short form or with the authority's hash.
type token struct{ hash, user, password string }

// parseToken reads "K10<hash>::user:password", "user:password" or "password".
func parseToken(text string) (token, error) {
	text = strings.TrimSpace(text)
	rest, long := strings.CutPrefix(text, "K10")
	if !long {
		return token{password: text}, nil
	}
	hash, credentials, ok := strings.Cut(rest, "::")
	user, password, both := strings.Cut(credentials, ":")
	if !ok || len(hash) != sha256.Size*2 {
		return token{}, errors.New("invalid token format")
	}
	if !both { // a bootstrap token has one part
		return token{hash: hash, password: credentials}, nil
	}
	return token{hash: hash, user: user, password: password}, nil
}

func (t token) String() string { return "K10" + t.hash + "::" + t.user + ":" + t.password }

// bootstrapToken tells whether the password is one made by k3s token create: id.secret.
func (t token) bootstrapToken() bool {
	id, secret, ok := strings.Cut(t.password, ".")
	return ok && len(id) == 6 && len(secret) == 16
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// readSecret is the value of a setting, or the content of the file that another names.
func readSecret(s settings, name, file string) (string, error) {
	if v := s.text(name); v != "" {
		return v, nil
	}
	path := s.text(file)
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "", fmt.Errorf("token file %s is empty", path)
	}
	return strings.TrimSpace(string(text)), nil
}

// bootstrapNames are the files that every server of a cluster has alike.
func bootstrapNames() []string {
	var out []string
	for _, base := range []string{"server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"} {
		out = append(out, base+".crt", base+".key")
	}
	return append(out, "service.key")
}

// sealBootstrap packs those files, encrypted with the token.
func (f folders) sealBootstrap(password string) ([]byte, error) {
	content := map[string][]byte{}
	for _, name := range bootstrapNames() {
		text, err := os.ReadFile(f.tls(name))
		if err != nil {
			return nil, err
		}
		content[name] = text
	}
	plain, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	box, err := box(password)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce)
	return box.Seal(nonce, nonce, plain, nil), nil
}

var errOtherToken = errors.New("bootstrap data already found and encrypted with different token")

// openBootstrap writes the files of a sealed bundle.
func (f folders) openBootstrap(sealed []byte, password string) error {
	box, err := box(password)
	if err != nil {
		return err
	}
	if len(sealed) < box.NonceSize() {
		return errOtherToken
	}
	plain, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], nil)
	if err != nil {
		return errOtherToken
	}
	var content map[string][]byte
	if err := json.Unmarshal(plain, &content); err != nil {
		return err
	}
	for _, name := range bootstrapNames() {
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".key") {
			mode = 0o600
		}
		if err := pki.WriteFile(f.tls(name), content[name], mode); err != nil {
			return err
		}
	}
	return nil
}

func box(password string) (cipher.AEAD, error) {
	key := sha256.Sum256([]byte("k3s double " + password))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

var errNoRoute = errors.New("unable to select an IP from default routes.") //nolint:revive,staticcheck // the real one's words

// checkRoute wants a default route, as the real one does to find its own address.
func checkRoute() error {
	for _, table := range []struct{ path, zero string }{{"/proc/net/route", "00000000"}, {"/proc/net/ipv6_route", strings.Repeat("0", 32)}} {
		f, err := os.Open(table.path)
		if err != nil {
			continue
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			switch {
			case len(fields) > 7 && table.zero == fields[1] && fields[7] == table.zero: // destination and mask
				return nil
			case len(fields) > 9 && table.zero == fields[0] && fields[1] == "00" && fields[9] != "lo":
				return nil
			}
		}
	}
	return errNoRoute
}
