// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	stepName       = "sealer-build-step" // argv[0] of the child
	selfExecutable = "/proc/self/exe"
	maxSpec        = 16 << 20
)

// stepMain is the child of runStep: process 1 of its namespaces. It does not return unless something is wrong.
func stepMain() {
	runtime.LockOSThread() // capabilities belong to a thread
	trouble := os.NewFile(4, "trouble")
	unix.CloseOnExec(4)
	config := os.NewFile(3, "specification")
	var spec specs.Spec
	err := json.NewDecoder(io.LimitReader(config, maxSpec)).Decode(&spec)
	_ = config.Close()
	if err == nil {
		err = becomeStep(&spec)
	}
	_, _ = fmt.Fprintln(trouble, err)
}

func becomeStep(spec *specs.Spec) error {
	root := spec.Root.Path
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	// Nothing that is mounted from here on reaches the engine's mount namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separating mounts: %w", err)
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	for _, m := range spec.Mounts {
		if m.Type == "cgroup" {
			continue // the step is in no cgroup of its own
		}
		if err := mountInto(root, m); err != nil {
			return fmt.Errorf("mounting %q: %w", m.Destination, err)
		}
		if m.Destination == "/dev" {
			if err := makeDevices(root); err != nil {
				return err
			}
		}
	}
	if err := hidePaths(root, spec.Linux); err != nil {
		return err
	}
	if spec.Root.Readonly {
		if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("making the root read-only: %w", err)
		}
	}
	if slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace && n.Path == "" }) {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("starting the loopback device: %w", err)
		}
	}
	if err := pivot(root); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return execStep(spec.Process)
}

// mountInto makes one mount of the specification below root. Symbolic links in the destination never lead out of root.
func mountInto(root string, m specs.Mount) error {
	in, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	file := false
	if isBind(m) {
		info, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		file = !info.IsDir()
	}
	target, err := resolveIn(root, m.Destination)
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(target, root), "/")
	if rel == "" {
		rel = "."
	}
	if file {
		err = in.MkdirAll(filepath.Dir(rel), 0o755)
		if err == nil {
			var f *os.File
			if f, err = in.OpenFile(rel, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
				err = f.Close()
			}
		}
	} else {
		err = in.MkdirAll(rel, 0o755)
	}
	if err != nil {
		return err
	}
	cm := mount.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
	if isBind(m) {
		cm.Type = "bind"
		if !slices.Contains(cm.Options, "bind") && !slices.Contains(cm.Options, "rbind") {
			cm.Options = append(slices.Clone(cm.Options), "rbind")
		}
	}
	return mount.All([]mount.Mount{cm}, target)
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// makeDevices fills the /dev that was just mounted with the harmless devices of this machine.
func makeDevices(root string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		path := filepath.Join(root, "dev", name)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o666)
		if err != nil {
			return fmt.Errorf("making /dev/%s: %w", name, err)
		}
		_ = f.Close()
		if err := unix.Mount("/dev/"+name, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("making /dev/%s: %w", name, err)
		}
	}
	for link, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(root, "dev", link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making /dev/%s: %w", link, err)
		}
	}
	return nil
}

func hidePaths(root string, linux *specs.Linux) error {
	for _, p := range linux.MaskedPaths {
		path := filepath.Join(root, p)
		info, err := os.Lstat(path)
		if err != nil {
			continue
		}
		if info.IsDir() {
			err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY, "size=0")
		} else {
			err = unix.Mount(filepath.Join(root, "dev/null"), path, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("hiding %q: %w", p, err)
		}
	}
	for _, p := range linux.ReadonlyPaths {
		path := filepath.Join(root, p)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("protecting %q: %w", p, err)
		}
		flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if err := unix.Mount("", path, "", flags, ""); err != nil {
			return fmt.Errorf("protecting %q: %w", p, err)
		}
	}
	return nil
}

// pivot makes root the root and lets go of the old one, so that there is no way back to it.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func execStep(p *specs.Process) error {
	env := p.Env
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME=/root")
	}
	if err := unix.Chdir(p.Cwd); err != nil {
		return fmt.Errorf("working directory %q: %w", p.Cwd, err)
	}
	if err := setRlimits(p.Rlimits); err != nil {
		return err
	}
	if err := dropPrivileges(p); err != nil {
		return err
	}
	path, err := lookPath(p.Args[0], env)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	err = unix.Exec(path, p.Args, env)
	return fmt.Errorf("exec %q: %w", p.Args[0], err)
}

func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, e := range slices.Backward(env) {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(list, ":") {
			path := filepath.Join("/", dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
		break
	}
	return "", fmt.Errorf("exec %q: %w", name, exec.ErrNotFound)
}
