// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/process"
)

const (
	isolatedName = "sealer-isolated" // argv[0] of the copy
	setupFailed  = 125

	// cancelGrace is how long Isolate waits for the signal that cancelled ctx before it makes up one of its own.
	cancelGrace = 250 * time.Millisecond
)

// Reexec is the first thing that main calls, and TestMain of every test that builds: this binary starts itself again
// for RUN steps and for Isolate. It returns at once in any other process.
func Reexec() {
	switch ownName() {
	case mappingName:
		printFatal(awaitMapping())
		os.Exit(setupFailed) //nolint:forbidigo // called from main, before there is anything to end
	case stepName:
		stepMain()
		os.Exit(setupFailed) //nolint:forbidigo // this process is a step that did not become one: no main runs in it
	case isolatedName:
		if err := enterIsolation(); err != nil {
			printFatal(err)
			os.Exit(setupFailed) //nolint:forbidigo // called from main, before there is anything to end
		}
	}
}

// Isolated says whether this process is the copy that Isolate started.
func Isolated() bool { return ownName() == isolatedName }

// Isolate runs this program again, with the same arguments, in a mount and a pid namespace of its own, passes signals
// on and returns the copy's exit code. Whatever the copy mounts or starts ends with it, and it ends with this process,
// also when that is killed. done is false where this process already is the copy: it goes on with its work.
//
// Who is not root gets a user namespace, too: with the ids of /etc/subuid where newuidmap is installed, else with one.
// A machine that does not let users make one gives a *UserNamespaceError.
func Isolate(ctx context.Context) (code int, done bool, err error) {
	if Isolated() {
		return 0, false, nil
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)

	// BuildKit mounts below the folder for temporary files, and leaves mount points there. Nothing is mounted in this
	// process' namespace: what is left is no more than that.
	temporary, remove, err := temporaryFolder()
	if err != nil {
		return 0, true, fmt.Errorf("starting the isolated build: %w", err)
	}
	defer func() { err = errors.Join(err, remove()) }()

	cmd := exec.Command(selfExecutable) //nolint:noctx // ctx cancels it by a signal, so that it can clean up
	cmd.Args = append([]string{isolatedName}, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(lateEnvironment(), "TMPDIR="+temporary)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		// In the terminal's group the copy would get Ctrl-C twice: from the terminal and from here.
		Setpgid: true,
	}
	started := func() error { return nil }
	if !mayIsolate() {
		if started, err = prepareRootless(cmd); err != nil {
			return 0, true, fmt.Errorf("starting the isolated build: %w", err)
		}
	}
	// The kernel sends Pdeathsig when the thread that started the copy ends, so this one must not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		_ = started()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
			return 0, true, explainRefusal(err)
		}
		return 0, true, fmt.Errorf("starting the isolated build: %w", err)
	}
	if err := started(); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, true, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	cancelled, told := ctx.Done(), false
	var grace <-chan time.Time
	for {
		select {
		case s := <-signals:
			told = true
			_ = cmd.Process.Signal(s)
		case <-cancelled:
			cancelled, grace = nil, time.After(cancelGrace)
		case <-grace:
			if !told {
				_ = cmd.Process.Signal(unix.SIGTERM)
			}
		case err := <-exited:
			return exitCode(cmd, err), true, nil
		}
	}
}

func exitCode(cmd *exec.Cmd, err error) int {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case err == nil:
		return 0
	case ok && status.Signaled():
		return 128 + int(status.Signal())
	default:
		return cmd.ProcessState.ExitCode()
	}
}

// enterIsolation is the start of the copy.
func enterIsolation() error {
	// /proc still is the one of the outer namespace: it knows the number under which others see this process.
	if pid, err := os.Readlink("/proc/self"); err == nil {
		if err := process.SetID(pid); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		if Rootless() {
			return explainRefusal(fmt.Errorf("separating the build's mounts: %w", err))
		}
		return fmt.Errorf("separating the build's mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc for the build: %w", err)
	}
	// runc notes its containers here: a note that outlives a killed build would be one of a container that is gone.
	if err := os.MkdirAll("/run/runc", 0o700); err == nil {
		if err := unix.Mount("tmpfs", "/run/runc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
			return fmt.Errorf("separating runc's state: %w", err)
		}
	}
	return nil
}
