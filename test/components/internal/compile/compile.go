// SPDX-License-Identifier: Apache-2.0

// Package compile builds Go programs, those of this repository and those of other modules, the same way on every
// machine.
package compile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Toolchain is the go command and where its messages go.
type Toolchain struct {
	messages io.Writer
}

// New returns a toolchain that reports to messages.
func New(messages io.Writer) Toolchain {
	return Toolchain{messages: messages}
}

// Set is a group of programs of one module that are built with the same settings, and so in one run of the go
// command, which shares the work between them.
type Set struct {
	Module   string   // folder of the module
	ModFile  string   // in it, to be read instead of go.mod; empty: go.mod
	Packages []string // import paths or folders of main packages
	Tags     []string
	Stamps   map[string]string // package-level string variables set at link time
	Arch     string
	C        bool // cgo with a static C library; without it, pure Go
}

// Build puts the programs of the set into the folder out, each under its package's name.
func (t Toolchain) Build(ctx context.Context, set Set, out string) error {
	link := []string{"-s", "-w"}
	for _, name := range slices.Sorted(maps.Keys(set.Stamps)) {
		link = append(link, "-X", name+"="+set.Stamps[name])
	}
	env := []string{"CGO_ENABLED=0"}
	if set.C {
		env = []string{"CGO_ENABLED=1"}
		link = append(link, "-extldflags", "-static")
	}
	args := []string{
		"build", "-trimpath", "-buildvcs=false", "-o", out + string(os.PathSeparator),
		"-tags", strings.Join(set.Tags, ","), "-ldflags", strings.Join(link, " "),
	}
	if set.ModFile != "" {
		args = append(args, "-modfile", set.ModFile)
	}
	cmd := t.command(ctx, set.Module, append(args, set.Packages...)...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+set.Arch)
	cmd.Stdout, cmd.Stderr = t.messages, t.messages
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // and not how the go command ended
		}
		return fmt.Errorf("building %s: %w", strings.Join(set.Packages, ", "), err)
	}
	return nil
}

// Versions returns the versions of some of the module's dependencies by module path. A replaced dependency has the
// version of what replaces it. modFile is as in Set.
func (t Toolchain) Versions(ctx context.Context, module, modFile string, dependencies ...string) (map[string]string, error) {
	args := []string{"list", "-m", "-json=Path,Version,Replace"}
	if modFile != "" {
		args = append(args, "-modfile", modFile)
	}
	out, err := t.output(t.command(ctx, module, append(args, dependencies...)...))
	if err != nil {
		return nil, fmt.Errorf("listing the modules that %s needs: %w", module, err)
	}
	versions := make(map[string]string)
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct {
			Path, Version string
			Replace       *struct{ Version string }
		}
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return versions, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the list of modules that %s needs: %w", module, err)
		}
		if m.Replace != nil {
			m.Version = m.Replace.Version
		}
		versions[m.Path] = m.Version
	}
}

// Settings describes the compiler as far as it decides what comes out of it.
func (t Toolchain) Settings(ctx context.Context, module string) (string, error) {
	out, err := t.output(t.command(ctx, module, "env", "GOVERSION", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT"))
	if err != nil {
		return "", fmt.Errorf("asking for the Go version: %w", err)
	}
	return string(out), nil
}

// Arch returns the architecture that programs are built for.
func (t Toolchain) Arch(ctx context.Context, module string) (string, error) {
	out, err := t.output(t.command(ctx, module, "env", "GOARCH"))
	if err != nil {
		return "", fmt.Errorf("asking for the architecture: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Path returns the path of the module in the given folder.
func (t Toolchain) Path(ctx context.Context, module string) (string, error) {
	out, err := t.output(t.command(ctx, module, "list", "-m"))
	if err != nil {
		return "", fmt.Errorf("asking for the module in %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (t Toolchain) command(ctx context.Context, module string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")                          // a workspace would change versions
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it removes its work folder
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (t Toolchain) output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
