// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Docker on a host is this machine's own, of Debian's docker.io: the hosts' image is without, since few tests want it.
const (
	dockerPrograms = "/usr/local/bin"
	dockerRest     = "/var/docker" // libraries, and all that it keeps
)

// startDocker starts a daemon that leaves the host's packet filter alone, as a unit of the name that Debian's has. It is not started again
// by a boot.
const startDocker = `set -eu
systemd-run --quiet --collect --unit docker.service --setenv LD_LIBRARY_PATH=/var/docker/lib --property Delegate=yes \
	/usr/local/bin/dockerd --data-root /var/docker/data --exec-root /run/docker --pidfile /run/docker.pid --host unix:///run/docker.sock \
	--bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --exec-opt native.cgroupdriver=cgroupfs
for _ in $(seq 300); do
	docker info >/dev/null 2>&1 && exit 0
	sleep 0.1
done
journalctl -u docker -n 20 --no-pager >&2
exit 1
`

const removeDocker = `set -eu
systemctl stop docker.service 2>/dev/null || :
rm -rf /var/docker /run/docker /run/docker.pid /run/docker.sock /run/containerd /etc/docker /root/.docker /usr/local/bin/docker /usr/local/bin/dockerd \
	/usr/local/bin/containerd /usr/local/bin/containerd-shim-runc-v2 /usr/local/bin/runc /opt/containerd
`

// StartDocker puts docker on a host that boots with systemd, and starts it.
func (h Host) StartDocker(ctx context.Context) error {
	if err := h.unpack(ctx, func(w io.Writer) error { return packDocker(ctx, w) }); err != nil {
		return fmt.Errorf("putting docker on %s: %w", h, err)
	}
	if _, err := h.Exec(ctx, "sh", "-c", startDocker); err != nil {
		return fmt.Errorf("starting docker on %s: %w", h, err)
	}
	return nil
}

// unpack puts what pack writes as an archive on the host.
func (h Host) unpack(ctx context.Context, pack func(io.Writer) error) error {
	read, write := io.Pipe()
	go func() { _ = write.CloseWithError(pack(write)) }() // the reader gets it
	err := h.Pipe(ctx, read, io.Discard, io.Discard, "tar", "-C", "/", "-xf", "-")
	return errors.Join(err, read.Close())
}

// RemoveDocker takes it away again, with all that it has.
func (h Host) RemoveDocker(ctx context.Context) error {
	_, err := h.Exec(ctx, "sh", "-c", removeDocker)
	return err
}

func packDocker(ctx context.Context, out io.Writer) error {
	files, err := debianPrograms(ctx, "dockerd", "containerd", "containerd-shim-runc-v2", "runc")
	if err != nil {
		return err
	}
	files[filepath.Join(dockerPrograms, "docker")] = ownEngine("any", "").Client
	return packFiles(out, files)
}

// debianPrograms are programs of this machine with the libraries that hosts lack, by where they are to be there.
func debianPrograms(ctx context.Context, names ...string) (map[string]string, error) {
	files := map[string]string{}
	var programs []string
	for _, name := range names {
		file, err := lookSystemPath(name)
		if err != nil {
			return nil, &MissingError{Program: name}
		}
		files[filepath.Join(dockerPrograms, name)] = file
		programs = append(programs, file)
	}
	libraries, err := exec.CommandContext(ctx, "ldd", programs...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("finding docker's libraries: %w: %s", err, libraries)
	}
	for field := range strings.FieldsSeq(string(libraries)) {
		// The C library fits the host's own loader.
		if name := filepath.Base(field); filepath.IsAbs(field) && strings.Contains(name, ".so") && !slices.Contains([]string{"libc.so.6", "libm.so.6"}, name) && !strings.HasPrefix(name, "ld-") {
			files[filepath.Join(dockerRest, "lib", name)] = field
		}
	}
	return files, nil
}

func packFiles(out io.Writer, files map[string]string) error {
	w := tar.NewWriter(out)
	for to, from := range files {
		if err := packFile(w, strings.TrimPrefix(to, "/"), from); err != nil {
			return fmt.Errorf("packing %s: %w", from, err)
		}
	}
	return w.Close()
}

func packFile(w *tar.Writer, to, from string) (err error) {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
