// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the known_hosts format hashes names with HMAC-SHA1
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// maxKnownHosts bounds one known_hosts file.
const maxKnownHosts = 16 << 20

// knownKey is one line of a known_hosts file that speaks of a host. The format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
type knownKey struct {
	where  string // file:line
	marker string // "", "cert-authority", "revoked"
	hosts  []string
	key    ssh.PublicKey
}

// readKnownHosts reads files; one that does not exist is empty. Lines that make no sense are passed over, as OpenSSH
// does: a user's file may hold keys of kinds that we do not know.
func readKnownHosts(files []string) ([]knownKey, error) {
	var keys []knownKey
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Size() > maxKnownHosts {
			err = fmt.Errorf("it is larger than %d bytes", maxKnownHosts)
		}
		var src []byte
		if err == nil {
			src, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("reading known host keys from %q: %w", file, err)
		}
		lines := bufio.NewScanner(bytes.NewReader(src))
		lines.Buffer(nil, maxKnownHosts)
		for n := 1; lines.Scan(); n++ {
			marker, hosts, key, _, _, err := ssh.ParseKnownHosts(append(lines.Bytes(), '\n'))
			if err != nil {
				continue
			}
			keys = append(keys, knownKey{fmt.Sprintf("%s:%d", file, n), marker, hosts, key})
		}
	}
	return keys, nil
}

// speaksOf tells whether the line is for the host, given as known_hosts writes it.
func (k knownKey) speaksOf(address string) bool {
	found := false
	for _, pattern := range k.hosts {
		negated := strings.HasPrefix(pattern, "!")
		pattern = strings.TrimPrefix(pattern, "!")
		if !matchesName(pattern, address) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

func matchesName(pattern, address string) bool {
	if salted, ok := strings.CutPrefix(pattern, "|1|"); ok {
		salt64, sum64, _ := strings.Cut(salted, "|")
		salt, err1 := base64.StdEncoding.DecodeString(salt64)
		sum, err2 := base64.StdEncoding.DecodeString(sum64)
		if err1 != nil || err2 != nil {
			return false
		}
		mac := hmac.New(sha1.New, salt)
		mac.Write([]byte(address))
		return hmac.Equal(mac.Sum(nil), sum)
	}
	// Brackets are literal in known_hosts ("[10.0.0.7]:2222") and classes in path.Match. Names hold no slash.
	escaped := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`).Replace(strings.ToLower(pattern))
	ok, err := path.Match(escaped, strings.ToLower(address))
	return err == nil && ok
}

// hostKeys checks the key of one host against what is known of it.
type hostKeys struct {
	cfg     Config
	address string // as known_hosts writes it
	known   []knownKey
	seen    bool // the key was checked and found good
}

func newHostKeys(cfg Config) (*hostKeys, error) {
	files := cfg.KnownHosts
	if cfg.NewHostKeys != "" && !slices.Contains(files, cfg.NewHostKeys) {
		files = append(slices.Clone(files), cfg.NewHostKeys)
	}
	all, err := readKnownHosts(files)
	if err != nil {
		return nil, err
	}
	h := &hostKeys{cfg: cfg, address: knownhosts.Normalize(cfg.hostPort())}
	for _, k := range all {
		if k.speaksOf(h.address) {
			h.known = append(h.known, k)
		}
	}
	return h, nil
}

// algorithms puts the kinds of the known keys first, so that a host known by its ed25519 key is not met by its
// ECDSA key and taken for a stranger. nil: nothing is known, any order will do.
func (h *hostKeys) algorithms() []string {
	var plain, certs []string
	for _, k := range h.known {
		switch k.marker {
		case "":
			plain = append(plain, signatureAlgorithms(k.key.Type())...)
		case "cert-authority":
			certs = []string{
				ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
				ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
			}
		}
	}
	all := []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
	var order []string
	for _, a := range slices.Concat(plain, certs, all) {
		if !slices.Contains(order, a) {
			order = append(order, a)
		}
	}
	return order
}

// signatureAlgorithms: an RSA key signs with SHA-2 (RFC 8332); SHA-1 signatures are not taken.
func signatureAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// check is the host key callback: it runs before any credential is sent.
func (h *hostKeys) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	certs := ssh.CertChecker{
		IsHostAuthority: func(authority ssh.PublicKey, _ string) bool { return len(h.lines("cert-authority", authority)) > 0 },
		IsRevoked: func(c *ssh.Certificate) bool {
			return len(h.lines("revoked", c.Key)) > 0 || len(h.lines("revoked", c.SignatureKey)) > 0
		},
		HostKeyFallback: func(_ string, _ net.Addr, key ssh.PublicKey) error { return h.checkPlain(key) },
	}
	if err := certs.CheckHostKey(h.cfg.hostPort(), remote, key); err != nil {
		return err
	}
	h.seen = true
	return nil
}

func (h *hostKeys) lines(marker string, key ssh.PublicKey) []string {
	var where []string
	for _, k := range h.known {
		if k.marker == marker && (key == nil || bytes.Equal(k.key.Marshal(), key.Marshal())) {
			where = append(where, k.where)
		}
	}
	return where
}

func (h *hostKeys) checkPlain(key ssh.PublicKey) error {
	fingerprint := ssh.FingerprintSHA256(key)
	if where := h.lines("revoked", key); len(where) > 0 {
		return &ChangedHostKeyError{h.cfg.name(), key.Type(), fingerprint, where, true}
	}
	if len(h.lines("", key)) > 0 {
		return nil
	}
	// A key of a kind not yet known of a known host is a change too: else a listener need only offer another kind.
	if where := h.lines("", nil); len(where) > 0 {
		return &ChangedHostKeyError{h.cfg.name(), key.Type(), fingerprint, where, false}
	}
	if !h.cfg.AcceptNewHostKeys {
		return &HostKeyError{h.cfg.name(), h.address, key.Type(), fingerprint}
	}
	h.cfg.Logger.Info("accepting a new host key", "host", h.cfg.name(), "type", key.Type(), "fingerprint", fingerprint)
	return nil
}

// remember adds the accepted key to sealer's own file, once. The file is written whole, under a lock: others may be dialling too.
func (h *hostKeys) remember(ctx context.Context, key ssh.PublicKey) error {
	if !h.cfg.AcceptNewHostKeys || len(h.known) > 0 {
		return nil
	}
	file := h.cfg.NewHostKeys
	if err := h.addLine(ctx, file, knownhosts.Line([]string{h.address}, key)); err != nil {
		return fmt.Errorf("%s: keeping the host key in %q: %w", h.cfg.name(), file, err)
	}
	return nil
}

func (h *hostKeys) addLine(ctx context.Context, file, line string) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	lock := flock.New(file + ".lock")
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return fmt.Errorf("waiting for the lock: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	if bytes.Contains(append([]byte("\n"), old...), []byte("\n"+line+"\n")) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(old, line+"\n"...))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
