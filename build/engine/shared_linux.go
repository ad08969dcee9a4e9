// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/process"
)

const (
	socketName = "builder.sock"
	servedName = "builder.json"
	maxServed  = 1 << 16
)

// Share serves the engine to other processes of the same user, on a socket (mode 0600) in its state folder, until ctx
// ends or nobody was connected for as long as idle says; 0 is for ever. Then it waits for those who are: now ends that
// wait. Connect finds the socket once ready was called; nil: nobody is told.
func (e *Engine) Share(ctx, now context.Context, idle time.Duration, ready func()) error {
	l, err := e.listen()
	if err != nil {
		return fmt.Errorf("serving builds: %w", err)
	}
	counted := newCountedListener(l)
	served := make(chan error, 1)
	go func() { served <- e.server.Serve(counted) }()
	stop, err := e.describe()
	if err == nil {
		if ready != nil {
			ready()
		}
		err = counted.wait(ctx, served, idle)
	}
	// From here on nobody finds the socket: who comes now builds in a process of its own, and waits for the folder.
	stop()
	_ = l.Close() // Serve may have closed it
	err = errors.Join(err, removeIfThere(filepath.Join(e.opt.Root, servedName)), removeIfThere(filepath.Join(e.opt.Root, socketName)))
	counted.drain(now)
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// listen makes the socket. It is named by way of the open folder: a socket's name holds 107 bytes.
func (e *Engine) listen() (net.Listener, error) {
	if err := removeIfThere(filepath.Join(e.opt.Root, socketName)); err != nil {
		return nil, err // the folder is locked: what is there belongs to nobody
	}
	dir, err := os.Open(e.opt.Root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketIn(dir), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by a name that is gone then
	// The folder is ours alone (0700), so nobody was quicker.
	if err := os.Chmod(filepath.Join(e.opt.Root, socketName), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func socketIn(dir *os.File) string {
	return "/proc/self/fd/" + strconv.FormatUint(uint64(dir.Fd()), 10) + "/" + socketName
}

// describe says what others have to know, and keeps it up to date until stop is called.
func (e *Engine) describe() (stop func(), err error) {
	me := Served{
		PID: process.ID(), Command: e.opt.Command, Since: time.Now(), Epoch: e.opt.Epoch.Unix(),
		Isolation: e.opt.Isolation, Blobs: filepath.Join(e.worker.dir, "content", "blobs"),
	}
	err = e.writeServed(me)
	e.builds.watch(func(running int) {
		me.Builds = running
		_ = e.writeServed(me) // a number that cannot be written is one that is shown wrongly
	})
	return func() { e.builds.watch(nil) }, err
}

func (e *Engine) writeServed(s Served) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(e.opt.Root, servedName+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(e.opt.Root, servedName))
}

// countedListener knows how many connections are open.
type countedListener struct {
	net.Listener
	changed chan int
	gone    chan struct{} // closed when nobody listens to changed any more
	mu      sync.Mutex
	open    int
	empty   *sync.Cond
}

func newCountedListener(l net.Listener) *countedListener {
	c := &countedListener{Listener: l, changed: make(chan int), gone: make(chan struct{})}
	c.empty = sync.NewCond(&c.mu)
	return c
}

func (c *countedListener) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.add(1)
	return &countedConn{Conn: conn, end: sync.OnceFunc(func() { c.add(-1) })}, nil
}

func (c *countedListener) add(n int) {
	c.mu.Lock()
	c.open += n
	open := c.open
	if open == 0 {
		c.empty.Broadcast()
	}
	c.mu.Unlock()
	select {
	case c.changed <- open:
	case <-c.gone:
	}
}

type countedConn struct {
	net.Conn
	end func()
}

func (c *countedConn) Close() error {
	defer c.end()
	return c.Conn.Close()
}

// wait returns when ctx ends, when nobody was connected for idle, or when serving failed.
func (c *countedListener) wait(ctx context.Context, served <-chan error, idle time.Duration) error {
	defer close(c.gone)
	timer := time.NewTimer(idle)
	defer timer.Stop()
	if idle <= 0 {
		timer.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case err := <-served:
			return fmt.Errorf("serving builds: %w", err)
		case open := <-c.changed:
			if idle > 0 && open == 0 {
				timer.Reset(idle)
			} else {
				timer.Stop()
			}
		}
	}
}

// drain waits until every connection is closed.
func (c *countedListener) drain(now context.Context) {
	done := context.AfterFunc(now, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.empty.Broadcast()
	})
	defer done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 && now.Err() == nil {
		c.empty.Wait()
	}
}

// Shared is an engine of another process.
type Shared struct {
	Served
	client *client.Client
	root   string
	once   sync.Once
	err    error
}

// Connect finds the engine that serves the state folder root. nil: none does. The caller closes it.
func Connect(ctx context.Context, root string) (*Shared, error) {
	conn, err := dialShared(ctx, root)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("reaching the builder of %q: %w", root, err)
	}
	_ = conn.Close()
	s := &Shared{root: root}
	if err := s.read(); err != nil {
		if errors.Is(err, fs.ErrNotExist) { // it ends just now
			return nil, nil //nolint:nilnil // see above
		}
		return nil, fmt.Errorf("reaching the builder of %q: %w", root, err)
	}
	tuneGRPC()
	s.client, err = client.New(ctx, "passthrough:///shared", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return dialShared(ctx, root)
	}))
	if err != nil {
		return nil, fmt.Errorf("reaching the builder of %q: %w", root, err)
	}
	return s, nil
}

func dialShared(ctx context.Context, root string) (net.Conn, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return (&net.Dialer{}).DialContext(ctx, "unix", socketIn(dir))
}

func (s *Shared) read() error {
	f, err := os.Open(filepath.Join(s.root, servedName))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return json.NewDecoder(io.LimitReader(f, maxServed)).Decode(&s.Served)
}

// Client talks to the engine.
func (s *Shared) Client() *client.Client { return s.client }

// Close ends the connection, not the engine. It may be called twice.
func (s *Shared) Close() error {
	s.once.Do(func() { s.err = s.client.Close() })
	return s.err
}

// Output is dst as the target of an export, as Engine.Output is.
func (s *Shared) Output(dst content.Store, link LinkFunc) content.Store {
	return &linkStore{Store: dst, blobs: s.Blobs, link: link}
}

// Prune is Engine.Prune, without its look at the disk.
func (s *Shared) Prune(ctx context.Context, o PruneOptions) (int64, error) {
	opts := []client.PruneOption{client.PruneAll}
	switch {
	case o.Keep != nil && *o.Keep > 0:
		opts = append(opts, client.WithKeepOpt(o.Unused, 0, *o.Keep, 0))
	case o.All || o.Keep != nil || o.Unused > 0:
		opts = append(opts, client.WithKeepOpt(o.Unused, 0, 0, 0))
	default:
		opts = []client.PruneOption{client.WithKeepOpt(0, keepAlways, keepAtMost, 0)}
	}
	return countFreed(func(freed chan client.UsageInfo) error { return s.client.Prune(ctx, freed, opts...) })
}

// CacheSize is how many bytes the cache holds.
func (s *Shared) CacheSize(ctx context.Context) (int64, error) { return cacheSize(ctx, s.client) }

// Stop tells the engine to end: after the builds that run, or now. It returns when the engine is gone; s is
// closed then.
func (s *Shared) Stop(ctx context.Context, now bool) error {
	// Whom the kernel knows as the listener is the one, whatever a file says.
	pid, err := s.listener(ctx)
	if err != nil {
		return fmt.Errorf("finding the builder's process: %w", err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("finding the builder's process: %w", err)
	}
	sig := unix.SIGTERM
	if now {
		sig = unix.SIGUSR1
	}
	if err := process.Signal(sig); err != nil {
		return fmt.Errorf("stopping the builder (process %d): %w", pid, err)
	}
	if err := s.Close(); err != nil { // it waits for those who are connected
		return err
	}
	lock, err := lockState(ctx, Options{Root: s.root, Command: "waiting for the builder to stop"})
	if err != nil {
		return err
	}
	return lock.Unlock()
}

// listener is the process that made the socket.
func (s *Shared) listener(ctx context.Context) (int, error) {
	conn, err := dialShared(ctx, s.root)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("it is no socket but %T", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if cred.Pid <= 1 {
		return 0, fmt.Errorf("it runs where this process cannot see it")
	}
	return int(cred.Pid), nil
}
