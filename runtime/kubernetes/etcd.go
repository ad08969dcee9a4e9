// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// etcdManifest is the static pod of a control plane's own etcd.
const etcdManifest = "/etc/kubernetes/manifests/etcd.yaml"

// ExternalEtcdError is a datastore that is not the cluster's own.
type ExternalEtcdError struct{ Host string }

func (e *ExternalEtcdError) Error() string {
	return e.Host + ": it has no etcd of its own: the cluster keeps its data in an external one"
}

// Hint says who can.
func (e *ExternalEtcdError) Hint() string {
	return "save and restore it where it runs, with etcdctl snapshot save and etcdutl snapshot restore"
}

// saveEtcd saves what etcd on this host has into the file $1; etcd goes on. Its container sees of the host only its
// data and its certificates, so the file is made beside the data.
const saveEtcd = `set -eu
umask 077
[ -f "$2" ] || exit 76
data=$(sed -n 's/^ *- --data-dir=//p' "$2")
endpoint=$(sed -n 's/^ *- --listen-client-urls=\([^,]*\).*/\1/p' "$2") # its loopback one goes first
id=$(crictl --timeout 30s ps --quiet --state Running --label io.kubernetes.container.name=etcd --label io.kubernetes.pod.namespace=kube-system | head -n 1)
[ -n "$id" ] || { echo "no etcd runs in a container" >&2; exit 1; }
pki=/etc/kubernetes/pki/etcd
part=$data/.sealer-snapshot
rm -f "$part" "$part.part"
crictl --timeout 10m exec --sync "$id" etcdctl --endpoints "${endpoint:-https://127.0.0.1:2379}" --cacert "$pki/ca.crt" --cert "$pki/server.crt" --key "$pki/server.key" \
	--command-timeout 10m snapshot save "$part"
mkdir -p "$(dirname "$1")"
cp "$part" "$1.part"
rm -f "$part"
sync "$1.part"
mv -f "$1.part" "$1"
sync "$(dirname "$1")"
`

const exitNoEtcd = 76

// Snapshot saves what etcd on h has into the file, mode 0600: it holds the cluster's secrets.
func (Distribution) Snapshot(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	if externalEtcd(c) {
		return nil
	}
	return []runtime.Step{{
		Name: "saving etcd's data to " + file,
		Done: func(ctx context.Context) (bool, error) { return succeeds(ctx, h.Runner, "test", "-s", file) },
		Do: func(ctx context.Context, log io.Writer) error {
			err := run(ctx, h, log, "sh", "-c", saveEtcd, "sh", file, etcdManifest)
			if exit, ok := errors.AsType[*host.ExitError](err); ok && exit.Code == exitNoEtcd {
				return &ExternalEtcdError{Host: h.String()}
			}
			return err
		},
	}}
}

// restoreDir keeps the manifests of control planes that are stopped.
const restoreDir = "/etc/kubernetes/sealer-restore"

// Restore puts what the file on h holds in the place of etcd's data: all control planes stop, the one on h begins a new
// etcd with it, and the others become its members anew. What was there is kept on h, beside the data, until the next Restore.
func (Distribution) Restore(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	var others []*runtime.Host
	for _, o := range c.ControlPlanes() {
		if o != h && o.Lost == nil {
			others = append(others, o)
		}
	}
	steps := []runtime.Step{
		{
			Name: "checking the snapshot",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := runtime.CheckEtcdSnapshot(ctx, h, file, log); err != nil {
					return err
				}
				return run(ctx, h, log, "sh", "-c", describeSnapshot, "sh", file, etcdManifest, restoreDir)
			},
		},
		{
			Name: "stopping all control planes",
			Do: func(ctx context.Context, log io.Writer) error {
				for _, o := range append([]*runtime.Host{h}, others...) {
					if err := run(ctx, o, log, "sh", "-c", stopControlPlane, "sh", restoreDir); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			Name: "replacing etcd's data",
			Do: func(ctx context.Context, log io.Writer) error {
				return run(ctx, h, log, "sh", "-c", restoreEtcd, "sh", file, restoreDir)
			},
		},
		{
			Name: "starting the control plane",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := run(ctx, h, log, "sh", "-c", startControlPlane, "sh", restoreDir, "etcd"); err != nil {
					return err
				}
				return waitAPI(ctx, h)
			},
		},
	}
	before, after := ownData(h)
	steps = append(steps, before...)
	for _, o := range others {
		steps = append(steps, runtime.Step{
			Name: "joining the control plane of " + o.String() + " to it",
			Do:   func(ctx context.Context, log io.Writer) error { return rejoinEtcd(ctx, c, h, o, log) },
		})
	}
	return append(steps, after...)
}

// etcdTool is a shell function: what the image of etcd brings, in a container of its own that sees the folder $1.
const etcdTool = `etcdtool() {
	mounted=$1
	shift
	ctr --namespace k8s.io run --rm --mount "type=bind,src=$mounted,dst=$mounted,options=rbind:rw" "$image" "sealer-etcd-$$" "$@"
}
manifest=$2
[ -f "$manifest" ] || manifest=$3/etcd.yaml
[ -f "$manifest" ] || { echo "there is no etcd on this host" >&2; exit 76; }
argument() { sed -n "s/^ *- --$1=//p" "$manifest"; }
image=$(sed -n 's/^ *image: *//p' "$manifest")
data=$(argument data-dir)
`

// describeSnapshot has etcd's own tool read what is in the file.
const describeSnapshot = `set -eu
` + etcdTool + `
etcdtool "$(dirname "$1")" etcdutl snapshot status "$1" --write-out table
`

// stopControlPlane takes the manifests away, and waits until the kubelet has stopped what they started. Seconds.
const stopControlPlane = `set -eu
mkdir -p -m 0700 "$1"
for name in kube-apiserver kube-controller-manager kube-scheduler etcd; do
	if [ -f "/etc/kubernetes/manifests/$name.yaml" ]; then
		mv -f "/etc/kubernetes/manifests/$name.yaml" "$1/$name.yaml"
	fi
done
left() {
	for name in kube-apiserver kube-controller-manager kube-scheduler etcd; do
		crictl --timeout 30s ps --quiet --state Running --label "io.kubernetes.container.name=$name" --label io.kubernetes.pod.namespace=kube-system
	done
}
for try in $(seq 180); do
	ids=$(left)
	[ -n "$ids" ] || exit 0
	if [ "$try" = 120 ]; then # the kubelet does not: it may not run
		for id in $ids; do crictl --timeout 60s stop --timeout 30 "$id" >/dev/null; done
	fi
	sleep 1
done
echo "the control plane does not stop" >&2
exit 1
`

// restoreEtcd makes a member of one out of the snapshot. Revisions go on far above those of the snapshot, or what watches
// the API would take the past for the present: https://etcd.io/docs/v3.6/op-guide/recovery. The token makes it a cluster of its own: members
// that were away meanwhile, and come back with what they had, would be taken for its own without it, and undo the restoration.
const restoreEtcd = `set -eu
umask 077
set -- "$1" /etc/kubernetes/manifests/etcd.yaml "$2"
` + etcdTool + `
name=$(argument name)
peer=$(argument initial-advertise-peer-urls)
rm -rf "$data/.sealer-restored"
cp "$1" "$data/.sealer-snapshot"
etcdtool "$data" etcdutl snapshot restore "$data/.sealer-snapshot" --data-dir "$data/.sealer-restored" \
	--name "$name" --initial-cluster "$name=$peer" --initial-advertise-peer-urls "$peer" \
	--initial-cluster-token "sealer-$(cat /proc/sys/kernel/random/uuid)" --bump-revision 1000000000 --mark-compacted
rm -f "$data/.sealer-snapshot"
[ -d "$data/.sealer-restored/member" ]
if [ -d "$data/member" ]; then
	rm -rf "$data/member.before-restore"
	mv "$data/member" "$data/member.before-restore"
fi
mv "$data/.sealer-restored/member" "$data/member"
rm -rf "$data/.sealer-restored"
sync
`

// startControlPlane puts the manifests back, etcd's first where $2 says so.
const startControlPlane = `set -eu
for name in $2 kube-apiserver kube-controller-manager kube-scheduler; do
	if [ -f "$1/$name.yaml" ]; then
		mv -f "$1/$name.yaml" "/etc/kubernetes/manifests/$name.yaml"
	fi
done
rm -rf "$1"
`

// emptyEtcd takes the data away that the cluster does not know any more.
const emptyEtcd = `set -eu
set -- x /etc/kubernetes/manifests/etcd.yaml "$1"
` + etcdTool + `
rm -rf "$data/member.before-restore"
if [ -d "$data/member" ]; then mv "$data/member" "$data/member.before-restore"; fi
`

// throughHost runs a command that finds the API server, whose name is $2, at the address $1. For all others the host's names stay
// what they are: a control plane asks its own API server, and that one is stopped.
const throughHost = `set -eu
sed "/[[:space:]]$2\\([[:space:]]\\|\$\\)/s/^[^[:space:]]*/$1/" /etc/hosts >"$3/hosts"
mount --bind "$3/hosts" /etc/hosts
shift 3
exec "$@"
`

// rejoinEtcd makes a stopped control plane a member of the etcd that Restore has begun, and starts it.
func rejoinEtcd(ctx context.Context, c *runtime.Cluster, h, o *runtime.Host, log io.Writer) error {
	if err := run(ctx, o, log, "sh", "-c", emptyEtcd, "sh", restoreDir); err != nil {
		return err
	}
	s, err := newSecrets(ctx, c, o, true, log)
	if err != nil {
		return err
	}
	config, err := joinConfig(c, o, s)
	if err != nil {
		return err
	}
	if err := host.WriteFile(ctx, o.Runner, joinFile, config, 0o600); err != nil {
		return err
	}
	phase := []string{"join", "phase", "etcd-join"} // since ControlPlaneKubeletLocalMode is on
	if m, err := minorOf(c.KubeVersion()); err == nil && m < 33 {
		phase = []string{"join", "phase", "control-plane-join", "etcd"}
	}
	argv := []string{"unshare", "--mount", "sh", "-c", throughHost, "sh", h.IP(), runtime.APIServerName, restoreDir}
	argv = append(argv, oneAtATime(append(phase, "--config", joinFile)...)...)
	err = run(ctx, o, log, argv...)
	if err := errors.Join(err, remove(ctx, o, joinFile), forget(ctx, c, s)); err != nil {
		return err
	}
	if err := run(ctx, o, log, "sh", "-c", startControlPlane, "sh", restoreDir, ""); err != nil {
		return err
	}
	return waitAPI(ctx, o)
}

// restoreTimeout is how long an API server may take to answer after its etcd was replaced.
const restoreTimeout = 5 * time.Minute

func waitAPI(ctx context.Context, h *runtime.Host) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	tick := time.NewTicker(apiInterval)
	defer tick.Stop()
	for {
		ready, err := apiReady(ctx, h)
		if err != nil || ready {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for the API server: %w", h, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
