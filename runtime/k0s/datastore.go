// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// ForeignStorageError is a datastore that k0s does not keep itself, and does not save.
type ForeignStorageError struct{ Host string }

func (e *ForeignStorageError) Error() string {
	return e.Host + ": the cluster keeps its data outside of k0s, whose backup leaves it out"
}

// Hint says who can.
func (e *ForeignStorageError) Hint() string {
	return "save and restore the datastore where it runs, with its own programs"
}

// saves tells whether k0s backup holds the cluster's data: its own etcd, or the file of SQLite.
func saves(c *runtime.Cluster) bool {
	return ownEtcd(c) || textAt(c, "storage", "type") == typeKine && !joinable(c)
}

// backup saves with $2 to $1: k0s gives the file a name of its own and lets everybody read it.
const backup = `set -eu
umask 077
dir=${1%/*}
mkdir -p "$dir"
part=$dir/.sealer-backup
rm -rf "$part"
mkdir -m 0700 "$part"
trap 'rm -rf "$part"' EXIT
timeout -k 5 900 "$2" backup --save-path "$part"
found=
for f in "$part"/*.tar.gz; do
	[ -f "$f" ] || continue
	[ -z "$found" ] || { echo "k0s backup made more than one file" >&2; exit 1; }
	found=$f
done
[ -n "$found" ] || { echo "k0s backup made no file" >&2; exit 1; }
chmod 0600 "$found"
sync "$found" 2>/dev/null || sync
mv -f "$found" "$1"
sync "$dir" 2>/dev/null || sync
`

// Snapshot saves the datastore, the certificates and the configuration: k0s' backup. It holds the cluster's secrets.
func (Distribution) Snapshot(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	return []runtime.Step{{
		Name: "saving the cluster's data to " + file + " (k0s backup)",
		Done: func(ctx context.Context) (bool, error) { return succeeds(ctx, h.Runner, "test", "-s", file) },
		Do: func(ctx context.Context, log io.Writer) error {
			if !saves(c) {
				return &ForeignStorageError{Host: h.String()}
			}
			return run(ctx, h, log, "sh", "-c", backup, "sh", file, k0sBin)
		},
	}}
}

// setAside keeps the datastore that the cluster has now beside it, until the next Restore.
const setAside = `set -eu
for name in etcd db; do
	if [ -e "$1/$name" ]; then
		rm -rf "$1/$name.before-restore"
		mv "$1/$name" "$1/$name.before-restore"
	fi
done
`

// restore has $2 restore $1. The etcd in it is begun at the address that k0s.yaml has in the archive: that of the host which it was made on.
// On another host, with the address $3, a copy that names this one is restored. The k0s.yaml that k0s writes is not needed: the host has one.
const restore = `set -eu
umask 077
part=${1%/*}/.sealer-restore
rm -rf "$part"
mkdir -m 0700 "$part"
trap 'rm -rf "$part"' EXIT
from=$1
mkdir "$part/all"
tar -xzf "$1" -C "$part/all"
address="^\( *peerAddress: *\).*"
if grep -q "$address" "$part/all/k0s.yaml" 2>/dev/null && ! grep -qx " *peerAddress: *[\"']\{0,1\}$3[\"']\{0,1\}" "$part/all/k0s.yaml"; then
	echo "the backup was made on another host: its etcd is begun at $3"
	sed "s/$address/\1\"$3\"/" "$part/all/k0s.yaml" >"$part/k0s.yaml"
	mv "$part/k0s.yaml" "$part/all/k0s.yaml"
	from=$part/backup.tar.gz
	(cd "$part/all" && tar -czf "$from" *)
fi
rm -rf "$part/all"
timeout -k 5 900 "$2" restore --config-out "$part/k0s.yaml" "$from"
`

// Restore puts what the file on h holds in the place of the cluster's data: all control planes stop, the one on h begins a
// new etcd with it, and the others join that anew. h need not be the host that the backup was made on.
func (d Distribution) Restore(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	var others []*runtime.Host
	for _, o := range c.ControlPlanes() {
		if o != h && o.Lost == nil {
			others = append(others, o)
		}
	}
	steps := []runtime.Step{
		{
			Name: "checking the snapshot",
			Do:   func(ctx context.Context, log io.Writer) error { return checkBackup(ctx, c, h, file, log) },
		},
		{
			Name: "stopping all control planes",
			Do: func(ctx context.Context, log io.Writer) error {
				for _, o := range append([]*runtime.Host{h}, others...) {
					if err := service(o).Stop(ctx, log); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			Name: "replacing the cluster's data (k0s restore)",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := run(ctx, h, log, "sh", "-c", setAside, "sh", dataDir); err != nil {
					return err
				}
				return run(ctx, h, log, "sh", "-c", restore, "sh", file, k0sBin, h.IP())
			},
		},
		{
			Name: "starting the control plane",
			Do: func(ctx context.Context, log io.Writer) error {
				return d.start(ctx, c, h, "", func(ctx context.Context) (bool, error) { return serves(ctx, h) }, log)
			},
		},
	}
	for _, o := range others {
		steps = append(steps, runtime.Step{
			Name: "joining the control plane of " + o.String() + " to it",
			Do:   func(ctx context.Context, log io.Writer) error { return d.rejoin(ctx, c, h, o, log) },
		})
	}
	return steps
}

// checkBackup reads the archive to its end.
func checkBackup(ctx context.Context, c *runtime.Cluster, h *runtime.Host, file string, log io.Writer) error {
	if !saves(c) {
		return &ForeignStorageError{Host: h.String()}
	}
	const read = `set -eu
[ -s "$1" ] || { echo "there is no snapshot $1" >&2; exit 1; }
tar -tzf "$1" >/dev/null
`
	return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", read, "sh", file}, Stdout: log, Stderr: log})
}

// rejoin makes a stopped control plane a member of the etcd that Restore has begun on h.
func (d Distribution) rejoin(ctx context.Context, c *runtime.Cluster, h, o *runtime.Host, log io.Writer) error {
	if err := run(ctx, o, log, "sh", "-c", setAside, "sh", dataDir); err != nil {
		return err
	}
	from := *c
	from.Contact = h // whom the other one joins
	// Nothing but the data is another one: the flags stay as they were, which the Clusterfile may have said.
	flags, there, err := installed(ctx, o)
	if err != nil {
		return err
	}
	switch {
	case !there:
		flags = installFlags(c, o, true)
	case !slices.Contains(flags, tokenFlag):
		flags = append(flags, tokenFlag)
	}
	if err := installUnit(ctx, o, flags, log); err != nil {
		return err
	}
	// The snapshot may know the member that was: it counts, and does not come any more.
	for _, s := range d.Leave(&from, o) {
		done, err := s.Done(ctx)
		if err == nil && !done {
			err = s.Do(ctx, log)
		}
		if err != nil {
			return err
		}
	}
	t, err := newToken(ctx, &from, o)
	if err != nil {
		return err
	}
	err = t.place(ctx, o)
	if err == nil {
		guard := fmt.Sprintf(guardToken, service(o).File())
		err = d.start(ctx, c, o, guard, func(ctx context.Context) (bool, error) { return d.isNode(ctx, &from, o) }, log)
	}
	return errors.Join(err, t.invalidate(ctx, &from))
}
