// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"time"
)

// machines are the architectures of ELF files, by Go's names.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "riscv64": elf.EM_RISCV,
		"s390x": elf.EM_S390, "ppc64le": elf.EM_PPC64, "loong64": elf.EM_LOONGARCH,
	}
}

func architectures() []string { return slices.Sorted(maps.Keys(machines())) }

// program is a file that is there already.
type program struct {
	path string
	// link is what it points to beside itself; "": it is a file.
	link string
	mode os.FileMode
}

// place makes target the program: a hard link where one can be made and the mode is right, else a copy.
func (p program) place(target string) error {
	if p.link != "" {
		return os.Symlink(p.link, target)
	}
	info, err := os.Stat(p.path)
	if err != nil {
		return err
	}
	if info.Mode().Perm() == p.mode && os.Link(p.path, target) == nil {
		return nil
	}
	return copyFile(p.path, target, p.mode)
}

func copyFile(from, to string, mode os.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a file of the context: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Chmod(mode), dst.Close()); err != nil {
		return fmt.Errorf("copying %q: %w", from, err)
	}
	return nil
}

// checkArch tells whether a file is a program for an architecture.
func checkArch(path, arch string) error {
	file, err := elf.Open(path)
	if _, wrong := errors.AsType[*elf.FormatError](err); wrong || errors.Is(err, io.EOF) {
		return fmt.Errorf("%q is no ELF program", path)
	}
	if err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	defer func() { _ = file.Close() }()
	if file.Machine == machines()[arch] {
		return nil
	}
	for name, machine := range machines() {
		if machine == file.Machine {
			return fmt.Errorf("%q is a program for %s, not for %s", path, name, arch)
		}
	}
	return fmt.Errorf("%q is a program for %s, not for %s", path, file.Machine, arch)
}

const (
	askTime = 30 * time.Second
	maxTold = 1 << 20
)

// ask runs a program, which must be for this machine, in a folder of its own, and returns what it prints.
func ask(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	home, err := os.MkdirTemp("", "sealer-new-")
	if err != nil {
		return "", fmt.Errorf("making a folder for %q: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(home) }()
	cmd := exec.CommandContext(ctx, path, args...)
	// k3s unpacks itself where it may; nothing of it is to stay.
	cmd.Dir, cmd.Env = home, []string{"HOME=" + home, "K3S_DATA_DIR=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home}
	cmd.WaitDelay = time.Second
	out, told := &limited{left: maxTold}, &limited{left: maxTold}
	cmd.Stdout, cmd.Stderr = out, told
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(told.String())
		return "", fmt.Errorf("running %s %s: %w: %s", path, strings.Join(args, " "), err, text[:min(len(text), 400)])
	}
	return out.String(), nil
}

// limited keeps the first bytes of a text, and drops the rest.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, _ = l.Buffer.Write(p[:n])
	return len(p), nil
}

var versionText = regexp.MustCompile(`v?\d+\.\d+\.\d+[0-9A-Za-z.+-]*`)

// versionOf asks a program for its version; "" where it is for another architecture than this machine's.
func versionOf(ctx context.Context, path, arch string, args []string) (string, error) {
	if arch != goruntime.GOARCH {
		return "", nil
	}
	text, err := ask(ctx, path, args...)
	if err != nil {
		return "", err
	}
	version := versionText.FindString(text)
	if version == "" {
		return "", fmt.Errorf("%q does not tell its version, but %q", path, text[:min(len(text), 80)])
	}
	return "v" + strings.TrimPrefix(version, "v"), nil
}
