// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// guard stands below everything that sends a request: token servers, redirects
// and upload locations pass it too. It refuses plain HTTP to hosts that are
// not allowed it, whoever asks.
type guard struct {
	next      http.RoundTripper
	byHost    *hostTransports // nil: next serves every host
	allowed   func(host string) bool
	userAgent string
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.allowed(r.URL.Host) {
		return nil, &InsecureError{Host: r.URL.Host}
	}
	if r.Header.Get("User-Agent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", g.userAgent)
	}
	if g.byHost == nil {
		return g.next.RoundTrip(r)
	}
	next, err := g.byHost.get(r.URL.Host)
	if err != nil {
		return nil, &permanentError{err}
	}
	return next.RoundTrip(r)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newTransport is Go's own transport, for many connections to few hosts.
// dial is nil for this machine's network.
func newTransport(jobs int, config *tls.Config, dial dialFunc) *http.Transport {
	dialer := &net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	proxy := http.ProxyFromEnvironment
	if dial == nil {
		dial = dialFiles(dialer)
	} else {
		proxy = nil
	}
	return &http.Transport{
		Proxy:               proxy,
		DialContext:         dial,
		ForceAttemptHTTP2:   true,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 15 * time.Second,
		MaxIdleConns:        4 * perJob * jobs,
		MaxIdleConnsPerHost: 2 * perJob * jobs, // lookups run beside transfers
		IdleConnTimeout:     60 * time.Second,
		// Blobs come as they are stored; a registry that compressed on the way
		// would break Range.
		DisableCompression: true,
		ReadBufferSize:     16 << 10, // blobs are read past it, into larger ones
		WriteBufferSize:    64 << 10,
	}
}

// hostTransports are transports for hosts with certificates of their own, and
// one for all others.
type hostTransports struct {
	jobs        int
	certsDir    string
	authorities map[string][]byte
	dial        dialFunc
	insecure    func(host string) bool
	common      *http.Transport

	mu    sync.Mutex
	hosts map[string]*http.Transport
}

func (h *hostTransports) get(host string) (*http.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.hosts[host]; ok {
		return t, nil
	}
	config, err := hostCertificates(filepath.Join(h.certsDir, host))
	if err == nil && h.authorities[host] != nil {
		config, err = withAuthority(config, h.authorities[host])
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificates for %s: %w", host, err)
	}
	t := h.common
	if h.insecure(host) {
		// As good as the plain HTTP that was allowed.
		config = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} //nolint:gosec // asked for by the user, for this host
	}
	if config != nil {
		t = newTransport(h.jobs, config, h.dial)
	}
	if h.hosts == nil {
		h.hosts = map[string]*http.Transport{}
	}
	h.hosts[host] = t
	return t, nil
}

func (h *hostTransports) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.common.CloseIdleConnections()
	for _, t := range h.hosts {
		t.CloseIdleConnections()
	}
}

// hostCertificates reads a folder as Docker does: *.crt are authorities, and
// each *.cert with its *.key is a client certificate. nil where there is no folder.
// See https://docs.docker.com/engine/security/certificates/
func hostCertificates(dir string) (*tls.Config, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if config, err = withAuthority(config, data); err != nil {
				return nil, fmt.Errorf("%q: %w", path, err)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return nil, err
			}
			config.Certificates = append(config.Certificates, pair)
		}
	}
	return config, nil
}

// withAuthority is the configuration, nil for Go's own, that trusts certificates besides.
func withAuthority(config *tls.Config, certificates []byte) (*tls.Config, error) {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if config.RootCAs == nil {
		var err error
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	}
	if !config.RootCAs.AppendCertsFromPEM(certificates) {
		return nil, errors.New("it holds no certificate")
	}
	return config, nil
}
