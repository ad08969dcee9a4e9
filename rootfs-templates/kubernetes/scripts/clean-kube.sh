#!/bin/sh
# Puts the host back as it was before init-kube.sh, after kubeadm reset: files, kernel settings, network links,
# packet filter rules, swap, firewall. Works on a host where init-kube.sh was cut, too.
set -eu
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ -f "$STATE/kube.list" ] || {
	finish
	exit 0
}
systemctl disable --quiet --now kubelet 2>/dev/null || :
systemctl disable --quiet --now sealer-service-route 2>/dev/null || :
unmount_below /var/lib/kubelet

# Network links of known pod networks, where they were not there before.
if [ -f "$STATE/links" ]; then
	for path in /sys/class/net/*; do
		link=$(basename "$path")
		grep -qxF "$link" "$STATE/links" && continue
		case $link in
		cni0 | flannel.1 | flannel-v6.1 | flannel-wg | flannel-wg-v6 | kube-ipvs0 | kube-bridge | kube-dummy-if | \
			vxlan.calico | vxlan-v6.calico | nodelocaldns | cilium_host | cilium_net | cilium_vxlan | cali* | lxc* | veth*)
			ip link delete "$link" 2>/dev/null || :
			;;
		esac
	done
fi
# Routes to pods on other hosts, which stay where the pod network that set them is gone.
if [ -s "$STATE/pods" ] && [ -f "$STATE/routes" ]; then
	for family in -4 -6; do
		ip "$family" route show 2>/dev/null | while read -r to rest; do
			grep -qxF "$to $rest" "$STATE/routes" && continue
			while read -r prefix; do
				case $to in "$prefix"*) ip "$family" route delete "$to" 2>/dev/null || : ;; esac
			done <"$STATE/pods"
		done
	done
fi
if command -v ip >/dev/null; then
	ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }' | while read -r ns; do ip netns delete "$ns" || :; done
fi

# Packet filter rules of kube-proxy, kubelet and the CNI plugins; what others have made stays.
ours='KUBE-|CNI-|CNI_|cali-|cali:|flannel|CILIUM_'
for tool in iptables ip6tables iptables-legacy ip6tables-legacy; do
	command -v "$tool-save" >/dev/null || continue
	rules=$("$tool-save" 2>/dev/null) || continue
	if printf '%s\n' "$rules" | grep -Eq "$ours"; then
		printf '%s\n' "$rules" | grep -Ev "$ours" | "$tool-restore" || :
	fi
done
if command -v nft >/dev/null; then
	nft list tables 2>/dev/null | while read -r _ family table; do
		new=1
		if grep -qxF "table $family $table" "$STATE/tables" 2>/dev/null; then new=0; fi
		case $table in
		kube-proxy | cni_hostport | cni_plugins_masquerade) nft delete table "$family" "$table" || : ;;
		filter | nat | mangle | raw)
			# iptables made it for the rules that are gone: remove it where it is new and empty.
			if [ $new = 1 ] && ! nft list table "$family" "$table" 2>/dev/null | grep -qvE '^(#.*|table .*|[[:space:]]*chain .*|[[:space:]]*type .* policy accept;|[[:space:]]*\}?)$'; then
				nft delete table "$family" "$table" || :
			fi
			;;
		*)
			# A table that was not there before and speaks of pods is the pod network's.
			if [ $new = 1 ] && [ -s "$STATE/pods" ] && nft list table "$family" "$table" 2>/dev/null | grep -qFf "$STATE/pods"; then
				nft delete table "$family" "$table" || :
			fi
			;;
		esac
	done
fi
if command -v ipvsadm >/dev/null && [ -e /proc/net/ip_vs ]; then
	ipvsadm --clear || :
fi

take_away kube
systemctl daemon-reload
systemctl reset-failed kubelet 2>/dev/null || :

if [ -f "$STATE/sysctl" ]; then
	while read -r file value; do
		[ "$(cat "$file" 2>/dev/null)" = "$value" ] || printf '%s\n' "$value" >"$file" 2>/dev/null || say "warning: $file cannot be put back to $value"
	done <"$STATE/sysctl"
fi
if [ -f "$STATE/modules" ]; then
	while read -r module; do
		modprobe -r "$module" 2>/dev/null || : # others may use it by now
	done <"$STATE/modules"
fi
if [ -f "$STATE/fstab" ] && grep -q '^#sealer# ' /etc/fstab; then
	# Line by line, not the copy: the user may have changed other lines since.
	sed 's/^#sealer# //' /etc/fstab >/etc/fstab.sealer-new
	chmod --reference=/etc/fstab /etc/fstab.sealer-new 2>/dev/null || chmod 0644 /etc/fstab.sealer-new
	mv -f /etc/fstab.sealer-new /etc/fstab
fi
if [ -f "$STATE/swap" ]; then
	while read -r device; do
		swapon "$device" || say "warning: swap on $device cannot be switched on again"
	done <"$STATE/swap"
fi
if [ -f "$STATE/firewall" ]; then
	while read -r firewall; do
		case $firewall in
		firewalld) systemctl enable --quiet --now firewalld || say "warning: firewalld does not start" ;;
		ufw) ufw --force enable >/dev/null || say "warning: ufw does not start" ;;
		esac
	done <"$STATE/firewall"
fi
rm -f "$STATE/sysctl" "$STATE/links" "$STATE/routes" "$STATE/tables" "$STATE/pods" "$STATE/swap" "$STATE/modules" "$STATE/fstab" "$STATE/firewall"
finish
say "the host is as it was before Kubernetes"
