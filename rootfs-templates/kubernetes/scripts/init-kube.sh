#!/bin/sh
# Prepares a host for kubeadm: swap, kernel modules and settings, firewall, kubelet's unit, binaries. Running it
# again changes nothing; clean-kube.sh puts the host back. KeepSwap=true leaves swap on; ServiceCIDR and HostIP are
# for hosts without a default route, PodCIDR tells the pod network's leftovers.
set -eu
DISTRIBUTION=kubernetes
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"

begin kube
for dir in /etc/kubernetes /var/lib/kubelet /var/lib/etcd /var/log/pods /var/log/containers \
	/usr/libexec/kubernetes /run/flannel /var/lib/calico /run/calico /run/netns /run/xtables.lock; do
	tree "$dir"
done
[ -e /lib/modules ] || note D /lib/modules # kube-proxy mounts it, and makes it where it is missing

# These are what kubelet and kube-proxy change.
record_host "vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
net.ipv4.conf.all.route_localnet net.ipv6.conf.all.forwarding net.netfilter.nf_conntrack_max
net.netfilter.nf_conntrack_tcp_timeout_established net.netfilter.nf_conntrack_tcp_timeout_close_wait"
if [ "${KeepSwap:-}" != true ]; then
	swap_off
fi
load_modules
set_kernel
stop_firewall
unmanage_links

for name in kubeadm kubelet kubectl; do
	[ -e "$ROOTFS/bin/$name" ] || die "the ClusterImage has no bin/$name"
	place "$ROOTFS/bin/$name" "/usr/local/bin/$name" 0755
done
place "$ROOTFS/etc/kubelet/kubelet.service" /etc/systemd/system/kubelet.service 0644
place "$ROOTFS/etc/kubelet/10-kubeadm.conf" /etc/systemd/system/kubelet.service.d/10-kubeadm.conf 0644
place_service_routes kubelet

folder /etc/kubernetes/manifests # kubelet watches it, and complains where it is missing
systemctl daemon-reload
systemctl enable --quiet kubelet # kubeadm starts it, when it has a configuration
say "the host is ready for kubeadm $(/usr/local/bin/kubeadm version -o short)"
