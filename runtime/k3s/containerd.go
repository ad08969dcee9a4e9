// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/Masterminds/semver/v3"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.ContainerdUser = Distribution{}

// ContainerdSocket is that of the host's own containerd, where the Clusterfile has container-runtime-endpoint for hosts like h.
func (Distribution) ContainerdSocket(c *runtime.Cluster, h *runtime.Host) string {
	return onContainerd(c, h)
}

func onContainerd(c *runtime.Cluster, h *runtime.Host) string {
	return c.File.RuntimeSocket(h.Spec.Role)
}

// containerdNote says what the host's containerd had before, and which folders sealer has made; scripts/uninstall.sh reads it.
const containerdNote = keptDir + "/containerd"

// containerdArgs are the Clusterfile's arguments of the kubelet with the cgroup driver of a containerd that kubelets cannot ask for it: k3s
// tells that of its own containerd only.
func containerdArgs(c *runtime.Cluster, h *runtime.Host) []string {
	args, d := texts(asked(c, h)["kubelet-arg"]), h.Facts.Containerd
	if onContainerd(c, h) == "" || d == nil || d.Config == nil || d.TellsCgroups() || kubeletArg(args, cgroupDriver) != "" {
		return args
	}
	if d.Config.SystemdCgroup {
		return append(args, cgroupDriver+"=systemd")
	}
	return append(args, cgroupDriver+"=cgroupfs")
}

// containerdProblems: k3s puts the pod network's files below its data, whatever runs the containers.
func containerdProblems(c *runtime.Cluster, h *runtime.Host) []runtime.Problem {
	needs := runtime.ContainerdNeeds{Socket: onContainerd(c, h), Sandbox: pauseImage(c)}
	if serverAsked(c)["flannel-backend"] != "none" {
		needs.PodConf = dataDir + "/agent/etc/cni/net.d"
		needs.Plugins = []string{dataDir + "/data/cni", dataDir + "/data/current/bin"}
		// The first is there since these (github.com/k3s-io/k3s/pull/11872).
		if v, err := semver.NewVersion(c.Metadata.ClusterRuntimeVersion); err == nil && (v.Minor() == 31 && v.Patch() < 7 || v.Minor() == 32 && v.Patch() < 3) {
			needs.Plugins = needs.Plugins[1:]
		}
	}
	return runtime.ContainerdProblems(c, h, needs)
}

const (
	// containerdNoted asks whether the note $1 tells of the folder $2.
	containerdNoted = `grep -qxF "certs $2" "$1"`
	// noteContainerd writes into the note $1 what the containerd at the socket $2 has in Kubernetes' namespace, and that the folder $3 is used;
	// what is missing of that is made. Of what is noted first nothing is taken back.
	noteContainerd = `set -eu
note=$1; socket=$2; certs=$3
if [ ! -e "$note" ]; then
	mkdir -p "$(dirname "$note")"
	{
		echo "socket $socket"
		ctr --address "$socket" --namespace k8s.io containers list --quiet | sed 's/^/container /'
		ctr --address "$socket" --namespace k8s.io images list --quiet | sed 's/^/image /'
		# It watches its folder of pod networks, which it makes itself.
		for dir in /var/lib/rancher/k3s /var/lib/rancher/k3s/agent /var/lib/rancher/k3s/agent/etc /var/lib/rancher/k3s/agent/etc/cni; do
			[ ! -d "$dir" ] || echo "mode $(stat -c %a "$dir") $dir"
		done
	} >"$note.new"
	mv "$note.new" "$note"
fi
dir=$certs; missing=
while [ ! -d "$dir" ]; do missing="made $dir
$missing"; dir=$(dirname "$dir"); done
cp "$note" "$note.new"
{
	printf '%s' "$missing" # the outermost first
	grep -qxF "certs $certs" "$note" || echo "certs $certs"
} >>"$note.new"
mv "$note.new" "$note"
mkdir -p "$certs"
`
)

// certsDir is where the host's containerd looks for registries. The error is for one that was reconfigured since it was checked.
func certsDir(c *runtime.Cluster, h *runtime.Host) (string, error) {
	d := h.Facts.Containerd
	if d == nil || d.Config == nil || d.Config.CertsDir == "" {
		return "", fmt.Errorf("%s: its containerd at %s tells of no config_path for registries", h, onContainerd(c, h))
	}
	return path.Clean(d.Config.CertsDir), nil
}

// mirrorFiles are those of the host's containerd, by their paths.
func mirrorFiles(c *runtime.Cluster, h *runtime.Host) (dir string, list []runtime.MirrorFile, err error) {
	if dir, err = certsDir(c, h); err == nil {
		list, err = runtime.MirrorFiles(c.RegistryFor(h), dir+"/sealer-ca.crt")
	}
	return dir, list, err
}

// pointContainerd writes the files that the host's containerd reads at every pull: k3s tells only the one that it brings.
func pointContainerd(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "pointing the host's containerd at the cluster's registry",
		Done: func(ctx context.Context) (bool, error) {
			dir, list, err := mirrorFiles(c, h)
			if err != nil {
				return false, err
			}
			want := map[string][]byte{}
			if len(c.Registry.CA) > 0 {
				want[dir+"/sealer-ca.crt"] = c.Registry.CA
			}
			for _, f := range list {
				want[path.Join(dir, f.Dir, "hosts.toml")] = f.Data
			}
			for file, data := range want {
				if same, err := runtime.SameFile(ctx, h.Runner, file, data); err != nil || !same {
					return false, err
				}
			}
			return succeeds(ctx, h, "sh", "-c", containerdNoted, "sh", containerdNote, dir)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			dir, list, err := mirrorFiles(c, h)
			if err != nil {
				return err
			}
			if err := run(ctx, h, log, "sh", "-c", noteContainerd, "sh", containerdNote, onContainerd(c, h), dir); err != nil {
				return err
			}
			if err := runtime.DropMirrors(ctx, h.Runner, dir, list); err != nil {
				return err
			}
			if len(c.Registry.CA) > 0 {
				if err := host.WriteFile(ctx, h.Runner, dir+"/sealer-ca.crt", c.Registry.CA, 0o644); err != nil {
					return err
				}
			}
			for _, f := range list {
				if err := host.WriteFile(ctx, h.Runner, path.Join(dir, f.Dir, "hosts.toml"), f.Data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
