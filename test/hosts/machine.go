// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// settings are the kernel settings without a namespace that systemd, a kubelet, kube-proxy or a container runtime in a
// host changes, and so changes for the machine and every other host.
func settings() []string {
	return []string{
		"fs.file-max", "fs.nr_open", "fs.aio-max-nr", "fs.inotify.max_user_instances", "fs.inotify.max_user_watches",
		"fs.may_detach_mounts", "fs.protected_fifos", "fs.protected_hardlinks", "fs.protected_regular",
		"fs.protected_symlinks", "fs.suid_dumpable",
		"kernel.core_pattern", "kernel.core_uses_pid", "kernel.dmesg_restrict", "kernel.keys.root_maxbytes",
		"kernel.keys.root_maxkeys", "kernel.kptr_restrict", "kernel.panic", "kernel.panic_on_oops", "kernel.pid_max",
		"kernel.printk", "kernel.sysrq", "kernel.threads-max", "kernel.unprivileged_bpf_disabled",
		"net.ipv4.ip_forward", "net.netfilter.nf_conntrack_max",
		"vm.max_map_count", "vm.overcommit_memory", "vm.overcommit_ratio", "vm.panic_on_oom", "vm.swappiness",
	}
}

// wantInstances is enough for some ten hosts; each systemd, kubelet and containerd watches files.
const wantInstances = 8192

// machine is what the settings were before the first set of this boot.
type machine struct {
	Boot     string            `json:"boot"`
	Settings map[string]string `json:"settings"`
}

func machineFile() string { return filepath.Join(runRoot, "machine.json") }

// lockMachine is held for moments only, by whoever changes what all sets share.
func lockMachine(ctx context.Context) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(runRoot, "machine.lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("locking what all test hosts share: %w", err)
	}
	return lock, nil
}

// saveSettings writes the settings down, unless a set that is still there or was killed has done so since the last
// boot, and then raises those that hosts need.
func saveSettings(ctx context.Context) error {
	lock, err := lockMachine(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	boot, err := bootID()
	if err != nil {
		return err
	}
	if old, err := readMachine(); err == nil && old.Boot == boot {
		return raiseInstances()
	}
	m := machine{Boot: boot, Settings: map[string]string{}}
	for _, name := range settings() {
		value, err := os.ReadFile(settingPath(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err != nil {
			return fmt.Errorf("reading kernel setting %s: %w", name, err)
		}
		m.Settings[name] = strings.TrimSuffix(string(value), "\n")
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("recording kernel settings: %w", err)
	}
	if err := writeFile(machineFile(), data, 0o600); err != nil {
		return fmt.Errorf("recording kernel settings: %w", err)
	}
	return raiseInstances()
}

func raiseInstances() error {
	path := settingPath("fs.inotify.max_user_instances")
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the limit of inotify instances: %w", err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && n >= wantInstances {
		return nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(wantInstances)), 0); err != nil {
		return fmt.Errorf("raising the limit of inotify instances: %w", err)
	}
	return nil
}

// restoreSettings sets back what changed, once the last set is gone.
func restoreSettings(ctx context.Context) error {
	lock, err := lockMachine(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	names, err := Names()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	m, err := readMachine()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restoring kernel settings: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	var errs []error
	for name, value := range m.Settings {
		now, err := os.ReadFile(settingPath(name))
		if m.Boot != boot || err != nil || strings.TrimSuffix(string(now), "\n") == value {
			continue
		}
		if err := os.WriteFile(settingPath(name), []byte(value), 0); err != nil {
			errs = append(errs, fmt.Errorf("restoring kernel setting %s to %q: %w", name, value, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(machineFile()); err != nil {
		return fmt.Errorf("restoring kernel settings: %w", err)
	}
	return nil
}

func readMachine() (machine, error) {
	var m machine
	data, err := os.ReadFile(machineFile())
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

func settingPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// missingCapabilities lists what the kernel knows and root on this machine may not use.
func missingCapabilities() ([]string, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, fmt.Errorf("reading the capabilities of this kernel: %w", err)
	}
	missing, err := absentCapabilities(string(status), strings.TrimSpace(string(last)))
	if err != nil {
		return nil, fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	return missing, nil
}

func absentCapabilities(status, last string) ([]string, error) {
	_, rest, found := strings.Cut(status, "CapBnd:")
	if !found {
		return nil, errors.New("there is no bounding set")
	}
	mask, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	bounds, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
	if err != nil {
		return nil, err
	}
	highest, err := strconv.Atoi(last)
	if err != nil {
		return nil, err
	}
	var missing []string
	for i, name := range capabilities() {
		if i <= highest && bounds&(1<<i) == 0 {
			missing = append(missing, "CAP_"+name)
		}
	}
	return missing, nil
}

// capabilities lists the names by number, as in linux/capability.h.
func capabilities() []string {
	return strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
		SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
		SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
}

func cgroupName(name string) string { return "sealer-hosts-" + name }

// groups returns the control group of a set in every hierarchy, of version 1 and 2.
func groups(name string) ([]string, error) {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, err := filepath.Glob(pattern + cgroupName(name))
		if err != nil {
			return nil, fmt.Errorf("listing control groups: %w", err)
		}
		found = append(found, dirs...)
	}
	return found, nil
}

// subgroups lists the control groups of a set, inner ones after outer ones.
func subgroups(name string) ([]string, error) {
	roots, err := groups(name)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it ended meanwhile
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("listing control groups: %w", err)
		}
	}
	return dirs, nil
}

// groupProcesses lists the processes in a set's control groups, and thaws them so that they can be killed.
func groupProcesses(name string) ([]int, error) {
	dirs, err := subgroups(name)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
		for file, thaw := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			if path := filepath.Join(dir, file); exists(path) {
				_ = os.WriteFile(path, []byte(thaw), 0) // a group that has just gone needs no thawing
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

func removeGroups(ctx context.Context, name string) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := poll(wait, 50*time.Millisecond, func(context.Context) error {
		dirs, err := subgroups(name)
		if err != nil {
			return permanent(err)
		}
		var errs []error
		for _, dir := range slices.Backward(dirs) {
			// Busy for a moment after its last process has ended.
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("removing control groups: %w", err)
	}
	return nil
}

// unmountBelow detaches every mount below the folders, the innermost first, and tells whether there was any.
func unmountBelow(dirs ...string) (bool, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("listing mounts: %w", err)
	}
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		for _, dir := range dirs {
			if dir != "" && strings.HasPrefix(fields[4], dir+"/") {
				points = append(points, fields[4])
			}
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("listing mounts: %w", err)
	}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return true, fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return len(points) > 0, nil
}

// permanentError ends a poll at once.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanent(err error) error { return permanentError{err} }

// poll tries until it works, fails for good, or ctx ends; then the last failure tells what was being waited for.
func poll(ctx context.Context, every time.Duration, try func(context.Context) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var last error
	for {
		err := try(ctx)
		var final permanentError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &final):
			return final.error
		case ctx.Err() == nil || last == nil:
			last = err // one that comes from ctx itself would hide what went on before
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// systemPath is where programs for root are, which a user's path may lack.
func systemPath() string { return os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin" }

func lookSystemPath(program string) (string, error) {
	for _, dir := range filepath.SplitList(systemPath()) {
		if path := filepath.Join(dir, program); filepath.IsAbs(path) && executable(path) {
			return path, nil
		}
	}
	return "", &exec.Error{Name: program, Err: exec.ErrNotFound}
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tail returns the end of a file, for an error message.
func tail(path string, size int64) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > size {
		if _, err := file.Seek(-size, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(io.LimitReader(file, size))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data))
}

// writeFile writes a file that is whole or not there at all.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
