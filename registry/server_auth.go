// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// gate asks for credentials. distribution's own check runs bcrypt on every
// request, which for the many small requests of a node's start costs more than
// serving them.
type gate struct {
	next          http.Handler
	users         *htpasswd
	anonymousPull bool
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case given && g.users.check(user, password):
	case !given && g.anonymousPull && reading:
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="sealer registry"`)
		writeError(w, r, http.StatusUnauthorized, "UNAUTHORIZED", "this registry asks for a user and a password")
		return
	}
	g.next.ServeHTTP(w, r)
}

// htpasswd is a file of user:bcrypt-hash lines. A user may have several: a password before goes on being taken while it changes.
type htpasswd struct {
	file string

	mu     sync.Mutex
	seen   fileState
	hashes map[string][][]byte
	// passed are the credentials that were right since the file was read, as
	// HMACs under a key of this process.
	passed map[[sha256.Size]byte]bool
	key    []byte
	dummy  []byte
}

// maxPassed bounds the remembered credentials; one cluster has a handful.
const maxPassed = 256

// fileState tells a changed file.
type fileState struct {
	mtime time.Time
	size  int64
}

func stateOf(file string) (fileState, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return fileState{}, err
	}
	return fileState{mtime: fi.ModTime(), size: fi.Size()}, nil
}

// load reads the file if it changed. The caller has no lock.
func (h *htpasswd) load() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	state, err := stateOf(h.file)
	if err != nil {
		return fmt.Errorf("reading the registry's users: %w", err)
	}
	if h.hashes != nil && state == h.seen {
		return nil
	}
	f, err := os.Open(h.file)
	if err != nil {
		return fmt.Errorf("reading the registry's users: %w", err)
	}
	defer f.Close()
	hashes := map[string][][]byte{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return fmt.Errorf("reading the registry's users: %s:%d is not a user with a bcrypt hash", h.file, n)
		}
		hashes[user] = append(hashes[user], []byte(hash))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the registry's users: %w", err)
	}
	if h.key == nil {
		h.key = make([]byte, sha256.Size)
		if _, err := rand.Read(h.key); err != nil {
			return fmt.Errorf("reading the registry's users: %w", err)
		}
		// Unknown users take as long as known ones.
		if h.dummy, err = bcrypt.GenerateFromPassword(h.key[:16], bcrypt.DefaultCost); err != nil {
			return fmt.Errorf("reading the registry's users: %w", err)
		}
	}
	h.hashes, h.seen, h.passed = hashes, state, map[[sha256.Size]byte]bool{}
	return nil
}

func (h *htpasswd) check(user, password string) bool {
	// A file that is being replaced is read by the next request.
	_ = h.load()
	h.mu.Lock()
	mac := hmac.New(sha256.New, h.key)
	fmt.Fprintf(mac, "%d:%s:%s", len(user), user, password)
	sum := [sha256.Size]byte(mac.Sum(nil))
	hashes := h.hashes[user]
	seen, passed := h.seen, h.passed[sum]
	h.mu.Unlock()
	if passed {
		return true
	}
	known := len(hashes) > 0
	if !known {
		hashes = [][]byte{h.dummy}
	}
	fits := func(hash []byte) bool { return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil }
	if !slices.ContainsFunc(hashes, fits) || !known {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen == seen && len(h.passed) < maxPassed {
		h.passed[sum] = true
	}
	return true
}

// certificate is a key pair that is read again when its files change.
type certificate struct {
	cert, key string

	mu      sync.Mutex
	seen    [2]fileState
	current *tls.Certificate
}

// get implements tls.Config.GetCertificate. A pair that cannot be read leaves
// the one before in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cs, err1 := stateOf(c.cert)
	ks, err2 := stateOf(c.key)
	now := [2]fileState{cs, ks}
	if c.current != nil && (err1 != nil || err2 != nil || now == c.seen) {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		if c.current != nil {
			return c.current, nil
		}
		return nil, fmt.Errorf("reading the registry's certificate: %w", err)
	}
	c.current, c.seen = &pair, now
	return c.current, nil
}
