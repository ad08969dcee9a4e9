#!/bin/sh
# Takes k3s off this host: by the script that k3s' own installer has left, and what that leaves or was never made. It
# is fine with a k3s that was installed in part. Kept on the host by sealer.
set -u
bin=/usr/local/bin
docker=0
if grep -q '^docker: true$' /etc/rancher/k3s/config.yaml 2>/dev/null; then docker=1; fi

for name in k3s k3s-agent; do
	if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then
		[ -e "/etc/init.d/$name" ] || continue
		rc-service --quiet --ifstarted "$name" stop || :
	else
		[ -e "/etc/systemd/system/$name.service" ] || continue
		systemctl disable --quiet "$name" 2>/dev/null || :
		systemctl stop "$name" || :
	fi
done

# The host's own containerd, where k3s has had it run containers: what it had before is noted, and stays. All else of Kubernetes goes, with the
# files that told it of the cluster's registry.
note=/var/lib/sealer/k3s/containerd
clear_containerd() {
	socket=$(sed -n 's/^socket //p' "$note")
	k8s() { timeout 60 ctr --address "$socket" --namespace k8s.io "$@"; }
	if [ -S "$socket" ] && k8s version >/dev/null; then
		own=
		if "$bin/k3s" crictl --version >/dev/null 2>&1; then own="$bin/k3s"; fi
		cri() { timeout 60 ${own:+"$own"} crictl --runtime-endpoint "unix://$socket" "$@"; }
		for pod in $(cri pods --quiet 2>/dev/null); do
			grep -qxF "container $pod" "$note" || cri rmp --force "$pod" >/dev/null || :
		done
		for container in $(k8s containers list --quiet); do # where there is no crictl
			grep -qxF "container $container" "$note" && continue
			k8s tasks kill --signal KILL "$container" 2>/dev/null || :
			k8s tasks delete --force "$container" 2>/dev/null || :
			k8s containers delete "$container" || :
		done
		for image in $(k8s images list --quiet); do
			grep -qxF "image $image" "$note" || k8s images delete --sync "$image" >/dev/null || :
		done
	fi
	sed -n 's/^certs //p' "$note" | while IFS= read -r certs; do
		for file in "$certs"/*/hosts.toml; do
			[ -f "$file" ] || continue
			read -r line <"$file" || :
			case $line in "# Written by sealer:"*) rm -f "$file" ;; *) continue ;; esac
			rmdir "${file%/hosts.toml}" 2>/dev/null || :
		done
		rm -f "$certs/sealer-ca.crt"
	done
	sed -n 's/^made //p' "$note" | sort -r | while IFS= read -r dir; do rmdir "$dir" 2>/dev/null || :; done
	# A folder of pod networks that goes while containerd watches it would end its watch, and with containerd 2 its CRI. So it is moved out of the
	# way as it is.
	if [ -d "$networks" ] && grep -q "^mode [0-9]* $networks\$" "$note"; then
		rm -f "$networks"/*/*
		rm -rf "$aside"
		mv "$networks" "$aside"
	fi
}
networks=/var/lib/rancher/k3s/agent/etc/cni
aside=/var/lib/rancher/.sealer-cni
if [ -e "$note" ]; then clear_containerd; fi

# stop_pods: processes of containers, and those that watch them, survive k3s.
inner=true # false: this host is itself a pod of some cluster, and everything on it looks like one of ours
if grep -q '/kubepods' /proc/1/cgroup 2>/dev/null; then inner=false; fi
stop_pods() {
	if [ -x "$bin/k3s-killall.sh" ]; then "$bin/k3s-killall.sh" || :; fi
	for dir in /proc/[0-9]*; do
		pid=${dir#/proc/}
		if [ "$pid" != $$ ] && { { $inner && grep -q kubepods "$dir/cgroup"; } || tr '\0' ' ' <"$dir/cmdline" | grep -q '/k3s/data/[^/ ]*/bin/'; }; then
			kill -9 "$pid"
		fi
	done 2>/dev/null
	if [ $docker = 1 ] && command -v docker >/dev/null; then
		docker ps --all --quiet --filter name=k8s_ | xargs -r docker rm --force >/dev/null || :
	fi
}
stop_pods

# Packet filter rules of k3s and of what it holds: kube-proxy, flannel, kube-router's network policies. k3s brings the programs where the host
# has none, so this is done while its data is there.
ours='KUBE-|CNI-|CNI_|flannel|FLANNEL-|kube-router'
remove_rules() (
	for dir in /var/lib/rancher/k3s/data/*/bin; do
		if [ -d "$dir" ]; then PATH=$PATH:$dir:$dir/aux; fi
	done
	for tool in iptables ip6tables iptables-legacy ip6tables-legacy; do
		command -v "$tool-save" >/dev/null || continue
		rules=$("$tool-save" 2>/dev/null) || continue
		if printf '%s\n' "$rules" | grep -Eq "$ours"; then
			printf '%s\n' "$rules" | grep -Ev "$ours" | "$tool-restore" || :
		fi
	done
	if command -v ipset >/dev/null; then
		ipset list -name 2>/dev/null | grep -E '^(inet6:)?(KUBE-|kube-router-)' | while read -r set; do ipset destroy "$set" || :; done
	fi
	if command -v nft >/dev/null; then
		nft list tables 2>/dev/null | while read -r _ family table; do
			case $table in kube-proxy | cni_hostport | cni_plugins_masquerade) nft delete table "$family" "$table" || : ;; esac
		done
	fi
	if [ -e /sys/class/net/kube-ipvs0 ] && command -v ipvsadm >/dev/null; then ipvsadm --clear || :; fi
)
remove_rules

for script in k3s-uninstall.sh k3s-agent-uninstall.sh; do
	[ -x "$bin/$script" ] || continue
	"$bin/$script" || {
		echo "$script failed: taking k3s away without it" >&2
		stop_pods
	}
done

set -e
awk '$2 ~ "^(/run/k3s|/var/lib/rancher/k3s|/var/lib/kubelet|/run/netns/cni-)" { print $2 }' /proc/self/mounts | sort -r |
	while IFS= read -r point; do
		umount "$(printf '%b' "$point")" 2>/dev/null || umount -l "$(printf '%b' "$point")" || :
	done
if command -v ip >/dev/null; then
	for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do
		if [ -e "/sys/class/net/$link" ]; then ip link delete "$link" || :; fi
	done
	ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }' | while read -r ns; do ip netns delete "$ns" || :; done
fi
if [ -e /etc/init.d/sealer-default-route ]; then
	rc-service --quiet --ifstarted sealer-default-route stop || :
	rc-update --quiet del sealer-default-route default || :
	rm -f /etc/init.d/sealer-default-route
elif [ -e /etc/systemd/system/sealer-default-route.service ]; then
	systemctl disable --quiet --now sealer-default-route || :
	rm -f /etc/systemd/system/sealer-default-route.service
fi
if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then
	for name in k3s k3s-agent; do
		rc-update --quiet del "$name" default 2>/dev/null || :
		rm -f "/etc/init.d/$name" "/etc/logrotate.d/$name" "/var/log/$name.log"
	done
else
	rm -f /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service \
		/etc/systemd/system/k3s.service.env /etc/systemd/system/k3s-agent.service.env
	systemctl daemon-reload
	systemctl reset-failed k3s.service k3s-agent.service 2>/dev/null || :
fi
for tool in kubectl crictl ctr; do
	case $(readlink "$bin/$tool" 2>/dev/null || :) in k3s | "$bin/k3s") rm -f "$bin/$tool" ;; esac
done
rm -f "$bin/k3s" "$bin/k3s.sealer-new" "$bin/k3s-killall.sh" "$bin/k3s-uninstall.sh" "$bin/k3s-agent-uninstall.sh"
rm -rf /etc/rancher/k3s /etc/rancher/node /run/k3s /run/flannel /var/lib/rancher/k3s /var/lib/kubelet /var/lib/cni
if [ -d "$aside" ]; then
	mkdir -p "${networks%/*}"
	mv "$aside" "$networks"
	sed -n 's/^mode //p' "$note" | while read -r mode dir; do chmod "$mode" "$dir"; done
fi
# Folders that were there before and empty are noted so, and stay.
for dir in /etc/rancher /var/lib/rancher; do
	grep -qxF "C $dir" /var/lib/sealer/k3s/k3s.list 2>/dev/null || rmdir "$dir" 2>/dev/null || :
done
