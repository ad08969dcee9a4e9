// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

//go:embed scripts/service.sh
var serviceScript []byte

//go:embed scripts/route.sh
var routeScript []byte

//go:embed scripts/uninstall.sh
var uninstallScript []byte

// Install puts k3s and its service on a host, and lets it ask the cluster's registry only. Nothing is started.
func (d Distribution) Install(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{
		{
			Name: "preparing the host for k3s",
			Key:  c.RootfsKey(h),
			Do:   func(ctx context.Context, log io.Writer) error { return prepare(ctx, c, h, log) },
		},
		{
			Name: "installing k3s",
			Key:  c.RootfsKey(h),
			Done: func(ctx context.Context) (bool, error) {
				return succeeds(ctx, h, "sh", "-c", `cmp -s "$1" "$2" && [ -x "$3" ] && [ -e "$4" ]`, "sh",
					path.Join(h.Rootfs, "bin/k3s"), binary, uninstaller, service(h).File())
			},
			Do: func(ctx context.Context, log io.Writer) error { return d.install(ctx, c, h, log) },
		},
		{
			Name: "looking for a default route",
			Done: func(ctx context.Context) (bool, error) { return succeeds(ctx, h, "sh", "-c", hasRoute) },
			Do: func(ctx context.Context, log io.Writer) error {
				return h.Runner.Run(ctx, host.Command{
					Argv: []string{"sh", "-s", "--", h.IP()}, Stdin: bytes.NewReader(routeScript), Stdout: log, Stderr: log, Mutates: true,
				})
			},
		},
		pointing(c, h),
	}
	if list := ownFiles(c, h); len(list) > 0 {
		argv := append([]string{h.Rootfs, filesDir}, list...)
		steps = append(steps, runtime.Step{
			Name: "placing the files that k3s' settings name",
			Done: func(ctx context.Context) (bool, error) {
				return succeeds(ctx, h, append([]string{"sh", "-c", filesPlaced, "sh"}, argv...)...)
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return run(ctx, h, log, append([]string{"sh", "-c", placeFiles, "sh"}, argv...)...)
			},
		})
	}
	return steps
}

const (
	// runPrepare runs the image's script; an image need not have one.
	runPrepare  = `[ -e "$1" ] || exit 0; exec "$1"`
	hasRoute    = `[ -n "$(ip -4 route show default; ip -6 route show default)" ]`
	filesPlaced = `from=$1; to=$2; shift 2; for f in "$@"; do cmp -s "$from/$f" "$to/$f" || exit 1; done`
	// Keys of certificates may be among them.
	placeFiles = `set -eu
umask 077
from=$1; to=$2; shift 2
for f in "$@"; do
	[ -f "$from/$f" ] || { echo "the image has no $f, which the K3s document of the Clusterfile names" >&2; exit 1; }
	mkdir -p "$(dirname "$to/$f")"
	cp "$from/$f" "$to/$f.new"
	mv -f "$to/$f.new" "$to/$f"
done
`
	// placeBinary: the program may be running, so it is replaced, not written over. $3 stands for a version, empty for any.
	placeBinary = `set -eu
[ -f "$1" ] || { echo "the ClusterImage has no bin/k3s" >&2; exit 1; }
cmp -s "$1" "$2" && exit 0
mkdir -p "$(dirname "$2")"
cp "$1" "$2.sealer-new"
chmod 0755 "$2.sealer-new"
sync "$2.sealer-new" 2>/dev/null || sync
mv -f "$2.sealer-new" "$2"
`
)

func prepare(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	n := networks(c)
	return h.Runner.Run(ctx, host.Command{
		Argv: []string{"sh", "-c", runPrepare, "sh", path.Join(h.Rootfs, "scripts/init-k3s.sh")}, Dir: h.Rootfs,
		Env:    append(c.EnvList(h), "HostIP="+h.IP(), "PodCIDR="+n.Pods, "ServiceCIDR="+n.Services),
		Stdout: log, Stderr: log, Mutates: true,
	})
}

func (d Distribution) install(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	// What takes k3s away is there before it is.
	if err := host.WriteFile(ctx, h.Runner, uninstaller, uninstallScript, 0o700); err != nil {
		return err
	}
	if err := d.place(ctx, c, h, log); err != nil {
		return err
	}
	packed := path.Join(h.Rootfs, "scripts/k3s-install.sh")
	there, err := succeeds(ctx, h, "test", "-f", packed)
	if err != nil {
		return err
	}
	if there {
		begun, err := hasBegun(ctx, h)
		if err != nil {
			return err
		}
		return run(ctx, h, log, installer(packed, command(h), begun)...)
	}
	return h.Runner.Run(ctx, host.Command{
		Argv: []string{"sh", "-s", "--", command(h)}, Stdin: bytes.NewReader(serviceScript), Stdout: log, Stderr: log, Mutates: true,
	})
}

// installer runs k3s' own script (get.k3s.io): it makes the service and does not start it. On a host where k3s has not begun it is not
// started at a boot either: without its settings, which come later, it would begin a cluster of its own. The script's environment is this
// and nothing else, since it writes what it finds there into the unit.
func installer(script, command string, begun bool) []string {
	skip := "INSTALL_K3S_SKIP_ENABLE=true"
	if begun {
		skip = "INSTALL_K3S_SKIP_START=true"
	}
	return []string{
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"INSTALL_K3S_SKIP_DOWNLOAD=true", "INSTALL_K3S_SKIP_SELINUX_RPM=true", skip,
		"INSTALL_K3S_EXEC=" + command, "sh", script,
	}
}

// place puts the image's program where it belongs, after it ran once: it may be of another version than its image says, or for another
// machine.
func (d Distribution) place(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	source := path.Join(h.Rootfs, "bin/k3s")
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{source, "--version"}})
	if err != nil {
		return err
	}
	want := c.Metadata.ClusterRuntimeVersion
	if fields := strings.Fields(string(out)); want != "" && !slices.Contains(fields, want) {
		line, _, _ := strings.Cut(string(out), "\n")
		return fmt.Errorf("%s: the image says that it holds k3s %s, and its bin/k3s says %q", h, want, line)
	}
	return run(ctx, h, log, "sh", "-c", placeBinary, "sh", source, binary)
}

// ownFiles are the paths in the rootfs that settings name.
func ownFiles(c *runtime.Cluster, h *runtime.Host) []string {
	var list []string
	s := asked(c, h)
	for _, key := range files() {
		if file, ok := s[key].(string); ok && !path.IsAbs(file) {
			list = append(list, strings.TrimPrefix(path.Clean("/"+file), "/"))
		}
	}
	return list
}
