// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	mappingName      = "sealer-mapping" // argv[0] of the copy that waits for its ids
	rootlessVariable = "SEALER_ROOTLESS"
	manyIDs          = "many" // values of it
	oneID            = "one"
	mappingPipe      = 3 // descriptor of the waiting copy
)

// Rootless says whether this process is a copy that Isolate started for a user who is not root: it is root in a user
// namespace of its own.
func Rootless() bool { return Isolated() && os.Getenv(rootlessVariable) != "" }

// OneID says whether that user namespace has one user and one group: files of others cannot be made in it.
func OneID() bool { return Isolated() && os.Getenv(rootlessVariable) == oneID }

// idRange is a line of newuidmap's arguments: ids inside, from that one on outside, so many.
type idRange struct{ inside, outside, count int }

// idMaps are the ids of a user namespace.
type idMaps struct{ users, groups []idRange }

// many says whether it takes newuidmap to make them.
func (m idMaps) many() bool { return len(m.users) > 1 && len(m.groups) > 1 }

// findMaps reads what this user may have: /etc/subuid and /etc/subgid (subuid(5)), where newuidmap is there to use it.
// Else the user's own ids are all.
func findMaps() idMaps {
	m := idMaps{users: []idRange{{0, os.Geteuid(), 1}}, groups: []idRange{{0, os.Getegid(), 1}}}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return m
		}
	}
	names := []string{strconv.Itoa(os.Geteuid())}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	users, groups := subordinate("/etc/subuid", names), subordinate("/etc/subgid", names)
	if len(users) == 0 || len(groups) == 0 {
		return m
	}
	m.users, m.groups = append(m.users, users...), append(m.groups, groups...)
	return m
}

func subordinate(file string, names []string) []idRange {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var out []idRange
	next := 1
	for lines := bufio.NewScanner(io.LimitReader(f, 1<<20)); lines.Scan(); {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 || parts[0] != names[0] && parts[0] != names[len(names)-1] {
			continue
		}
		start, err1 := strconv.Atoi(parts[1])
		count, err2 := strconv.Atoi(parts[2])
		if err1 != nil || err2 != nil || start <= 0 || count <= 0 {
			continue
		}
		out = append(out, idRange{next, start, count})
		next += count
	}
	return out
}

// prepareRootless makes cmd start in a user namespace. started is called when the process runs, and gives it its ids.
func prepareRootless(cmd *exec.Cmd) (started func() error, err error) {
	maps := findMaps()
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	kind := oneID
	if maps.many() {
		kind = manyIDs
	}
	cmd.Env = append(cmd.Env, rootlessVariable+"="+kind)
	if !maps.many() {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		return func() error { return nil }, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Args[0] = mappingName
	cmd.ExtraFiles = []*os.File{r}
	return func() error {
		_ = r.Close()
		defer func() { _ = w.Close() }() // without a byte the copy gives up
		if cmd.Process == nil {
			return nil
		}
		if err := writeMap("newuidmap", cmd.Process.Pid, maps.users); err != nil {
			return err
		}
		if err := writeMap("newgidmap", cmd.Process.Pid, maps.groups); err != nil {
			return err
		}
		_, err := w.Write([]byte{1})
		return err
	}, nil
}

func writeMap(program string, pid int, ranges []idRange) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, strconv.Itoa(r.inside), strconv.Itoa(r.outside), strconv.Itoa(r.count))
	}
	out, err := exec.Command(program, args...).CombinedOutput() //nolint:noctx // it does not wait for anything
	if err != nil {
		return &MappingError{Program: program, Err: err, Output: strings.TrimSpace(string(out))}
	}
	return nil
}

// MappingError is returned where newuidmap or newgidmap refuses what /etc/subuid and /etc/subgid allow.
type MappingError struct {
	Program string
	Err     error
	Output  string
}

func (e *MappingError) Error() string {
	return fmt.Sprintf("giving the build its user ids: %s: %v: %s", e.Program, e.Err, e.Output)
}
func (e *MappingError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *MappingError) Hint() string {
	return "newuidmap and newgidmap must be set-uid root (the package uidmap), and the ranges in /etc/subuid and /etc/subgid right"
}

// awaitMapping waits for the ids, and starts the program again: the capabilities of the new root come with that.
func awaitMapping() error {
	pipe := os.NewFile(mappingPipe, "mapping")
	one := make([]byte, 1)
	_, err := io.ReadFull(pipe, one)
	_ = pipe.Close()
	if err != nil {
		return errMapping // the process outside says why
	}
	return unix.Exec(selfExecutable, append([]string{isolatedName}, os.Args[1:]...), os.Environ())
}

var errMapping = errors.New("the build got no user ids")

// explainRefusal says which setting of this machine keeps users from making namespaces.
func explainRefusal(err error) error {
	for _, s := range []struct{ file, bad, hint string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=28633"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{
			"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
			"sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give sealer an AppArmor profile that allows userns",
		},
	} {
		if value, readErr := os.ReadFile(s.file); readErr == nil && strings.TrimSpace(string(value)) == s.bad {
			name := strings.ReplaceAll(strings.TrimPrefix(s.file, "/proc/sys/"), "/", ".")
			return &UserNamespaceError{Setting: name + "=" + s.bad, Fix: s.hint, Err: err}
		}
	}
	if os.Geteuid() == 0 && !Rootless() {
		return &PermissionError{Err: err}
	}
	return &UserNamespaceError{Err: err}
}

// UserNamespaceError is returned where this machine does not let users make namespaces.
type UserNamespaceError struct {
	Setting string // that forbids it; "" where none of those that we know does
	Fix     string // what an administrator types
	Err     error
}

func (e *UserNamespaceError) Error() string {
	if e.Setting == "" {
		return "building without root: this machine does not let users make namespaces: " + e.Err.Error()
	}
	return fmt.Sprintf("building without root: this machine does not let users make namespaces (%s): %v", e.Setting, e.Err)
}
func (e *UserNamespaceError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *UserNamespaceError) Hint() string {
	other := "run sealer as root, or name a BuildKit daemon with --builder"
	if e.Fix == "" {
		return other
	}
	return "as root: " + e.Fix + "; or " + other
}

// mayIsolate says whether this process can make namespaces itself.
func mayIsolate() bool { return mayMount() == nil }

func printFatal(err error) {
	_, _ = fmt.Fprintln(os.Stderr, "sealer:", err)
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) {
		_, _ = fmt.Fprintln(os.Stderr, "hint:", hinter.Hint())
	}
}

// ownName is the base name under which this process was started.
func ownName() string { return filepath.Base(os.Args[0]) }
