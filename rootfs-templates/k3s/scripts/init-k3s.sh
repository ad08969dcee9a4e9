#!/bin/sh
# Prepares a host for k3s: kernel modules and settings, firewall, cgroups under OpenRC. Running it again changes nothing;
# clean-k3s.sh puts the host back. k3s itself, its service and its configuration are sealer's work. ServiceCIDR and HostIP are
# for hosts without a default route, PodCIDR tells the pod network's leftovers.
set -eu
DISTRIBUTION=k3s
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"

begin k3s
for dir in /etc/rancher /var/lib/rancher /var/lib/kubelet /run/k3s /var/log/pods /var/log/containers \
	/etc/cni/net.d /var/lib/cni /run/flannel /run/netns /run/xtables.lock; do
	tree "$dir"
done
# These are what k3s, its kubelet and kube-proxy change.
record_host "vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
net.ipv4.conf.all.route_localnet net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding net.netfilter.nf_conntrack_max
net.netfilter.nf_conntrack_tcp_timeout_established net.netfilter.nf_conntrack_tcp_timeout_close_wait"
mount_cgroups
load_modules
set_kernel
stop_firewall
unmanage_links
place_service_routes k3s k3s-agent
say "the host is ready for k3s"
