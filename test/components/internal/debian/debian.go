// SPDX-License-Identifier: Apache-2.0

// Package debian takes what is not to be had as a Go module from the Debian packages of the machine's own sources.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealerio/sealer/test/components/internal/layer"
)

// MissingError names the packages that have to be installed before anything can be built.
type MissingError struct {
	Packages []string
}

func (e *MissingError) Error() string {
	return "these Debian packages are not installed: " + strings.Join(e.Packages, ", ")
}

// Hint says how to install them.
func (e *MissingError) Hint() string {
	return "apt-get install --yes --no-install-recommends " + strings.Join(e.Packages, " ")
}

// ReadList reads a list of packages, one a line. Empty lines and those that begin with # do not count.
func ReadList(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the list of Debian packages: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names, nil
}

// CheckInstalled returns a *MissingError if any of the packages is not installed.
func CheckInstalled(ctx context.Context, names []string) error {
	// dpkg-query fails when it knows nothing of one of the packages, and still tells about the others.
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"--show", "--showformat", "${Package} ${db:Status-Status}\n"}, names...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("asking which Debian packages are installed: %w", err)
	}
	installed := make(map[string]bool)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if name, ok := strings.CutSuffix(lines.Text(), " installed"); ok {
			installed[name] = true
		}
	}
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return installed[name] })
	if len(missing) > 0 {
		return &MissingError{Packages: missing}
	}
	return nil
}

// Download fetches the packages, and all that they depend on whatever this machine has installed, into dir. It
// returns the files' paths, sorted.
func Download(ctx context.Context, dir string, messages io.Writer, names ...string) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return nil, fmt.Errorf("downloading Debian packages: %w", err)
	}
	args := []string{
		"install", "--yes", "--quiet", "--quiet", "--download-only", "--no-install-recommends",
		"--option", "Dir::State::status=/dev/null", // as on a machine with nothing installed
		"--option", "Dir::Cache::archives=" + dir,
		"--option", "APT::Sandbox::User=root", // the folder may be closed to apt's own user
		"--option", "Debug::NoLocking=true", // dir is ours, and nothing is installed
	}
	apt := exec.CommandContext(ctx, "apt-get", append(args, names...)...)
	apt.Stdout, apt.Stderr = messages, messages
	if err := apt.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // and not the signal it was killed with
		}
		return nil, fmt.Errorf("downloading the Debian packages %s (is the list fresh? apt-get update): %w", strings.Join(names, ", "), err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, fmt.Errorf("listing the downloaded Debian packages: %w", err)
	}
	return files, nil
}

// Unpack adds the files of packages to a tree: programs, libraries and settings without documentation, all below
// usr where a merged system has them, with the links that such a system has at its root.
func Unpack(ctx context.Context, t *layer.Tree, files []string) error {
	for _, dir := range merged() {
		t.Link(dir, "usr/"+dir)
	}
	for _, file := range files {
		if err := unpack(ctx, t, file); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func unpack(ctx context.Context, t *layer.Tree, file string) error {
	var stderr bytes.Buffer
	dpkg := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	dpkg.Stderr = &stderr
	archive, err := dpkg.StdoutPipe()
	if err != nil {
		return err
	}
	if err := dpkg.Start(); err != nil {
		return err
	}
	unpackErr := t.Tar(archive, rename)
	_, drainErr := io.Copy(io.Discard, archive) // the padding at the end; a writer that is cut off would fail
	if err := dpkg.Wait(); err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		return errors.Join(unpackErr, err)
	}
	return errors.Join(unpackErr, drainErr)
}

func merged() []string { return []string{"bin", "lib", "lib64", "sbin"} }

// rename gives the place of a package's file in an image, empty if it has none there.
func rename(name string) string {
	for _, dir := range merged() {
		if name == dir {
			return ""
		}
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	for _, prefix := range []string{"usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv", "var"} {
		if name == prefix || strings.HasPrefix(name, prefix+"/") {
			return ""
		}
	}
	return name
}
