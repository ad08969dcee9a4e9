# shellcheck shell=sh
# Records in the folder $1 how the host is before k0s: clean.sh needs it to tell what was there from what k0s and its pod
# network have made. Running it again records nothing: by then the host is changed. $PodCIDR is the pods'.
set -eu
STATE=$1
[ ! -e "$STATE/recorded" ] || exit 0
mkdir -p "$STATE"
chmod 0700 "$STATE"

# What kubelet, kube-proxy, kube-router and k0s itself change.
for name in net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv4.conf.default.forwarding net.ipv4.conf.all.rp_filter \
	net.ipv4.conf.all.route_localnet net.ipv6.conf.all.forwarding net.ipv6.conf.default.forwarding \
	net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables \
	vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes \
	net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_tcp_timeout_established \
	net.netfilter.nf_conntrack_tcp_timeout_close_wait; do
	file=/proc/sys/$(printf '%s' "$name" | tr . /)
	if [ -r "$file" ]; then printf '%s %s\n' "$file" "$(cat "$file")"; fi
done >"$STATE/sysctl"
for link in /sys/class/net/*; do basename "$link"; done >"$STATE/links"
{ ip -4 route show && ip -6 route show; } >"$STATE/routes" 2>/dev/null || :
{ nft list tables 2>/dev/null || :; } >"$STATE/tables"
# What addresses of pods begin with: 10.244.0.0/16 is 10.244. and fd00:10:244::/56 is fd00:10:244:
printf '%s\n' "${PodCIDR:-}" | tr , '\n' | awk -F/ '
	/:/ { sub(/::.*/, ":", $1); print $1 }
	/\./ { split($1, o, "."); s = ""; for (i = 1; i <= int($2 / 8); i++) s = s o[i] "."; if (s) print s }' >"$STATE/pods"
# Files in these folders that are there now stay; folders that are not there go again.
for dir in /opt/cni/bin /etc/cni/net.d; do
	for file in "$dir"/* "$dir"/.[!.]*; do
		if [ -e "$file" ] || [ -h "$file" ]; then printf '%s\n' "$file"; fi
	done
done >"$STATE/files"
for dir in /etc/k0s /var/lib/k0s /run/k0s /opt/cni/bin /opt/cni /etc/cni/net.d /etc/cni /var/lib/cni /var/lib/kubelet \
	/var/lib/calico /run/calico /run/flannel /var/lib/kube-router /var/log/pods /var/log/containers /var/log/calico \
	/usr/libexec/k0s /run/xtables.lock /run/netns; do
	if [ -e "$dir" ]; then printf '%s\n' "$dir"; fi
done >"$STATE/folders"
for user in etcd kube-apiserver konnectivity-server kube-scheduler keepalived; do
	if id "$user" >/dev/null 2>&1; then printf '%s\n' "$user"; fi
done >"$STATE/users"
: >"$STATE/recorded"
