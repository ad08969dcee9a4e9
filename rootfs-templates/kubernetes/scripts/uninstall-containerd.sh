#!/bin/sh
# Takes containerd away, with everything that containerd.sh placed and containerd made. Works on a host where
# containerd.sh was cut, too.
set -eu
DISTRIBUTION=kubernetes
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ -f "$STATE/containerd.list" ] || {
	finish
	exit 0
}
if systemctl is-active --quiet containerd && [ -x /usr/local/bin/crictl ]; then
	/usr/local/bin/crictl --timeout 60s rmp --all --force >/dev/null 2>&1 || :
fi
systemctl disable --quiet --now containerd 2>/dev/null || :
# KillMode=process leaves the shims, and they hold what runs in the containers.
for exe in /proc/[0-9]*/exe; do
	case $(readlink "$exe" 2>/dev/null) in
	/usr/local/bin/containerd-shim-runc-v2*)
		pid=${exe#/proc/}
		pid=${pid%/exe}
		# shellcheck disable=SC2046 # a list of process ids
		kill -KILL $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) "$pid" 2>/dev/null || :
		;;
	esac
done
systemctl stop kubepods.slice 2>/dev/null || : # pods' cgroups, transient units of the kubelet
unmount_below /run/containerd
unmount_below /var/lib/containerd
take_away containerd
systemctl daemon-reload
systemctl reset-failed containerd 2>/dev/null || :
finish
say "containerd is gone"
