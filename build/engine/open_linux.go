// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/gofrs/flock"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	"github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/grpcerrors"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the codec that buildkitd registers too: fewer copies
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/moby/buildkit/worker"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const stepGrace = 15 * time.Second // how long Close waits for RUN steps that were told to stop

// Engine is BuildKit in this process.
type Engine struct {
	opt    Options
	lock   *flock.Flock
	worker *buildWorker
	ctrl   *control.Controller
	server *grpc.Server
	builds buildCounter
	pipe   *pipeListener
	client *client.Client
	stop   chan struct{}
	begun  bool // see begin
	once   sync.Once
	err    error
}

// Open starts an engine on o.Root, after it waited for the process that has it. The caller closes it.
func Open(ctx context.Context, o Options) (*Engine, error) {
	tuneGRPC()
	quieten()
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("opening the build state: %w", err)
	}
	o.Root = root
	if o.Isolation == "" {
		o.Isolation = Auto
	}
	if o.Epoch.IsZero() {
		o.Epoch = time.Unix(0, 0)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("opening the build state: %w", err)
	}
	if err := mayMount(); err != nil {
		return nil, err
	}
	lock, err := lockState(ctx, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{opt: o, lock: lock, stop: make(chan struct{})}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the build engine in %q: %w", root, err), e.Close())
	}
	return e, nil
}

// mayMount asks for the one privilege that everything here needs.
func mayMount() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return &PermissionError{Err: err}
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return &PermissionError{Err: errors.New("this process may not mount file systems")}
	}
	return nil
}

func (e *Engine) start(ctx context.Context) error {
	sessions, err := session.NewManager()
	if err != nil {
		return err
	}
	unsynced, err := e.begin()
	if err != nil {
		return err
	}
	e.begun = true
	hosts := registryHosts(e.opt.Registries)
	if e.worker, err = openWorker(ctx, e.opt, hosts, unsynced); err != nil {
		return err
	}
	if e.ctrl, err = e.newController(ctx, sessions, hosts, unsynced); err != nil {
		return err
	}
	e.server = grpc.NewServer(
		// These interceptors carry the Kubefile's lines in errors.
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.StatsHandler(&e.builds),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize))
	e.ctrl.Register(e.server)
	e.pipe = newPipeListener()
	go func() { _ = e.server.Serve(e.pipe) }()
	e.client, err = e.connect(ctx, sessions)
	return err
}

func registryHosts(in map[string]RegistryHost) docker.RegistryHosts {
	out := make(map[string]resolverconfig.RegistryConfig, len(in))
	for name, h := range in {
		c := resolverconfig.RegistryConfig{Mirrors: h.Mirrors}
		if h.PlainHTTP {
			c.PlainHTTP = &h.PlainHTTP
		}
		out[name] = c
	}
	return resolver.NewRegistryConfig(out)
}

func (e *Engine) newController(ctx context.Context, sessions *session.Manager, hosts docker.RegistryHosts, unsynced bool) (*control.Controller, error) {
	wc := &worker.Controller{}
	if err := wc.Add(e.worker); err != nil {
		return nil, err
	}
	gw, err := gateway.NewGatewayFrontend(wc.Infos(), nil)
	if err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(e.opt.Root, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := boltutil.SafeOpen(filepath.Join(e.opt.Root, "history.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: unsynced})
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	none := int64(0) // a record of past builds would hold their blobs
	return control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: wc,
		Frontends:        map[string]frontend.Frontend{"gateway.v0": gw},
		CacheManager:     solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(wc)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(sessions, hosts),
			"local":    local.ResolveCacheExporterFunc(sessions),
			"inline":   inline.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(sessions, e.worker.ContentStore(), hosts),
			"local":    local.ResolveCacheImporterFunc(sessions),
		},
		Entitlements:   []string{"network.host"},
		HistoryDB:      history,
		HistoryConfig:  &config.HistoryConfig{MaxEntries: &none},
		CacheStore:     cache,
		LeaseManager:   e.worker.LeaseManager(),
		ContentStore:   e.worker.ContentStore(),
		GarbageCollect: e.worker.GarbageCollect,
		GracefulStop:   e.stop,
	})
}

// Client talks to the engine. It ends with the engine.
func (e *Engine) Client() *client.Client { return e.client }

// Serve lets other processes build here, as with a BuildKit daemon, until ctx ends. It closes l.
func (e *Engine) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := e.server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving builds on %s: %w", l.Addr(), err)
	}
	return nil
}

// Close stops what runs, waits for it and leaves nothing behind: no process, no mount, no lock. It may be called twice.
func (e *Engine) Close() error {
	e.once.Do(func() { e.err = e.close() })
	return e.err
}

func (e *Engine) close() error {
	var errs []error
	close(e.stop)
	if e.client != nil {
		errs = append(errs, e.client.Close())
	}
	if e.server != nil {
		e.server.Stop()
	}
	if e.worker != nil {
		if !e.worker.steps.wait(stepGrace) {
			errs = append(errs, fmt.Errorf("a RUN step still runs after %s", stepGrace))
		}
		e.worker.forget()
	}
	if e.ctrl != nil {
		errs = append(errs, closing("cache", e.ctrl.Close()))
	}
	if e.worker != nil {
		errs = append(errs, closing("worker", e.worker.close(e.ctrl == nil)))
	}
	if e.begun && errors.Join(errs...) == nil {
		errs = append(errs, e.end())
	}
	errs = append(errs, e.lock.Unlock())
	return errors.Join(errs...)
}

func closing(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("closing the %s: %w", what, err)
}
