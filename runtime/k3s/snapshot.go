// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"

	"github.com/sealerio/sealer/runtime"
)

// ExternalError is a datastore that k3s does not keep itself.
type ExternalError struct{ Host string }

func (e *ExternalError) Error() string {
	return e.Host + ": the cluster's data is in an external datastore, which k3s does not save or restore"
}

// Hint says who does.
func (e *ExternalError) Hint() string { return "use the tools of that database" }

const (
	// k3s adds the node's name and the time to the name, so the snapshot is made in a folder of its own. It is k3s
	// that may print secrets of an S3 store on failure, hence no -x. $4 is for a k3s that is told to compress.
	saveEtcd = `set -eu
umask 077
dir=$(dirname "$2"); mkdir -p "$dir"
tmp=$(mktemp -d "$dir/.sealer-snapshot.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
if [ "$3" = true ]; then "$1" etcd-snapshot save --name sealer --dir "$tmp" --snapshot-compress=false; else "$1" etcd-snapshot save --name sealer --dir "$tmp"; fi
set -- "$2" "$tmp"/*
[ $# = 2 ] && [ -s "$2" ] || { echo "k3s made no snapshot" >&2; exit 1; }
chmod 0600 "$2"
sync "$2" 2>/dev/null || sync
mv -f "$2" "$1"
`
	// SQLite's files are only whole when nobody writes them.
	saveSQLite = `set -eu
umask 077
dir=$(dirname "$1"); mkdir -p "$dir"
trap 'rm -f "$1.new"' EXIT
tar -czf "$1.new" -C /var/lib/rancher/k3s/server db token
sync "$1.new" 2>/dev/null || sync
mv -f "$1.new" "$1"
`
	restoreSQLite = `set -eu
umask 077
cd /var/lib/rancher/k3s/server
rm -rf db.new; mkdir db.new
tar -xzf "$1" -C db.new
rm -rf db
mv db.new/db db
rm -rf db.new
`
	// k3s does not reset twice without a start between, which this file tells it.
	restoreEtcd = `set -eu
rm -f /var/lib/rancher/k3s/server/db/reset-flag
exec "$1" server --cluster-reset --cluster-reset-restore-path="$2"
`
	checkSQLite = `tar -tzf "$1" db/state.db token >/dev/null`
	isTar       = `[ "$(od -An -tx1 -N2 "$1" | tr -d ' ')" = 1f8b ]`
)

// Snapshot saves etcd's data by k3s, or SQLite's by stopping k3s for as long as that takes.
func (d Distribution) Snapshot(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	return []runtime.Step{{
		Name: "saving the cluster's data",
		Do: func(ctx context.Context, log io.Writer) error {
			have, err := present(ctx, h)
			if err != nil {
				return err
			}
			if have["datastore-endpoint"] != nil {
				return &ExternalError{Host: h.String()}
			}
			etcd, err := succeeds(ctx, h, "test", "-e", etcdData)
			if err != nil {
				return err
			}
			if etcd {
				return run(ctx, h, log, "sh", "-c", saveEtcd, "sh", binary, file, fmt.Sprint(have["etcd-snapshot-compress"]))
			}
			return d.stopped(ctx, c, h, log, have, func() error { return run(ctx, h, log, "sh", "-c", saveSQLite, "sh", file) })
		},
	}}
}

// stopped does something while the one server of a cluster does not run.
func (d Distribution) stopped(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer, have settings, do func() error) error {
	if err := service(h).Stop(ctx, log); err != nil {
		return err
	}
	done := do()
	if err := d.restart(context.WithoutCancel(ctx), h, log, known(c, have), func(ctx context.Context) (bool, error) { return d.serves(ctx, h) }); err != nil {
		return err
	}
	return done
}

// Restore puts a snapshot in the place of the data on h, which is alone then; the other servers join it anew, with what is
// on their hosts but the data.
func (d Distribution) Restore(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	var others []*runtime.Host
	for _, other := range c.ControlPlanes() {
		if other != h && other.Lost == nil {
			others = append(others, other)
		}
	}
	steps := []runtime.Step{{
		Name: "checking the snapshot",
		Do:   func(ctx context.Context, log io.Writer) error { return check(ctx, h, file, log) },
	}}
	for _, other := range others {
		steps = append(steps, runtime.Step{
			Name: "stopping k3s on " + other.String(),
			Do:   func(ctx context.Context, log io.Writer) error { return service(other).Stop(ctx, log) },
		})
	}
	steps = append(steps, runtime.Step{
		Name: "restoring the cluster's data",
		Do:   func(ctx context.Context, log io.Writer) error { return d.restore(ctx, c, h, file, log) },
	})
	for _, other := range others {
		steps = append(steps, runtime.Step{
			Name: "joining " + other.String() + " to the restored cluster",
			Do:   func(ctx context.Context, log io.Writer) error { return d.rejoin(ctx, c, h, other, log) },
		})
	}
	return steps
}

// NotEtcdError is a snapshot of SQLite for a cluster that has etcd by now.
type NotEtcdError struct{ Host, File string }

func (e *NotEtcdError) Error() string {
	return fmt.Sprintf("%s: the snapshot %s is one of SQLite, and the cluster's data is in etcd", e.Host, e.File)
}

// Hint says where it belongs.
func (e *NotEtcdError) Hint() string {
	return "restore it into a cluster of one control plane that has not had others: sealer delete --all, and sealer run"
}

// check reads the snapshot to its end, while the cluster still runs.
func check(ctx context.Context, h *runtime.Host, file string, log io.Writer) error {
	have, err := present(ctx, h)
	if err != nil {
		return err
	}
	if have["datastore-endpoint"] != nil {
		return &ExternalError{Host: h.String()}
	}
	sqlite, err := succeeds(ctx, h, "sh", "-c", isTar, "sh", file)
	if err != nil {
		return err
	}
	if !sqlite {
		return runtime.CheckEtcdSnapshot(ctx, h, file, log)
	}
	if err := run(ctx, h, log, "sh", "-c", checkSQLite, "sh", file); err != nil {
		return err
	}
	etcd, err := succeeds(ctx, h, "test", "-e", etcdData)
	if err == nil && etcd {
		err = &NotEtcdError{Host: h.String(), File: file}
	}
	return err
}

func (d Distribution) restore(ctx context.Context, c *runtime.Cluster, h *runtime.Host, file string, log io.Writer) error {
	have, err := present(ctx, h)
	if err != nil {
		return err
	}
	if have == nil {
		return fmt.Errorf("%s: it has no %s, which holds the token that the data is sealed with", h, configFile)
	}
	sqlite, err := succeeds(ctx, h, "sh", "-c", isTar, "sh", file)
	if err != nil {
		return err
	}
	if err := service(h).Stop(ctx, log); err != nil {
		return err
	}
	if sqlite {
		if err := run(ctx, h, log, "sh", "-c", restoreSQLite, "sh", file); err != nil {
			return err
		}
	} else {
		delete(have, "server") // it is the first one now
		have["cluster-init"] = true
		if err := write(ctx, h, have); err != nil {
			return err
		}
		if err := run(ctx, h, log, "sh", "-c", restoreEtcd, "sh", binary, file); err != nil {
			return err
		}
	}
	return d.restart(ctx, h, log, known(c, have), func(ctx context.Context) (bool, error) { return d.serves(ctx, h) })
}

// rejoin has a server forget its data. It asks h by its address: on a control plane the name stands for itself.
func (d Distribution) rejoin(ctx context.Context, c *runtime.Cluster, h, other *runtime.Host, log io.Writer) error {
	have, err := present(ctx, other)
	if err != nil {
		return err
	}
	if have == nil {
		return fmt.Errorf("%s: it has no %s: run the cluster's image again first", other, configFile)
	}
	secure, err := readToken(ctx, h)
	if err != nil {
		return err
	}
	delete(have, "cluster-init")
	have["server"], have["token"] = address(c, h), secure.whole.Reveal()
	if err := write(ctx, other, have); err != nil {
		return err
	}
	if err := run(ctx, other, log, "sh", "-c", `rm -rf -- "$1"`, "sh", dataDir+"/server/db"); err != nil {
		return err
	}
	return d.restart(ctx, other, log, known(c, have), func(ctx context.Context) (bool, error) {
		if ready, err := d.apiReady(ctx, other); err != nil || !ready {
			return false, err
		}
		return d.hasNode(ctx, h, other)
	})
}
