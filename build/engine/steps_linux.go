// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"os/exec"
	"sync"
	"time"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/resources"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/executor/runcexecutor"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
)

// steps runs RUN instructions. It looks for a runtime at the first of them, so that a build without RUN needs none, and
// it knows which still run, so that Close can wait for them: BuildKit's client returns before a cancelled step is gone.
type steps struct {
	opt      Options
	dir      string
	networks map[pb.NetMode]network.Provider
	monitor  *resources.Monitor

	mu      sync.Mutex
	inner   executor.Executor
	running sync.WaitGroup
}

func newSteps(o Options, dir string, networks map[pb.NetMode]network.Provider, monitor *resources.Monitor) *steps {
	return &steps{opt: o, dir: dir, networks: networks, monitor: monitor}
}

func (s *steps) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	s.running.Add(1)
	defer s.running.Done()
	inner, err := s.choose()
	if err != nil {
		if started != nil {
			close(started)
		}
		return nil, err
	}
	return inner.Run(ctx, id, root, mounts, p, started)
}

func (s *steps) Exec(ctx context.Context, id string, p executor.ProcessInfo) error {
	s.running.Add(1)
	defer s.running.Done()
	inner, err := s.choose()
	if err != nil {
		return err
	}
	return inner.Exec(ctx, id, p)
}

func (s *steps) choose() (executor.Executor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inner != nil {
		return s.inner, nil
	}
	isolation := s.opt.Isolation
	if isolation == Auto {
		isolation = Chroot
		switch {
		case Rootless(): // runc wants ids and devices that a user namespace does not have everywhere
		case hasRunc():
			isolation = Runc
		default:
			s.opt.notice("no runc here: RUN steps run in a changed root with namespaces of their own (--isolation=chroot)")
		}
	}
	var err error
	if isolation == Chroot {
		s.inner, err = newChrootExecutor(s.dir, s.networks)
	} else {
		s.inner, err = newRuncExecutor(s.dir, s.networks, s.monitor)
	}
	return s.inner, err
}

func hasRunc() bool {
	for _, name := range []string{"buildkit-runc", "runc"} {
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}

func newRuncExecutor(dir string, networks map[pb.NetMode]network.Provider, monitor *resources.Monitor) (executor.Executor, error) {
	if !hasRunc() {
		return nil, &RuntimeError{}
	}
	return runcexecutor.New(runcexecutor.Opt{Root: dir, ResourceMonitor: monitor}, networks)
}

// RuntimeError is returned by a RUN step under Runc where there is none.
type RuntimeError struct{}

func (*RuntimeError) Error() string { return "isolation runc: there is no runc on this machine" }

// Hint says what to do instead.
func (*RuntimeError) Hint() string { return "install runc, or build with --isolation=chroot" }

// wait waits for the steps that run, and says whether all of them ended in time.
func (s *steps) wait(limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
