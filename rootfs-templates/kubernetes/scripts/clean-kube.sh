#!/bin/sh
# Puts the host back as it was before init-kube.sh, after kubeadm reset: files, kernel settings, network links,
# packet filter rules, swap, firewall. Works on a host where init-kube.sh was cut, too.
set -eu
DISTRIBUTION=kubernetes
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"

[ -f "$STATE/kube.list" ] || {
	finish
	exit 0
}
systemctl disable --quiet --now kubelet 2>/dev/null || :
remove_service_routes
unmount_below /var/lib/kubelet
clean_network
take_away kube
systemctl daemon-reload
systemctl reset-failed kubelet 2>/dev/null || :
restore_host
finish
say "the host is as it was before Kubernetes"
