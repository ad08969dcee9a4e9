# shellcheck shell=sh
# Puts the host back as prepare.sh has recorded it in the folder $1, after k0s reset, which leaves a lot, or instead of it where there
# is no k0s to ask. Running it again, or on a host where an installation was cut, is fine.
set -eu
STATE=$1
HOST_KUBECTL=$2
recorded() { [ -e "$STATE/recorded" ]; }

# Processes of k0s, and the containers that its containerd has left: systemd stops k0s itself only.
inner=true # false: this host is itself a pod of some cluster, and everything on it looks like one of ours
if grep -q '/kubepods' /proc/1/cgroup 2>/dev/null; then inner=false; fi
left() {
	for exe in /proc/[0-9]*/exe; do
		pid=${exe#/proc/}
		pid=${pid%/exe}
		target=$(readlink "$exe" 2>/dev/null) || continue
		case $target in
		/var/lib/k0s/bin/* | /usr/local/bin/k0s | "/usr/local/bin/k0s (deleted)") printf '%s\n' "$pid" ;;
		*) if $inner && grep -q '/kubepods' "/proc/$pid/cgroup" 2>/dev/null; then printf '%s\n' "$pid"; fi ;;
		esac
	done
}
if recorded; then
	tries=0
	while pids=$(left) && [ -n "$pids" ] && [ $tries -lt 5 ]; do
		# shellcheck disable=SC2086 # a list
		kill -9 $pids 2>/dev/null || :
		tries=$((tries + 1))
		sleep 1
	done
fi

unmount_below() {
	awk -v top="$1" '$2 == top || index($2, top "/") == 1 { print $2 }' /proc/self/mounts | sort -r |
		while IFS= read -r point; do
			umount "$(printf '%b' "$point")" 2>/dev/null || umount -l "$(printf '%b' "$point")" || :
		done
}
for dir in /var/lib/k0s /run/k0s /var/lib/kubelet; do unmount_below "$dir"; done
for unit in k0scontroller k0sworker; do
	rm -f "/etc/systemd/system/$unit.service" "/etc/init.d/$unit"
done
if command -v systemctl >/dev/null; then systemctl daemon-reload || :; fi
if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then rm -f /var/log/k0s.log /var/log/k0s.err; fi

# Services of IPVS are kube-proxy's where its link is; elsewhere they are somebody else's.
if recorded && [ -e /sys/class/net/kube-ipvs0 ] && command -v ipvsadm >/dev/null; then ipvsadm --clear || :; fi
# Network links of known pod networks, where they were not there before.
if [ -f "$STATE/links" ]; then
	for path in /sys/class/net/*; do
		link=$(basename "$path")
		if grep -qxF "$link" "$STATE/links"; then continue; fi
		case $link in
		kube-bridge | kube-dummy-if | kube-ipvs0 | dummyvip0 | tunl0 | cni0 | flannel.1 | flannel-v6.1 | \
			vxlan.calico | vxlan-v6.calico | wireguard.cali | wg-v6.cali | nodelocaldns | cali* | veth* | tun-*)
			ip link delete "$link" 2>/dev/null || :
			;;
		esac
	done
fi
# Routes to pods on other hosts.
if [ -s "$STATE/pods" ] && [ -f "$STATE/routes" ]; then
	for family in -4 -6; do
		ip "$family" route show 2>/dev/null | while read -r to rest; do
			if grep -qxF "$to $rest" "$STATE/routes"; then continue; fi
			while read -r prefix; do
				case $to in "$prefix"*) ip "$family" route delete "$to" 2>/dev/null || : ;; esac
			done <"$STATE/pods"
		done
	done
fi
if command -v ip >/dev/null; then
	ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }' | while read -r ns; do ip netns delete "$ns" || :; done
fi

# Packet filter rules of kubelet, kube-proxy, kube-router and calico; what others have made stays. k0s brings the programs
# where the host has none: reset.go keeps them in $STATE/xtables.
ours='KUBE-|CNI-|CNI_|cali-|cali:|kube-router'
clean_rules() { # SAVE RESTORE
	rules=$($1 2>/dev/null) || return 0
	if printf '%s\n' "$rules" | grep -Eq "$ours"; then
		printf '%s\n' "$rules" | grep -Ev "$ours" | $2 || :
	fi
}
if recorded; then
	for tool in iptables ip6tables iptables-legacy ip6tables-legacy; do
		if command -v "$tool-save" >/dev/null; then clean_rules "$tool-save" "$tool-restore"; fi
	done
	for multi in "$STATE"/xtables/xtables-*-multi; do
		[ -x "$multi" ] || continue
		for family in iptables ip6tables; do clean_rules "$multi $family-save" "$multi $family-restore"; done
	done
	if command -v ipset >/dev/null; then
		ipset list -name 2>/dev/null | grep -E '^(inet6:)?(KUBE-|kube-router-)' | while read -r set; do ipset destroy "$set" || :; done
	fi
fi
if recorded && command -v nft >/dev/null; then
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
			if [ $new = 1 ] && [ -s "$STATE/pods" ] && nft list table "$family" "$table" 2>/dev/null | grep -qFf "$STATE/pods"; then
				nft delete table "$family" "$table" || :
			fi
			;;
		esac
	done
fi
if recorded; then
	for dir in /opt/cni/bin /etc/cni/net.d; do
		for file in "$dir"/* "$dir"/.[!.]*; do
			if [ -e "$file" ] || [ -h "$file" ]; then
				grep -qxF "$file" "$STATE/files" || rm -rf "$file"
			fi
		done
	done
	for dir in /etc/k0s /var/lib/k0s /run/k0s /opt/cni/bin /opt/cni /etc/cni/net.d /etc/cni /var/lib/cni /var/lib/kubelet \
		/var/lib/calico /run/calico /run/flannel /var/lib/kube-router /var/log/pods /var/log/containers /var/log/calico \
		/usr/libexec/k0s /run/xtables.lock /run/netns; do
		if [ -e "$dir" ] && ! grep -qxF "$dir" "$STATE/folders"; then
			unmount_below "$dir"
			rm -rf "$dir"
		fi
	done
	# Folders of k0s that were there before us and empty, or hold what we never saw, stay but for what is ours.
	for file in k0s.yaml k0stoken containerd.toml containerd.d; do rm -rf "/etc/k0s/$file"; done
	rm -f /usr/local/bin/k0s /usr/local/bin/k0s.sealer-new
	if grep -q 'Written by sealer' "$HOST_KUBECTL" 2>/dev/null; then rm -f "$HOST_KUBECTL"; fi
fi
if [ -f "$STATE/users" ]; then
	for user in etcd kube-apiserver konnectivity-server kube-scheduler keepalived; do
		if grep -qxF "$user" "$STATE/users" || ! id "$user" >/dev/null 2>&1; then continue; fi
		if command -v userdel >/dev/null; then userdel "$user" || :; else deluser "$user" || :; fi
	done
fi
if [ -f "$STATE/sysctl" ]; then
	while read -r file value; do
		if [ "$(cat "$file" 2>/dev/null)" != "$value" ]; then
			printf '%s\n' "$value" >"$file" 2>/dev/null || echo "warning: $file cannot be put back to $value"
		fi
	done <"$STATE/sysctl"
fi
rm -rf "$STATE"
rmdir "${STATE%/*}" 2>/dev/null || :
