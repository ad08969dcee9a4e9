// SPDX-License-Identifier: Apache-2.0

// Package engine runs BuildKit inside this process, or talks to a BuildKit daemon elsewhere.
//
// The engine in this process needs Linux and nothing else: no daemon, no runtime; who is not root runs it in a user
// namespace, see Isolate. Its state (snapshots, blobs,
// cache) lives in one folder that one process uses at a time; a second one waits and says for whom.
package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/tonistiigi/fsutil"
)

// Isolation says how a RUN instruction is kept apart from this machine.
type Isolation string

const (
	// Auto takes runc where it is installed, else Chroot.
	Auto Isolation = "auto"
	// Runc runs every step in an OCI container.
	Runc Isolation = "runc"
	// Chroot runs every step in mount, pid, ipc and uts namespaces of its own, in a changed root, with the default
	// capabilities of a container and no way to gain others. There is no seccomp filter and no cgroup.
	Chroot Isolation = "chroot"
)

// ParseIsolation reads the value of --isolation; empty means Auto.
func ParseIsolation(s string) (Isolation, error) {
	switch i := Isolation(s); i {
	case "":
		return Auto, nil
	case Auto, Runc, Chroot:
		return i, nil
	}
	return "", fmt.Errorf("unknown isolation %q: auto, runc and chroot are known", s)
}

// RegistryHost says how BuildKit reaches one registry host when it resolves FROM.
type RegistryHost struct {
	Mirrors   []string // host[:port][/path], tried in order before the host itself
	PlainHTTP bool
}

// Options describe an engine in this process.
type Options struct {
	// Root is the state folder. It is created where it is missing. It should be on the same file system as the image
	// store (blobs are then hard links) and must not be on an overlay file system, where only slow copies are possible.
	Root string
	// Command tells a second process what this one does, e.g. "sealer build -t x": no arguments that may be secret.
	Command string
	// Isolation of RUN instructions; empty means Auto.
	Isolation Isolation
	// Snapshotter is "overlayfs" or "native". Empty: overlayfs where the kernel allows it, decided once for each Root.
	Snapshotter string
	// Epoch is the latest time that a file in a layer has; the zero value means 1970. Steps whose files depend on it
	// must have it in their definition (as SOURCE_DATE_EPOCH), else the cache mixes layers of different epochs.
	Epoch time.Time
	// Registries by host name, docker.io included.
	Registries map[string]RegistryHost
	// FetchTimeout is how long a server may send nothing of a file that an ADD or APP names. 0: 2 minutes.
	FetchTimeout time.Duration
	// Folders are the local sources, by name, that builds of the engine's own Client read in place, instead of having them
	// sent by the session; sessions offer them all the same (SolveOpt.LocalMounts). Who connects otherwise sends theirs.
	Folders map[string]fsutil.FS
	// NoWait makes Open fail with a *BusyError where another process has the folder, instead of waiting for it.
	NoWait bool
	// Notice is told what a person may wonder about, one line at a time: whom the engine waits for, which isolation it
	// chose. nil: silent.
	Notice func(line string)
}

func (o Options) notice(format string, args ...any) {
	if o.Notice != nil {
		o.Notice(fmt.Sprintf(format, args...))
	}
}

// ErrUnsupported is returned by Open on systems other than Linux.
var ErrUnsupported = errors.New("building in this process works on Linux only")

// PermissionError is returned by Open where this user may not mount file systems.
type PermissionError struct{ Err error }

func (e *PermissionError) Error() string {
	return "building in this process needs root: " + e.Err.Error()
}
func (e *PermissionError) Unwrap() error { return e.Err }

// Hint says what to do instead.
func (e *PermissionError) Hint() string {
	return "run sealer as root, or name a BuildKit daemon with --builder (unix:///run/buildkit/buildkitd.sock, tcp://…)"
}

// Holder is the process that has the state folder.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// BusyError is returned by Open where another process has the state folder, and NoWait is set.
type BusyError struct {
	Root   string
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("the build state in %q is in use: %s", e.Root, e.Holder)
}

// Hint says what to do.
func (*BusyError) Hint() string {
	return "'sealer builder stop' ends a builder that serves; a build ends by itself"
}

// Served describes an engine that serves other processes.
type Served struct {
	PID       int       `json:"pid"`
	Command   string    `json:"command"`
	Since     time.Time `json:"since"`
	Epoch     int64     `json:"epoch"` // seconds: see Options
	Isolation Isolation `json:"isolation"`
	Blobs     string    `json:"blobs"`  // the folder of its blobs
	Builds    int       `json:"builds"` // that run
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s), running since %s", h.PID, h.Command, h.Since.Local().Format(time.DateTime))
}
