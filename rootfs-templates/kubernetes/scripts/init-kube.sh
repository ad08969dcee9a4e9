#!/bin/sh
# Prepares a host for kubeadm: swap, kernel modules and settings, firewall, kubelet's unit, binaries. Running it
# again changes nothing; clean-kube.sh puts the host back. KeepSwap=true leaves swap on; ServiceCIDR and HostIP are
# for hosts without a default route, PodCIDR tells the pod network's leftovers.
set -eu
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

begin kube
for dir in /etc/kubernetes /var/lib/kubelet /var/lib/etcd /var/log/pods /var/log/containers \
	/usr/libexec/kubernetes /run/flannel /var/lib/calico /run/calico /run/netns /run/xtables.lock; do
	tree "$dir"
done
[ -e /lib/modules ] || note D /lib/modules # kube-proxy mounts it, and makes it where it is missing

# once FILE: has this been recorded? A second run would record what the first has changed.
once() { [ ! -e "$STATE/$1" ]; }
keep() { cat >"$STATE/$1.part" && mv "$STATE/$1.part" "$STATE/$1"; }

# Besides our own settings, those that kubelet and kube-proxy change.
settings="$(sed -n 's/^\([a-z0-9_.-]*\) *=.*/\1/p' "$ROOTFS/etc/sysctl.conf")
vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
net.ipv4.conf.all.route_localnet net.ipv6.conf.all.forwarding net.netfilter.nf_conntrack_max
net.netfilter.nf_conntrack_tcp_timeout_established net.netfilter.nf_conntrack_tcp_timeout_close_wait"
if once sysctl; then
	for name in $settings; do
		file=/proc/sys/$(printf '%s' "$name" | tr . /)
		[ -r "$file" ] && printf '%s %s\n' "$file" "$(cat "$file")"
	done | keep sysctl
fi
if once links; then
	for link in /sys/class/net/*; do basename "$link"; done | keep links
fi
if once routes; then
	{ ip -4 route show && ip -6 route show; } 2>/dev/null | keep routes
fi
if once tables; then
	{ nft list tables 2>/dev/null || :; } | keep tables
fi

# What addresses of pods begin with: 10.244.0.0/16 is 10.244. and fd00:10:244::/56 is fd00:10:244:
printf '%s\n' "${PodCIDR:-}" | tr , '\n' | awk -F/ '
	/:/ { sub(/::.*/, ":", $1); print $1 }
	/\./ { split($1, o, "."); s = ""; for (i = 1; i <= int($2 / 8); i++) s = s o[i] "."; if (s) print s }' | keep pods

if [ "${KeepSwap:-}" != true ]; then
	if once swap; then
		awk 'NR > 1 { print $1 }' /proc/swaps | keep swap
	fi
	if [ -s "$STATE/swap" ]; then
		swapoff -a
	fi
	if [ -f /etc/fstab ] && grep -q '^[^#].*[[:space:]]swap[[:space:]]' /etc/fstab; then
		once fstab && cp -p /etc/fstab "$STATE/fstab"
		sed 's/^\([^#].*[[:space:]]swap[[:space:]].*\)$/#sealer# \1/' /etc/fstab >/etc/fstab.sealer-new
		chmod --reference=/etc/fstab /etc/fstab.sealer-new 2>/dev/null || chmod 0644 /etc/fstab.sealer-new
		mv -f /etc/fstab.sealer-new /etc/fstab
	fi
fi

loaded() { [ -d "/sys/module/$1" ] || grep -qw "$1" /proc/filesystems; }
while read -r module; do
	loaded "$module" && continue
	if modprobe "$module" 2>/dev/null; then
		printf '%s\n' "$module" >>"$STATE/modules"
	else
		say "warning: the kernel module $module cannot be loaded: it may be built in, or pods may not reach one another"
	fi
done <"$ROOTFS/etc/modules.conf"
place "$ROOTFS/etc/modules.conf" /etc/modules-load.d/sealer-kubernetes.conf 0644

place "$ROOTFS/etc/sysctl.conf" /etc/sysctl.d/99-sealer-kubernetes.conf 0644
while IFS=' =' read -r name value; do
	file=/proc/sys/$(printf '%s' "$name" | tr . /)
	if [ ! -e "$file" ]; then
		say "warning: the kernel has no setting $name"
	elif [ "$(cat "$file")" != "$value" ]; then
		printf '%s\n' "$value" >"$file" || die "the kernel setting $name cannot be made $value"
	fi
done <"$ROOTFS/etc/sysctl.conf"

if systemctl is-active --quiet firewalld 2>/dev/null; then
	printf 'firewalld\n' >>"$STATE/firewall"
	systemctl disable --quiet --now firewalld
	say "firewalld is stopped: it would drop the traffic between pods"
fi
if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
	printf 'ufw\n' >>"$STATE/firewall"
	ufw --force disable >/dev/null
	say "ufw is stopped: it would drop the traffic between pods"
fi

for name in kubeadm kubelet kubectl; do
	[ -e "$ROOTFS/bin/$name" ] || die "the ClusterImage has no bin/$name"
	place "$ROOTFS/bin/$name" "/usr/local/bin/$name" 0755
done
place "$ROOTFS/etc/kubelet/kubelet.service" /etc/systemd/system/kubelet.service 0644
place "$ROOTFS/etc/kubelet/10-kubeadm.conf" /etc/systemd/system/kubelet.service.d/10-kubeadm.conf 0644
# Services' addresses exist in NAT rules alone, yet the kernel wants a route before it looks at those: a host
# without a default route would not reach a single service.
routes=
for cidr in $(printf '%s' "${ServiceCIDR:-}" | tr , ' '); do
	family=-4
	case $cidr in *:*) family=-6 ;; esac
	if [ -z "$(ip $family route show default)" ]; then
		link=$(ip -o addr show | awk -v ip="${HostIP:-}" 'index($4, ip "/") == 1 { print $2; exit }')
		[ -n "$link" ] || die "no interface has the address ${HostIP:-}"
		routes="$routes$(printf 'ExecStart=ip %s route replace %s dev %s\nExecStop=-ip %s route del %s dev %s\n.' "$family" "$cidr" "$link" "$family" "$cidr" "$link")"
		routes=${routes%.}
	fi
done
if [ -n "$routes" ]; then
	unit=$STATE/sealer-service-route.service
	{
		printf '[Unit]\nDescription=Route to the services of Kubernetes, on a host without a default route\n'
		printf 'Wants=network-online.target\nAfter=network-online.target\nBefore=kubelet.service\n\n'
		printf '[Service]\nType=oneshot\nRemainAfterExit=yes\n%s\n[Install]\nWantedBy=multi-user.target\n' "$routes"
	} >"$unit"
	place "$unit" /etc/systemd/system/sealer-service-route.service 0644
	systemctl daemon-reload
	systemctl enable --quiet sealer-service-route
	systemctl restart sealer-service-route
fi

folder /etc/kubernetes/manifests # kubelet watches it, and complains where it is missing
systemctl daemon-reload
systemctl enable --quiet kubelet # kubeadm starts it, when it has a configuration
say "the host is ready for kubeadm $(/usr/local/bin/kubeadm version -o short)"
