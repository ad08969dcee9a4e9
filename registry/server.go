// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"

	// The storage driver registers itself under the name "filesystem".
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// ServerOptions configure Serve.
type ServerOptions struct {
	// Dir is the folder that Publish wrote to. It is created where missing.
	Dir string
	// Address is host:port; port 0 takes a free one, see Ready.
	Address string
	// CertFile and KeyFile hold the server's certificate, with its chain, and
	// its key, as PEM. They are read again when they change. Without them the server
	// speaks plain HTTP, which it does on loopback addresses only.
	CertFile, KeyFile string
	// HtpasswdFile lists who may use the registry, with bcrypt hashes. It is
	// read again when it changes. The same credentials serve to pull and to push.
	// Without it nobody is asked for credentials.
	HtpasswdFile string
	// AnonymousPull lets everybody pull; HtpasswdFile is then for pushes.
	AnonymousPull bool
	// ReadOnly refuses pushes.
	ReadOnly bool
	// PurgeUploads clears away what pushes that were cut have left, after a day. What does so never ends: this is for a
	// process that serves until its own end.
	PurgeUploads bool
	// Peers are registries to be kept equal with; nil: there are none.
	Peers *Peers
	// AccessLog gets a line for each request, in Common Log Format without
	// queries. ErrorLog gets the server's own troubles. nil is silence.
	AccessLog, ErrorLog io.Writer
	// Ready is called with the address once the server accepts connections. It may be nil.
	Ready func(net.Addr)
}

// drainTime is how long requests may go on after the server was told to stop.
const drainTime = 10 * time.Second

// Serve runs a registry until ctx ends; it then lets requests finish for up to
// ten seconds and returns nil.
//
// A repository is asked for in any of these ways, and the first that has the
// manifest or blob answers: with ?ns=DOMAIN, as containerd asks its mirrors,
// <domain>/<path>; <path> as it stands; and <path> on docker.io, as Docker
// asks its mirrors.
func Serve(ctx context.Context, o ServerOptions) (err error) {
	if o.Dir == "" || o.Address == "" {
		return errors.New("serving images: the folder or the address is missing")
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("serving images: a certificate needs a key, and a key a certificate")
	}
	if o.CertFile == "" && !loopbackAddress(o.Address) {
		return fmt.Errorf("serving images on %s: beyond loopback that needs a certificate", o.Address)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("serving images: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(treeRoot), "repositories"), 0o755); err != nil {
		return fmt.Errorf("serving images: %w", err)
	}
	srv, err := newServer(ctx, o, dir)
	if err != nil {
		return fmt.Errorf("serving images: %w", err)
	}
	defer func() { err = errors.Join(err, srv.app.Shutdown()) }()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return fmt.Errorf("serving images on %s: %w", o.Address, err)
	}
	if srv.replicator != nil {
		var replicating sync.WaitGroup
		stop, cancel := context.WithCancel(ctx)
		replicating.Go(func() { srv.replicator.run(stop) })
		defer func() { cancel(); replicating.Wait() }()
	}
	done := make(chan error, 1)
	go func() {
		if o.CertFile != "" {
			done <- srv.http.ServeTLS(ln, "", "")
			return
		}
		done <- srv.http.Serve(ln)
	}()
	if o.Ready != nil {
		o.Ready(ln.Addr())
	}
	select {
	case err := <-done:
		return fmt.Errorf("serving images on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	srv.fresh.closeAll()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := srv.http.Shutdown(stopCtx); err != nil {
		// Whoever is still connected has had the time there is.
		_ = srv.http.Close()
	}
	<-done //nolint:errcheck // http.ErrServerClosed, by the lines above
	return nil
}

func loopbackAddress(address string) bool {
	host := hostname(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type server struct {
	app        *handlers.App
	http       *http.Server
	fresh      freshConns
	replicator *replicator // nil without peers
}

// freshConns are connections on which nothing was asked yet. Clients open some
// in reserve, and Shutdown would wait five seconds for their first request.
type freshConns struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (f *freshConns) note(c net.Conn, s http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		f.conns = map[net.Conn]bool{}
	}
	if s == http.StateNew {
		f.conns[c] = true
		return
	}
	delete(f.conns, c)
}

func (f *freshConns) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close() // it has carried nothing
	}
}

func newServer(ctx context.Context, o ServerOptions, dir string) (*server, error) {
	errorLog := o.ErrorLog
	if errorLog == nil {
		errorLog = io.Discard
	}
	// Requests carry this context too; their own end when the client goes.
	ctx = withDistributionLog(context.WithoutCancel(ctx), errorLog)
	app, err := newApp(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	var handler http.Handler = &locator{next: app, repositories: filepath.Join(dir, filepath.FromSlash(treeRoot), "repositories")}
	s := &server{app: app}
	if o.Peers != nil {
		s.replicator = newReplicator(handler, *o.Peers, dir, errorLog)
		handler = s.replicator
	}
	if o.HtpasswdFile != "" {
		h := &htpasswd{file: o.HtpasswdFile}
		if err := h.load(); err != nil {
			return nil, err
		}
		handler = &gate{next: handler, users: h, anonymousPull: o.AnonymousPull}
	}
	if o.AccessLog != nil {
		handler = &accessLog{next: handler, out: o.AccessLog}
	}
	s.http = &http.Server{
		ConnState:         s.fresh.note,
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(errorLog, "", log.LstdFlags),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if o.CertFile != "" {
		c := &certificate{cert: o.CertFile, key: o.KeyFile}
		if _, err := c.get(nil); err != nil {
			return nil, err
		}
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	}
	return s, nil
}

// newApp makes distribution's handlers, which panic on what they do not like.
func newApp(ctx context.Context, o ServerOptions, dir string) (app *handlers.App, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("starting the registry: %v", p)
		}
	}()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": dir},
			"redirect":   configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{
				"uploadpurging": map[any]any{"enabled": o.PurgeUploads, "age": "24h", "interval": "6h", "dryrun": false},
				"readonly":      map[any]any{"enabled": o.ReadOnly},
			},
		},
	}
	config.HTTP.Addr = o.Address
	config.HTTP.RelativeURLs = true
	// It signs the state of uploads; one that a restart cuts starts over.
	config.HTTP.Secret = rand.Text()
	// Indexes are served, and may be pushed, of which one platform is here.
	config.Validation.Disabled = true
	return handlers.NewApp(ctx, config), nil
}
