// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// chrootExecutor runs steps without a container runtime: this binary, started again in new namespaces (stepMain),
// makes the mounts that BuildKit's runtime specification lists, changes the root and becomes the step.
type chrootExecutor struct {
	dir      string
	networks map[pb.NetMode]network.Provider
}

func newChrootExecutor(dir string, networks map[pb.NetMode]network.Provider) (*chrootExecutor, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("preparing RUN steps: %w", err)
	}
	return &chrootExecutor{dir: dir, networks: networks}, nil
}

func (c *chrootExecutor) Exec(context.Context, string, executor.ProcessInfo) error {
	return errors.New("isolation chroot cannot enter a step that runs")
}

func (c *chrootExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (_ resourcestypes.Recorder, err error) {
	begun := started == nil
	begin := func() {
		if !begun {
			begun = true
			close(started)
		}
	}
	defer begin()
	if id == "" {
		id = identity.NewID()
	}
	if err := executor.ValidContainerID(id); err != nil {
		return nil, err
	}
	bundle := filepath.Join(c.dir, id)
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o711); err != nil {
		return nil, fmt.Errorf("preparing a RUN step: %w", err)
	}
	defer func() { _ = os.RemoveAll(bundle) }()

	release, err := mountRoot(ctx, root, rootfs)
	if err != nil {
		return nil, err
	}
	defer release()
	defer executor.MountStubsCleaner(context.WithoutCancel(ctx), rootfs, mounts, p.Meta.RemoveMountStubsRecursive)()

	spec, release, err := c.specification(ctx, id, rootfs, root.Readonly, mounts, p.Meta)
	if err != nil {
		return nil, err
	}
	defer release()
	return nil, exitError(ctx, runStep(ctx, spec, p, begin), p.Meta.ValidExitCodes)
}

func mountRoot(ctx context.Context, root executor.Mount, dir string) (func(), error) {
	mountable, err := root.Src.Mount(ctx, false)
	if err != nil {
		return nil, err
	}
	mounts, release, err := mountable.Mount()
	if err != nil {
		return nil, err
	}
	if release == nil {
		release = func() error { return nil }
	}
	if err := mount.All(mounts, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting the root of a RUN step: %w", err), release())
	}
	return func() {
		_ = mount.Unmount(dir, 0)
		_ = release()
	}, nil
}

// specification is what BuildKit would hand to runc.
func (c *chrootExecutor) specification(ctx context.Context, id, rootfs string, readonly bool, mounts []executor.Mount, meta executor.Meta) (*specs.Spec, func(), error) {
	provider, ok := c.networks[meta.NetMode]
	if !ok {
		return nil, nil, fmt.Errorf("isolation chroot does not know the network mode %s", meta.NetMode)
	}
	ns, err := provider.New(ctx, meta.Hostname, network.NamespaceOptions{})
	if err != nil {
		return nil, nil, err
	}
	closers := []func(){func() { _ = ns.Close() }}
	release := func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
	}
	spec, err := func() (*specs.Spec, error) {
		state, err := os.OpenRoot(c.dir)
		if err != nil {
			return nil, err
		}
		closers = append(closers, func() { _ = state.Close() })
		resolv, err := oci.GetResolvConf(ctx, state, nil, nil, meta.NetMode)
		if err != nil {
			return nil, err
		}
		hosts, clean, err := oci.GetHostsFile(ctx, state, meta.ExtraHosts, nil, meta.Hostname)
		if err != nil {
			return nil, err
		}
		if clean != nil {
			closers = append(closers, clean)
		}
		uid, gid, groups, err := oci.GetUser(rootfs, meta.User)
		if err != nil {
			return nil, err
		}
		opts := []containerdoci.SpecOpts{oci.WithUIDGID(uid, gid, groups)}
		if readonly || meta.ReadonlyRootFS {
			opts = append(opts, containerdoci.WithRootFSReadonly())
		}
		spec, unmount, err := oci.GenerateSpec(ctx, meta, mounts, id, filepath.Join(c.dir, resolv), filepath.Join(c.dir, hosts),
			ns, "", oci.ProcessSandbox, nil, "", false, "", nil, opts...)
		if err != nil {
			return nil, err
		}
		closers = append(closers, unmount)
		spec.Root.Path = rootfs
		if Rootless() {
			fitUserNamespace(spec)
		}
		cwd, err := fs.RootPath(rootfs, meta.Cwd)
		if err != nil {
			return nil, fmt.Errorf("working directory %q: %w", meta.Cwd, err)
		}
		if err := os.MkdirAll(cwd, 0o755); err != nil {
			return nil, fmt.Errorf("working directory %q: %w", meta.Cwd, err)
		}
		return spec, nil
	}()
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("preparing a RUN step: %w", err)
	}
	return spec, release, nil
}

// fitUserNamespace changes mounts that a user namespace may not make: terminals of a group that it may not have, and the
// kernel's objects of a network that is not its own.
func fitUserNamespace(spec *specs.Spec) {
	for i, m := range spec.Mounts {
		switch m.Type {
		case "devpts":
			spec.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "gid=") })
		case "sysfs":
			spec.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: "/sys", Options: []string{"rbind"}}
		}
	}
}

// runStep starts the child that becomes the step, and waits for it. The child reads the specification on descriptor 3
// and writes on descriptor 4 what went wrong before the step began; exec closes that one.
func runStep(ctx context.Context, spec *specs.Spec, p executor.ProcessInfo, began func()) error {
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	configR, configW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = configR.Close() }()
	troubleR, troubleW, err := os.Pipe()
	if err != nil {
		_ = configW.Close()
		return err
	}
	defer func() { _ = troubleR.Close() }()

	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace && n.Path == "" }) {
		flags |= unix.CLONE_NEWNET
	}
	cmd := exec.CommandContext(ctx, selfExecutable)
	cmd.Args = []string{stepName}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin(p.Stdin), p.Stdout, p.Stderr
	cmd.ExtraFiles = []*os.File{configR, troubleW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL, Setsid: true}

	// The kernel sends Pdeathsig when the thread that started the child ends, so this one must not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = troubleW.Close()
	if err != nil {
		_ = configW.Close()
		return fmt.Errorf("starting a RUN step: %w", err)
	}
	go func() {
		_, _ = configW.Write(config) // a child that died first shows in Wait
		_ = configW.Close()
	}()
	trouble, _ := io.ReadAll(io.LimitReader(troubleR, 64<<10))
	if len(trouble) == 0 {
		began()
	}
	err = cmd.Wait()
	if len(trouble) > 0 && ctx.Err() == nil {
		return fmt.Errorf("starting a RUN step: %s", bytes.TrimSpace(trouble))
	}
	return err
}

// stdin hides a nil reader from os/exec, which would otherwise wait for it.
func stdin(r io.ReadCloser) io.Reader {
	if r == nil {
		return nil
	}
	return r
}

// exitError gives err the type that BuildKit shows as `process "…" did not complete successfully: exit code: 3`.
func exitError(ctx context.Context, err error, valid []int) error {
	code := uint32(0)
	out := &gatewaypb.ExitError{}
	if err != nil {
		code = gatewaypb.UnknownExitStatus
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			code = uint32(exit.ExitCode())
		} else {
			out.Err = err
		}
	}
	if code == 0 && valid == nil || slices.Contains(valid, int(code)) {
		return nil
	}
	out.ExitCode = code
	if ctx.Err() != nil {
		out.Err = context.Cause(ctx)
	}
	return out
}
