# shellcheck shell=sh
# What every distribution wants of a host: kernel modules and settings, swap, firewall, routes. All of it is recorded in
# $STATE before it is changed, and put back by restore_host. Needs lib.sh; works with nftables or iptables, systemd or OpenRC.

# once FILE: has this been recorded? A second run would record what the first has changed.
once() { [ ! -e "$STATE/$1" ]; }
keep() { cat >"$STATE/$1.part" && mv "$STATE/$1.part" "$STATE/$1"; }

# record_host SETTINGS: the values of these kernel settings and of our own, network links, routes and tables, and what the
# addresses of pods begin with, of $PodCIDR: 10.244.0.0/16 is 10.244. and fd00:10:244::/56 is fd00:10:244:
record_host() {
	if once sysctl; then
		for name in $(sed -n 's/^\([a-z0-9_.-]*\) *=.*/\1/p' "$ROOTFS/etc/sysctl.conf") $1; do
			file=/proc/sys/$(printf '%s' "$name" | tr . /)
			[ -r "$file" ] && printf '%s %s\n' "$file" "$(cat "$file")"
		done | keep sysctl
		if wants_ipv6; then
			for file in /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra; do
				if [ -r "$file" ]; then printf '%s %s\n' "$file" "$(cat "$file")"; fi
			done >>"$STATE/sysctl"
		fi
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
	printf '%s\n' "${PodCIDR:-}" | tr , '\n' | awk -F/ '
		/:/ { sub(/::.*/, ":", $1); print $1 }
		/\./ { split($1, o, "."); s = ""; for (i = 1; i <= int($2 / 8); i++) s = s o[i] "."; if (s) print s }' | keep pods
}

# swap_off: now and after a restart.
swap_off() {
	if once swap; then
		awk 'NR > 1 { print $1 }' /proc/swaps | keep swap
	fi
	if [ -s "$STATE/swap" ]; then
		swapoff -a
	fi
	if [ -f /etc/fstab ] && grep -q '^[^#].*[[:space:]]swap[[:space:]]' /etc/fstab; then
		once fstab && cp -p /etc/fstab "$STATE/fstab"
		sed 's/^\([^#].*[[:space:]]swap[[:space:]].*\)$/#sealer# \1/' /etc/fstab >/etc/fstab.sealer-new
		replace_fstab
	fi
}

replace_fstab() {
	chmod --reference=/etc/fstab /etc/fstab.sealer-new 2>/dev/null || chmod 0644 /etc/fstab.sealer-new
	mv -f /etc/fstab.sealer-new /etc/fstab
}

# load_modules: those of etc/modules.conf, now and after a restart.
load_modules() {
	while read -r module; do
		if [ -d "/sys/module/$module" ] || grep -qw "$module" /proc/filesystems; then
			continue
		fi
		if modprobe "$module" 2>/dev/null; then
			printf '%s\n' "$module" >>"$STATE/modules"
		else
			say "warning: the kernel module $module cannot be loaded: it may be built in, or pods may not reach one another"
		fi
	done <"$ROOTFS/etc/modules.conf"
	place "$ROOTFS/etc/modules.conf" "/etc/modules-load.d/sealer-$DISTRIBUTION.conf" 0644
}

# wants_ipv6: pods have IPv6 addresses.
wants_ipv6() {
	case ${PodCIDR:-} in *:*) return 0 ;; *) return 1 ;; esac
}

# forward_ipv6: the settings by which a host takes packets of IPv6 from pod to pod. One that forwards listens to router advertisements
# no more unless its links say 2 (https://docs.kernel.org/networking/ip-sysctl.html): those that live by them would lose their routes.
forward_ipv6() {
	printf 'net.ipv6.conf.all.forwarding = 1\nnet.ipv6.conf.default.forwarding = 1\n'
	while read -r link; do
		if [ "$(cat "/proc/sys/net/ipv6/conf/$link/accept_ra" 2>/dev/null)" = 1 ]; then
			printf 'net/ipv6/conf/%s/accept_ra = 2\n' "$link" # with slashes: a link's name may have dots
		fi
	done <"$STATE/links"
}

# set_kernel: the settings of etc/sysctl.conf, and those for IPv6 where pods have it, now and after a restart.
set_kernel() {
	if wants_ipv6 && once ipv6.conf; then forward_ipv6 | keep ipv6.conf; fi
	{
		cat "$ROOTFS/etc/sysctl.conf"
		if [ -e "$STATE/ipv6.conf" ]; then cat "$STATE/ipv6.conf"; fi
	} | keep sysctl.conf
	place "$STATE/sysctl.conf" "/etc/sysctl.d/99-sealer-$DISTRIBUTION.conf" 0644
	while IFS=' =' read -r name value; do
		case $name in
		*/*) file=/proc/sys/$name ;;
		*) file=/proc/sys/$(printf '%s' "$name" | tr . /) ;;
		esac
		if [ ! -e "$file" ]; then
			say "warning: the kernel has no setting $name"
		elif [ "$(cat "$file")" != "$value" ]; then
			printf '%s\n' "$value" >"$file" || die "the kernel setting $name cannot be made $value"
		fi
	done <"$STATE/sysctl.conf"
}

# stop_firewall: those that would drop the traffic between pods.
stop_firewall() {
	if command -v systemctl >/dev/null && systemctl is-active --quiet firewalld 2>/dev/null; then
		printf 'firewalld\n' >>"$STATE/firewall"
		systemctl disable --quiet --now firewalld
		say "firewalld is stopped: it would drop the traffic between pods"
	fi
	if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
		printf 'ufw\n' >>"$STATE/firewall"
		ufw --force disable >/dev/null
		say "ufw is stopped: it would drop the traffic between pods"
	fi
}

# unmanage_links: NetworkManager would take addresses from links of pod networks.
unmanage_links() {
	[ -d /etc/NetworkManager ] || return 0
	printf '[keyfile]\nunmanaged-devices=interface-name:cni*;interface-name:flannel*;interface-name:cali*;interface-name:tunl*;interface-name:vxlan.calico;interface-name:kube-*;interface-name:veth*\n' >"$STATE/networkmanager.conf"
	place "$STATE/networkmanager.conf" "/etc/NetworkManager/conf.d/sealer-$DISTRIBUTION.conf" 0644
	if command -v nmcli >/dev/null; then
		nmcli general reload conf 2>/dev/null || : # it may not be running
	fi
}

# mount_cgroups: OpenRC mounts them in a service that need not be on; systemd always does.
mount_cgroups() {
	if [ ! -e /etc/init.d/cgroups ] || rc-service --quiet cgroups status 2>/dev/null; then
		return 0
	fi
	printf 'cgroups\n' >"$STATE/cgroups"
	rc-update --quiet add cgroups default
	rc-service --quiet cgroups start
}

# service_routes: services' addresses exist in NAT rules alone, yet the kernel wants a route before it looks at those: a
# host without a default route would not reach a single service of $ServiceCIDR. $HostIP tells the interface. Prints the
# commands that make the routes, and with "del" those that take them away.
service_routes() {
	for cidr in $(printf '%s' "${ServiceCIDR:-}" | tr , ' '); do
		family=-4
		case $cidr in *:*) family=-6 ;; esac
		[ -n "$(ip $family route show default)" ] && continue
		link=$(ip -o addr show | awk -v ip="${HostIP:-}" 'index($4, ip "/") == 1 { print $2; exit }')
		[ -n "$link" ] || die "no interface has the address ${HostIP:-}"
		printf 'ip %s route %s %s dev %s\n' "$family" "$1" "$cidr" "$link"
	done
}

# place_service_routes UNIT...: a service of systemd or OpenRC that makes the routes before these start, where some are wanted.
place_service_routes() {
	add=$(service_routes replace)
	[ -n "$add" ] || return 0
	del=$(service_routes del)
	if command -v systemctl >/dev/null; then
		unit=$STATE/sealer-service-route.service
		{
			printf '[Unit]\nDescription=Route to the services of Kubernetes, on a host without a default route\n'
			printf 'Wants=network-online.target\nAfter=network-online.target\n'
			printf 'Before=%s.service\n' "$@"
			printf '\n'
			printf '[Service]\nType=oneshot\nRemainAfterExit=yes\n'
			printf '%s\n' "$add" | sed 's/^/ExecStart=/'
			printf '%s\n' "$del" | sed 's/^/ExecStop=-/'
			printf '\n[Install]\nWantedBy=multi-user.target\n'
		} >"$unit"
		place "$unit" /etc/systemd/system/sealer-service-route.service 0644
		systemctl daemon-reload
		systemctl enable --quiet sealer-service-route
		systemctl restart sealer-service-route
	else
		unit=$STATE/sealer-service-route
		{
			printf '#!/sbin/openrc-run\ndescription="Route to the services of Kubernetes, on a host without a default route"\n'
			printf 'depend() {\n\tafter net\n\tbefore %s\n}\n' "$*"
			printf 'start() {\n%s\n}\nstop() {\n%s\n\treturn 0\n}\n' "$add" "$del"
		} >"$unit"
		place "$unit" /etc/init.d/sealer-service-route 0755
		rc-update --quiet add sealer-service-route default
		rc-service --quiet --ifstopped sealer-service-route start
	fi
}

# remove_service_routes: what place_service_routes has started.
remove_service_routes() {
	if command -v systemctl >/dev/null; then
		systemctl disable --quiet --now sealer-service-route 2>/dev/null || :
	elif [ -e /etc/init.d/sealer-service-route ]; then
		rc-service --quiet --ifstarted sealer-service-route stop || :
		rc-update --quiet del sealer-service-route default || :
	fi
}

# clean_network: links, routes, network namespaces and packet filter rules that were not there before.
clean_network() {
	# Services of IPVS are kube-proxy's where its link is; elsewhere they are somebody else's.
	if [ -e /sys/class/net/kube-ipvs0 ] && command -v ipvsadm >/dev/null; then ipvsadm --clear || :; fi
	remove_links
	remove_routes
	if command -v ip >/dev/null; then
		ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }' | while read -r ns; do ip netns delete "$ns" || :; done
	fi
	remove_rules
	remove_sets
	remove_tables
}

# remove_links: network links of known pod networks.
remove_links() {
	[ -f "$STATE/links" ] || return 0
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
}

# remove_routes: routes to pods on other hosts, which stay where the pod network that set them is gone.
remove_routes() {
	if [ ! -s "$STATE/pods" ] || [ ! -f "$STATE/routes" ]; then
		return 0
	fi
	for family in -4 -6; do
		ip "$family" route show 2>/dev/null | while read -r to rest; do
			grep -qxF "$to $rest" "$STATE/routes" && continue
			while read -r prefix; do
				case $to in "$prefix"*) ip "$family" route delete "$to" 2>/dev/null || : ;; esac
			done <"$STATE/pods"
		done
	done
}

# remove_rules: packet filter rules of kube-proxy, kubelet and the CNI plugins; what others have made stays.
remove_rules() {
	ours='KUBE-|CNI-|CNI_|cali-|cali:|flannel|FLANNEL-|kube-router|CILIUM_'
	for tool in iptables ip6tables iptables-legacy ip6tables-legacy; do
		command -v "$tool-save" >/dev/null || continue
		rules=$("$tool-save" 2>/dev/null) || continue
		if printf '%s\n' "$rules" | grep -Eq "$ours"; then
			printf '%s\n' "$rules" | grep -Ev "$ours" | "$tool-restore" || :
		fi
	done
}

# remove_sets: those that the rules asked.
remove_sets() {
	command -v ipset >/dev/null || return 0
	ipset list -name 2>/dev/null | grep -E '^(inet6:)?(KUBE-|kube-router-)' | while read -r set; do ipset destroy "$set" || :; done
}

remove_tables() {
	command -v nft >/dev/null || return 0
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
}

# restore_host: kernel settings and modules, swap and firewall as they were recorded; the records go.
restore_host() {
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
		replace_fstab
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
	if [ -f "$STATE/cgroups" ]; then
		rc-update --quiet del cgroups default || : # they stay mounted until the host restarts
	fi
	for record in sysctl sysctl.conf ipv6.conf links routes tables pods swap modules fstab firewall \
		sealer-service-route sealer-service-route.service networkmanager.conf cgroups; do
		rm -f "$STATE/$record"
	done
}
