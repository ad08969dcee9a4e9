// SPDX-License-Identifier: Apache-2.0

// Package kernel runs a test inside of a Linux kernel of its own, which is a process of this machine: User Mode Linux, of Debian's package
// user-mode-linux. It has what this machine's kernel may lack, and what is done to it stays in it. No root is needed.
package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	program = "/usr/bin/linux.uml"
	modules = "/usr/lib/uml/modules"
	// variable names the test for the first process of the kernel: what a kernel is told and does not know becomes its environment.
	variable = "SEALER_TEST_IN_KERNEL"
	passed   = "the tests in the kernel have passed"
	limit    = 2 * time.Minute
)

// Inside tells whether this process is the first one of such a kernel.
func Inside() bool { return os.Getpid() == 1 && os.Getenv(variable) != "" }

// Main is m.Run. Inside of the kernel it loads the modules before, and switches it off afterwards.
func Main(m *testing.M) int {
	if !Inside() {
		return m.Run()
	}
	err := prepare()
	if err == nil {
		err = errors.Join(flag.Set("test.run", "^"+os.Getenv(variable)+"$"), flag.Set("test.v", "true"))
	}
	switch {
	case err != nil:
		fmt.Println("preparing the kernel:", err)
	case m.Run() == 0:
		fmt.Println(passed)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // it does not return
	return 1
}

// Run boots a kernel with the modules, in which this test runs again, Inside.
func Run(t *testing.T, names ...string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("User Mode Linux is there for amd64 alone")
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("there is no %s: install Debian's package user-mode-linux (hack/apt.sh test/apt.txt)", program)
	}
	root := t.TempDir()
	if err := furnish(root, names); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out bytes.Buffer
	// What it notes of itself goes to HOME. Its memory is a file that it maps with leave to execute.
	cmd := exec.CommandContext(ctx, program, "mem=192M", "rootfstype=hostfs", "root=/dev/root", "rootflags="+root, "rw", "init=/init",
		"con=null", "con0=null,fd:1", "quiet", "panic=1", variable+"="+t.Name())
	cmd.Env = []string{"HOME=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // it has processes of its own
	cmd.WaitDelay = 5 * time.Second
	err := startOnOne(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if !strings.Contains(out.String(), passed) {
		if ctx.Err() != nil {
			err = fmt.Errorf("it took more than %s: %w", limit, err)
		}
		t.Fatalf("running in a kernel of its own: %v; User Mode Linux needs ptrace(2), and /dev/shm or /tmp without noexec\n%s", err, out.String())
	}
	t.Log("\n" + out.String())
}

// furnish makes the root folder: this program as init, and the modules in the order in which they are loaded.
func furnish(root string, names []string) error {
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "modules"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if program, err := elf.Open(self); err != nil {
		return err
	} else if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
		return errors.Join(errors.New("this test needs libraries, which the kernel's root folder does not have: build it with CGO_ENABLED=0"), err, program.Close())
	} else if err := program.Close(); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(root, "init"), self, 0o755); err != nil {
		return err
	}
	dep, err := filepath.Glob(filepath.Join(modules, "*", "modules.dep"))
	if err != nil || len(dep) != 1 {
		return fmt.Errorf("finding the kernel's modules: %d are there in %s", len(dep), modules)
	}
	list, err := loadOrder(dep[0], names)
	if err != nil {
		return err
	}
	for i, file := range list {
		to := filepath.Join(root, "modules", fmt.Sprintf("%03d-%s", i, filepath.Base(file)))
		if err := copyFile(to, filepath.Join(filepath.Dir(dep[0]), file), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loadOrder reads modules.dep(5): each module stands before what it needs, the first needed last.
func loadOrder(file string, names []string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var order []string
	for _, name := range names {
		found := false
		for line := range strings.Lines(string(data)) {
			module, needs, _ := strings.Cut(line, ":")
			if filepath.Base(module) != name+".ko" {
				continue
			}
			found = true
			chain := strings.Fields(needs)
			slices.Reverse(chain)
			for _, m := range append(chain, module) {
				if !slices.Contains(order, m) {
					order = append(order, m)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("the kernel has no module %s", name)
		}
	}
	return order, nil
}

func copyFile(to, from string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// prepare is for Inside.
func prepare() error {
	for _, at := range []string{"proc", "sys"} {
		kind := map[string]string{"proc": "proc", "sys": "sysfs"}[at]
		if err := unix.Mount(kind, "/"+at, kind, 0, ""); err != nil {
			return fmt.Errorf("mounting /%s: %w", at, err)
		}
	}
	list, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, file := range list {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("loading %s: %w", file, err)
		}
	}
	return nil
}

// startOnOne has all of the program on one processor: its kernel and its processes are threads of the machine that wait for each other with
// each of their steps, which takes many times as long from one processor to another.
func startOnOne(cmd *exec.Cmd) error {
	runtime.LockOSThread() // what is started has the processors of its thread
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("reading which processors may be used: %w", err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choosing a processor: %w", err)
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &all))
}
