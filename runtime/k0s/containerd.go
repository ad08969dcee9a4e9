// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// k0s merges the *.toml of this folder into its containerd's configuration; folders in it are left alone.
const (
	dropIns  = configDir + "/containerd.d"
	certsDir = dropIns + "/certs.d"
	caFile   = certsDir + "/sealer-ca.crt"
	dropIn   = dropIns + "/sealer-registry.toml"
)

// containerd2 is the minor version of k0s that came with containerd 2. It does not start with drop-ins for 1.7, and
// one before it does not understand those for 2.
const containerd2 = 36

// registryDropIn tells containerd where hosts.toml is.
func registryDropIn(minor int) string {
	section, format := "io.containerd.grpc.v1.cri", 2
	if minor >= containerd2 {
		section, format = "io.containerd.cri.v1.images", 3
	}
	return fmt.Sprintf("# Written by sealer: all images come from the cluster's registry.\nversion = %d\n\n[plugins.%q.registry]\nconfig_path = %q\n",
		format, section, certsDir)
}

type placedFile struct {
	path string
	data []byte
	mode fs.FileMode
}

func registryFiles(c *runtime.Cluster) ([]placedFile, error) {
	minor, err := minorOf(version(c))
	if err != nil {
		return nil, err
	}
	hosts, err := runtime.MirrorFiles(c.Registry, caFile)
	if err != nil {
		return nil, err
	}
	var files []placedFile
	if len(c.Registry.CA) > 0 {
		files = append(files, placedFile{caFile, c.Registry.CA, 0o644})
	}
	for _, f := range hosts {
		files = append(files, placedFile{path.Join(certsDir, f.Dir, "hosts.toml"), f.Data, 0o600})
	}
	// The drop-in goes last: from it on containerd looks at the others.
	return append(files, placedFile{dropIn, []byte(registryDropIn(minor)), 0o644}), nil
}

// copyDropIns puts the image's own drop-ins, etc/containerd.d/*.toml of the rootfs, beside ours, and takes those away that an
// earlier image brought; $4 is the list. $3 is the format that this containerd reads.
const copyDropIns = `set -eu
if [ -f "$4" ]; then
	while read -r name; do
		[ -f "$1/etc/containerd.d/$name" ] || rm -f "$2/$name"
	done <"$4"
fi
mkdir -p "${4%/*}"
: >"$4.part"
for f in "$1"/etc/containerd.d/*.toml; do
	[ -f "$f" ] || continue
	if ! grep -Eq "^version *= *$3( |#|\$)" "$f"; then
		echo "etc/containerd.d/${f##*/} of the image must begin with version = $3, for the containerd of this k0s" >&2
		exit 1
	fi
	echo "${f##*/}" >>"$4.part"
	mkdir -p "$2"
	cmp -s "$f" "$2/${f##*/}" && continue
	cp "$f" "$2/.${f##*/}.sealer-new"
	chmod 0644 "$2/.${f##*/}.sealer-new"
	mv -f "$2/.${f##*/}.sealer-new" "$2/${f##*/}"
done
mv -f "$4.part" "$4"
`

// checkDropIns looks at the drop-ins that there will be: the image's, and those that others have put on the host. $4 lists what an earlier
// image brought, and $5 is ours, both of which are replaced.
const checkDropIns = `set -eu
status=0
for f in "$1"/etc/containerd.d/*.toml "$2"/*.toml; do
	[ -f "$f" ] || continue
	name=${f##*/}
	case $f in
	"$5") continue ;;
	"$2"/*) if [ -f "$1/etc/containerd.d/$name" ] || grep -qxF "$name" "$4" 2>/dev/null; then continue; fi ;;
	esac
	if ! grep -Eq "^version *= *$3( |#|\$)" "$f"; then
		echo "$f must begin with version = $3, for the containerd of the new k0s" >&2
		status=1
	fi
done
exit $status
`

// dropInFormat is the version of its configuration that the containerd of the image's k0s reads.
func dropInFormat(c *runtime.Cluster) (string, error) {
	minor, err := minorOf(version(c))
	if err != nil {
		return "", err
	}
	if minor >= containerd2 {
		return "3", nil
	}
	return "2", nil
}

// registryStep needs no restart: containerd reads hosts.toml at every pull, and k0s has containerd read new drop-ins.
func registryStep(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "pointing k0s' containerd at the cluster's registry",
		Key:  c.RootfsKey(h),
		Done: func(ctx context.Context) (bool, error) {
			files, err := registryFiles(c)
			if err != nil {
				return false, err
			}
			for _, f := range files {
				if same, err := runtime.SameFile(ctx, h.Runner, f.path, f.data); err != nil || !same {
					return false, err
				}
			}
			return true, nil
		},
		Do: func(ctx context.Context, log io.Writer) error {
			files, err := registryFiles(c)
			if err != nil {
				return err
			}
			format, err := dropInFormat(c)
			if err != nil {
				return err
			}
			if err := run(ctx, h, log, "sh", "-c", copyDropIns, "sh", path.Clean(h.Rootfs), dropIns, format, keptDir+"/drop-ins"); err != nil {
				return err
			}
			mirrors, err := runtime.MirrorFiles(c.Registry, caFile)
			if err != nil {
				return err
			}
			if err := runtime.DropMirrors(ctx, h.Runner, certsDir, mirrors); err != nil {
				return err
			}
			for _, f := range files {
				if err := host.WriteFile(ctx, h.Runner, f.path, f.data, f.mode); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// RegistryCAFile is the CA that hosts.toml names.
func (Distribution) RegistryCAFile() string { return caFile }
