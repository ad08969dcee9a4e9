// SPDX-License-Identifier: Apache-2.0

// Package registry moves images between registries and the local store, and
// serves a store's images to the hosts of a cluster.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sealerio/sealer/internal/secret"
)

// Options configure a Client. The zero value is ready for use.
type Options struct {
	// Mirrors say where to ask for the images of a domain: docker.io →
	// https://mirror.corp/hub. A path in the URL is a prefix of the repository.
	// The mirror is asked instead of the domain's own registry, which is then
	// never contacted. Names stay what they are.
	Mirrors map[string]string
	// Insecure lists the hosts (host or host:port) whose certificate is not
	// checked, and that may be asked in plain HTTP where they do not answer
	// HTTPS. Loopback hosts may always be asked in plain HTTP.
	Insecure []string
	// CertsDir has a folder for each host with an authority of its own: HOST/*.crt,
	// and HOST/*.cert with *.key for client certificates. The default is
	// /etc/docker/certs.d.
	CertsDir string
	// Authorities have signed the certificates of hosts (host or host:port, as in references), in PEM, besides those that this
	// machine trusts and those of CertsDir.
	Authorities map[string][]byte
	// Dial makes the connections; proxies are then not asked. The default is the network of this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Jobs is how many blobs are in transfer at once. The default is 8. Four blobs of less than 1 MiB, and four questions,
	// count as one: what they take is not the network but the time until the registry answers.
	Jobs int
	// AuthDir is the folder of docker's config.json. The default is
	// $DOCKER_CONFIG, then ~/.docker; where that has none, podman's auth.json is read.
	AuthDir string
	// Logins are used for their repositories instead of what AuthDir has. They are kept in memory alone, and never sent to a
	// mirror.
	Logins []Login
	// Logger gets what was retried and why. The default is silence.
	Logger *slog.Logger
	// Track is told of every blob in transfer. The default is silence.
	Track TrackFunc
	// Transport is the lowest layer, for tests. The default is Go's own, with
	// proxies from the environment.
	Transport http.RoundTripper

	// StallTimeout ends a request in which no byte moves. The default is 30 s.
	StallTimeout time.Duration
	// Retries is how often a request is sent again without progress before it
	// fails. The default is 5; negative is never.
	Retries int
	// Backoff is the wait before the first retry; it doubles, up to 15 s, and a
	// server's Retry-After overrides it. The default is 500 ms.
	Backoff time.Duration
	// UserAgent names the program to registries. The default is "sealer".
	UserAgent string
}

// Login is a user of one registry.
type Login struct {
	Host         string   // docker.io, registry.example.com:5000
	Repositories []string // without the host: team/app; none: all of them
	Username     string
	Password     secret.Text
}

// TrackFunc starts the display of a transfer of total bytes. It may be called
// from several goroutines.
type TrackFunc func(name string, total int64) Tracker

// Tracker is one transfer. Advance is called from one goroutine at a time;
// Done once, at the end.
type Tracker interface {
	Advance(n int64)
	Done(err error)
}

type silentTracker struct{}

func (silentTracker) Advance(int64) {}
func (silentTracker) Done(error)    {}

const (
	defaultJobs    = 8
	defaultStall   = 30 * time.Second
	defaultRetries = 5
	defaultBackoff = 500 * time.Millisecond

	// smallTransfer is the size in bytes up to which a transfer waits for the registry more than for its bytes, and
	// perJob is how many of those count as one job.
	smallTransfer = 1 << 20
	perJob        = 4
)

// Client talks to registries. It is safe for concurrent use; what it learned
// of a registry (scheme, tokens) is kept for its lifetime. Close lets idle
// connections go, which otherwise end after a minute.
type Client struct {
	o    Options
	base http.RoundTripper
	// transports are nil where Options.Transport is set.
	transports *hostTransports
	mirrors    map[string]mirror
	keys       keychain
	slots      *semaphore.Weighted
	flights    flights
	// buffers and smallBuffers are of *[]byte, shared by all transfers.
	buffers, smallBuffers sync.Pool
	mu                    sync.Mutex
	hosts                 map[string]*hostState
	sessions              map[string]*session
}

// mirror is a parsed entry of Options.Mirrors.
type mirror struct {
	url    string // as given, for messages
	host   string
	prefix string // "" or "a/b"
}

// NewClient checks the options and reports every mistake in them.
func NewClient(o Options) (*Client, error) {
	if o.Jobs == 0 {
		o.Jobs = defaultJobs
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = defaultStall
	}
	if o.Retries == 0 {
		o.Retries = defaultRetries
	}
	if o.Backoff == 0 {
		o.Backoff = defaultBackoff
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Track == nil {
		o.Track = func(string, int64) Tracker { return silentTracker{} }
	}
	if o.CertsDir == "" {
		o.CertsDir = "/etc/docker/certs.d"
	}
	if o.UserAgent == "" {
		o.UserAgent = "sealer"
	}
	if o.Jobs < 0 {
		return nil, fmt.Errorf("registry client: %d jobs", o.Jobs)
	}
	c := &Client{
		o:        o,
		mirrors:  map[string]mirror{},
		keys:     keychain{dir: o.AuthDir},
		slots:    semaphore.NewWeighted(int64(o.Jobs) * perJob),
		hosts:    map[string]*hostState{},
		sessions: map[string]*session{},
	}
	c.base = &guard{next: o.Transport, allowed: c.plainAllowed, userAgent: o.UserAgent}
	if o.Transport == nil {
		c.transports = &hostTransports{
			jobs: o.Jobs, certsDir: o.CertsDir, insecure: c.listedInsecure,
			authorities: o.Authorities, dial: o.Dial,
			common: newTransport(o.Jobs, &tls.Config{MinVersion: tls.VersionTLS12}, o.Dial),
		}
		c.base = &guard{byHost: c.transports, allowed: c.plainAllowed, userAgent: o.UserAgent}
	}
	var errs []error
	for domain, raw := range o.Mirrors {
		m, err := c.parseMirror(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("mirror %s=%s: %w", domain, redactURL(raw), err))
			continue
		}
		c.mirrors[canonicalDomain(domain)] = m
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) parseMirror(raw string) (mirror, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return mirror{}, errors.New("it is not a URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return mirror{}, errors.New("it is not a URL with http:// or https:// and a host")
	case u.User != nil:
		return mirror{}, errors.New("it has credentials in the URL; keep them with sealer login")
	case u.RawQuery != "" || u.Fragment != "":
		return mirror{}, errors.New("it has a query or a fragment")
	case u.Scheme == "http" && !c.plainAllowed(u.Host):
		return mirror{}, &InsecureError{Host: u.Host}
	}
	prefix := strings.Trim(u.Path, "/")
	prefix = strings.Trim(strings.TrimPrefix(prefix+"/", "v2/"), "/")
	return mirror{url: u.String(), host: u.Host, prefix: prefix}, nil
}

// redactURL is what may be shown of a URL that did not parse or has a password.
func redactURL(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return "(not a URL)"
}

// canonicalDomain gives Docker Hub's names one form.
func canonicalDomain(d string) string {
	switch d = strings.ToLower(d); d {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return d
}

// plainAllowed tells whether a host may be asked in plain HTTP.
func (c *Client) plainAllowed(host string) bool {
	name := hostname(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if ip := net.ParseIP(name); ip != nil && ip.IsLoopback() {
		return true
	}
	return c.listedInsecure(host)
}

// listedInsecure tells whether the options list a host as insecure.
func (c *Client) listedInsecure(host string) bool {
	name := hostname(host)
	for _, in := range c.o.Insecure {
		if strings.EqualFold(in, host) || strings.EqualFold(in, name) {
			return true
		}
	}
	return false
}

// hostname is a host without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// Close closes idle connections. The client may be used again.
func (c *Client) Close() {
	if c.transports != nil {
		c.transports.closeIdle()
	}
}

// acquire takes what a transfer of size bytes takes of the jobs; release gives it back.
func (c *Client) acquire(ctx context.Context, size int64) (release func(), err error) {
	n := int64(perJob)
	if size <= smallTransfer {
		n = 1
	}
	if err := c.slots.Acquire(ctx, n); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { c.slots.Release(n) }, nil
}

// questions is how many small things are asked for at once.
func (c *Client) questions() int { return perJob * c.o.Jobs }
