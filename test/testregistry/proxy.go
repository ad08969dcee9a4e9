// SPDX-License-Identifier: Apache-2.0

package testregistry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong for some requests.
type Fault struct {
	// Method and Path choose the requests; a zero value fits all. Path is matched anywhere in the path of the URL.
	Method string
	Path   *regexp.Regexp
	// Times is how many requests it hits; 0 is all of them.
	Times int
	// Effect is what happens to them.
	Effect Effect
}

// Effect changes how a request is answered.
type Effect func(next http.Handler) http.Handler

// Status answers with a status and an empty list of errors instead of asking the registry. A header may follow, as
// name and value in turn, such as "Retry-After", "1".
func Status(code int, header ...string) Effect {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for pair := range slices.Chunk(header, 2) {
				if len(pair) == 2 {
					w.Header().Set(pair[0], pair[1])
				}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"errors":[]}`) // a client that has gone misses nothing
		})
	}
}

// CutAfter sends the first bytes of the answer's body and then drops the connection. With 0 the header still arrives.
func CutAfter(bytes int64) Effect {
	return limited(bytes, func(*http.Request) { panic(http.ErrAbortHandler) })
}

// StallAfter sends the first bytes of the answer's body and then nothing, until the client gives up or the proxy is
// closed.
func StallAfter(bytes int64) Effect {
	return limited(bytes, func(r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

func limited(bytes int64, then func(*http.Request)) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left := bytes
			body := writerFunc{ResponseWriter: w}
			body.write = func(p []byte) (int, error) {
				if int64(len(p)) <= left {
					left -= int64(len(p))
					return w.Write(p)
				}
				if _, err := w.Write(p[:left]); err != nil {
					return 0, err
				}
				left = 0
				if err := http.NewResponseController(w).Flush(); err != nil {
					return 0, err
				}
				then(r)
				return 0, errors.New("the answer ends here")
			}
			next.ServeHTTP(body, r)
		})
	}
}

// FlipByte serves wrong bytes of the right length: the one at an offset of the answer's body is another one.
func FlipByte(offset int64) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var sent int64
			body := writerFunc{ResponseWriter: w}
			body.write = func(p []byte) (int, error) {
				if at := offset - sent; at >= 0 && at < int64(len(p)) {
					p = slices.Clone(p) // a writer may not change what it is given
					p[at] ^= 0xff
				}
				n, err := w.Write(p)
				sent += int64(n)
				return n, err
			}
			next.ServeHTTP(body, r)
		})
	}
}

// IgnoreRange answers as a registry does that cannot send parts: with the whole blob.
func IgnoreRange() Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		})
	}
}

// CutUploadAfter reads the first bytes of the request's body and then drops both connections.
func CutUploadAfter(bytes int64) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.Body = &cutBody{ReadCloser: r.Body, left: bytes}
			next.ServeHTTP(w, r)
		})
	}
}

// Delay waits before it asks the registry.
func Delay(d time.Duration) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-timer.C:
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Request is one request as it reached the proxy.
type Request struct {
	Method, Path, Query, Range string
}

// Proxy stands in front of a registry, counts requests and injects faults.
type Proxy struct {
	// Address is its host and port, as in image references; URL is how to reach it.
	Address, URL string
	// CA is a certificate in PEM to trust, if it serves HTTPS.
	CA []byte

	server *http.Server
	served chan error

	mu       sync.Mutex
	faults   []*Fault
	hits     map[*Fault]int
	requests []Request

	sent, received atomic.Int64
}

// ProxyOptions say how a proxy runs. The zero value serves HTTP on a free loopback port.
type ProxyOptions struct {
	// Address is where it listens. The default is 127.0.0.1:0; port 0 is any free one.
	Address string
	// Transport reaches the registry. The default is http.DefaultTransport, which does not trust a test's certificate.
	Transport http.RoundTripper
	// TLS makes the proxy serve HTTPS, with a certificate that Proxy.CA verifies.
	TLS bool
}

// NewProxy starts a proxy for the registry at an URL. Close stops it.
func NewProxy(ctx context.Context, registry string, o ProxyOptions) (*Proxy, error) {
	upstream, err := url.Parse(registry)
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	silent := log.New(io.Discard, "", 0) // faults are no news
	p := &Proxy{Address: listener.Addr().String(), hits: map[*Fault]int{}, served: make(chan error, 1)}
	p.URL = "http://" + p.Address
	if o.TLS {
		pair, err := p.certify()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("starting a proxy: %w", err), listener.Close())
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host // else redirects and realms would lead past the proxy
		},
		Transport: o.Transport,
		ErrorLog:  silent,
		// To the client a registry that cannot be reached looks like one that hangs up.
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		FlushInterval: -1,
	}
	p.server = &http.Server{Handler: p.handler(forward), ErrorLog: silent, ReadHeaderTimeout: time.Minute}
	go func() { p.served <- p.server.Serve(listener) }()
	return p, nil
}

func (p *Proxy) certify() (tls.Certificate, error) {
	certificate, key, err := SelfSigned(p.Address, "")
	if err != nil {
		return tls.Certificate{}, err
	}
	p.CA, p.URL = certificate, "https://"+p.Address
	return tls.X509KeyPair(certificate, key)
}

// Close stops the proxy and cuts every connection.
func (p *Proxy) Close() error {
	if err := errors.Join(p.server.Close(), notClosed(<-p.served)); err != nil {
		return fmt.Errorf("stopping the proxy: %w", err)
	}
	return nil
}

func notClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Inject adds faults. A request that several fit is hit by the first that has not been used up.
func (p *Proxy) Inject(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range faults {
		p.faults = append(p.faults, &f)
	}
}

// Heal removes all faults.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	clear(p.hits)
}

// Requests returns what was asked for since the start or the last Reset, in the order of arrival.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Counts tells how often each request came, without regard to queries.
func (p *Proxy) Counts() map[Request]int {
	counts := map[Request]int{}
	for _, r := range p.Requests() {
		r.Query = ""
		counts[r]++
	}
	return counts
}

// Count tells how many requests had a method and a path that an expression matches. An empty method fits all.
func (p *Proxy) Count(method, path string) int {
	expression := regexp.MustCompile(path)
	var n int
	for _, r := range p.Requests() {
		if (method == "" || r.Method == method) && expression.MatchString(r.Path) {
			n++
		}
	}
	return n
}

// Sent and Received are the bytes of bodies that went to clients and came from them.
func (p *Proxy) Sent() int64 { return p.sent.Load() }

// Received is the other direction of Sent.
func (p *Proxy) Received() int64 { return p.received.Load() }

// Reset forgets requests and bytes, but no faults.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
	p.sent.Store(0)
	p.received.Store(0)
}

func (p *Proxy) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler := forward
		if effect := p.arrive(r); effect != nil {
			handler = effect(forward)
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &countedBody{ReadCloser: r.Body, count: &p.received}
		}
		body := writerFunc{ResponseWriter: w}
		body.write = func(b []byte) (int, error) {
			n, err := w.Write(b)
			p.sent.Add(int64(n))
			return n, err
		}
		handler.ServeHTTP(body, r)
	})
}

// arrive notes a request and returns what is to happen to it.
func (p *Proxy) arrive(r *http.Request) Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Range: r.Header.Get("Range"),
	})
	for _, f := range p.faults {
		fits := (f.Method == "" || f.Method == r.Method) && (f.Path == nil || f.Path.MatchString(r.URL.Path))
		if fits && (f.Times == 0 || p.hits[f] < f.Times) {
			p.hits[f]++
			return f.Effect
		}
	}
	return nil
}

// String describes a request for messages of failed tests.
func (r Request) String() string {
	text := r.Method + " " + r.Path
	if r.Query != "" {
		text += "?" + r.Query
	}
	if r.Range != "" {
		text += " (" + r.Range + ")"
	}
	return strconv.Quote(text)
}

type writerFunc struct {
	http.ResponseWriter
	write func([]byte) (int, error)
}

func (w writerFunc) Write(p []byte) (int, error) { return w.write(p) }

// Unwrap lets http.ResponseController flush.
func (w writerFunc) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type countedBody struct {
	io.ReadCloser
	count *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	return n, err
}

type cutBody struct {
	io.ReadCloser
	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
