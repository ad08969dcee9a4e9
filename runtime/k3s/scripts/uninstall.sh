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

# stop_pods: processes of containers, and those that watch them, survive k3s.
stop_pods() {
	if [ -x "$bin/k3s-killall.sh" ]; then "$bin/k3s-killall.sh" || :; fi
	for dir in /proc/[0-9]*; do
		pid=${dir#/proc/}
		if [ "$pid" != $$ ] && { grep -q kubepods "$dir/cgroup" || tr '\0' ' ' <"$dir/cmdline" | grep -q '/k3s/data/[^/ ]*/bin/'; }; then
			kill -9 "$pid"
		fi
	done 2>/dev/null
	if [ $docker = 1 ] && command -v docker >/dev/null; then
		docker ps --all --quiet --filter name=k8s_ | xargs -r docker rm --force >/dev/null || :
	fi
}
stop_pods

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
for tool in iptables ip6tables; do
	command -v "$tool-save" >/dev/null || continue
	rules=$("$tool-save" 2>/dev/null) || continue
	if printf '%s\n' "$rules" | grep -Eq 'KUBE-|CNI-|flannel'; then
		printf '%s\n' "$rules" | grep -Ev 'KUBE-|CNI-|flannel' | "$tool-restore" || :
	fi
done

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
# Folders that were there before and empty are noted so, and stay.
for dir in /etc/rancher /var/lib/rancher; do
	grep -qxF "C $dir" /var/lib/sealer/k3s/k3s.list 2>/dev/null || rmdir "$dir" 2>/dev/null || :
done
