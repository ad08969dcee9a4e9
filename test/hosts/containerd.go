// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
)

// startContainerd starts the daemon as a unit of the name that packages give it; a boot does not start it again. Its configuration comes on stdin.
const startContainerd = `set -eu
systemctl stop containerd.service 2>/dev/null || :
mkdir -p /etc/containerd
cat >/etc/containerd/config.toml
systemd-run --quiet --collect --unit containerd.service --setenv LD_LIBRARY_PATH=/var/docker/lib --property Delegate=yes \
	/usr/local/bin/containerd
for _ in $(seq 300); do
	ctr version >/dev/null 2>&1 && exit 0
	sleep 0.1
done
journalctl -u containerd -n 20 --no-pager >&2
exit 1
`

const removeContainerd = `set -eu
systemctl stop containerd.service 2>/dev/null || :
awk '$2 ~ "^/run/containerd/" { print $2 }' /proc/self/mounts | sort -r | xargs -r umount -l
rm -rf /var/docker /var/containerd /run/containerd /etc/containerd /etc/crictl.yaml /opt/containerd
(cd /var/lib && rmdir -p rancher/k3s/agent/etc/cni/net.d 2>/dev/null) || : # made by containerd, as its configuration says
cd /usr/local/bin && rm -f containerd containerd-shim-runc-v2 ctr runc crictl
`

// PutContainerd puts containerd, runc, ctr and crictl on a host that boots with systemd: those of the folder programs, or, where it says so,
// this machine's own, of Debian's docker.io, with the folder's crictl.
func (h Host) PutContainerd(ctx context.Context, programs string, debian bool) error {
	names := []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"}
	files := map[string]string{filepath.Join(dockerPrograms, "crictl"): filepath.Join(programs, "crictl")}
	for _, name := range names {
		files[filepath.Join(dockerPrograms, name)] = filepath.Join(programs, name)
	}
	if debian {
		own, err := debianPrograms(ctx, names...)
		if err != nil {
			return err
		}
		maps.Copy(files, own)
	}
	if err := h.unpack(ctx, func(w io.Writer) error { return packFiles(w, files) }); err != nil {
		return fmt.Errorf("putting containerd on %s: %w", h, err)
	}
	return nil
}

// StartContainerd starts it, anew where it runs, with a configuration that becomes /etc/containerd/config.toml.
func (h Host) StartContainerd(ctx context.Context, config string) error {
	var out strings.Builder
	if err := h.Pipe(ctx, strings.NewReader(config), &out, &out, "sh", "-c", startContainerd); err != nil {
		return fmt.Errorf("starting containerd on %s: %w: %s", h, err, out.String())
	}
	return nil
}

// RemoveContainerd takes it away again, with all that it has.
func (h Host) RemoveContainerd(ctx context.Context) error {
	_, err := h.Exec(ctx, "sh", "-c", removeContainerd)
	return err
}
