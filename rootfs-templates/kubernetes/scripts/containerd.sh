#!/bin/sh
# Installs containerd, runc, crictl and the CNI plugins of this rootfs and waits until containerd answers.
# Running it again changes nothing; uninstall-containerd.sh puts the host back.
set -eu
DISTRIBUTION=kubernetes
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

begin containerd
for dir in /etc/containerd /var/lib/containerd /run/containerd /opt/containerd /run/nri \
	/etc/cni/net.d /var/lib/cni /opt/cni; do
	tree "$dir"
done

for name in containerd containerd-shim-runc-v2 ctr runc crictl; do
	[ -e "$ROOTFS/bin/$name" ] || die "the ClusterImage has no bin/$name"
	place "$ROOTFS/bin/$name" "/usr/local/bin/$name" 0755
done
plugins=$CHANGED # a new plugin or client needs no restart
for plugin in "$ROOTFS"/cni/*; do
	[ -f "$plugin" ] && place "$plugin" "/opt/cni/bin/$(basename "$plugin")" 0755
done
folder /etc/cni/net.d
place "$ROOTFS/etc/crictl.yaml" /etc/crictl.yaml 0644
CHANGED=$plugins

# "containerd github.com/containerd/containerd/v2 v2.3.6 0123abc"
version=$(/usr/local/bin/containerd --version)
case $version in
*" v2."* | *" 2."*) config="config.toml" ;;
*" v1.7."* | *" 1.7."*) config="config-1.7.toml" ;;
*) die "containerd 1.7 or 2 is needed, and this is: $version" ;;
esac
place "$ROOTFS/etc/containerd/$config" /etc/containerd/config.toml 0644
for extra in "$ROOTFS"/etc/containerd/conf.d/*.toml; do
	[ -f "$extra" ] && place "$extra" "/etc/containerd/conf.d/$(basename "$extra")" 0644
done
# containerd 1.7 takes a plugin's section from the last file that has it, and so would ask other registries than ours.
case $(/usr/local/bin/containerd --config /etc/containerd/config.toml config dump) in
*/etc/containerd/certs.d*) ;;
*) die "a file in /etc/containerd/conf.d replaces the registry's config_path: with this version it has to hold the whole section that it changes, as /etc/containerd/config.toml has it" ;;
esac
place "$ROOTFS/etc/containerd/containerd.service" /etc/systemd/system/containerd.service 0644

systemctl daemon-reload
systemctl enable --quiet containerd
if [ "$CHANGED" = 1 ] || ! systemctl is-active --quiet containerd; then
	# Type=notify: this returns when containerd answers. Containers go on running.
	systemctl restart containerd || {
		journalctl --unit containerd --no-pager --lines=20 --output=cat >&2 || : # why: status shows this start alone
		die "containerd does not start"
	}
fi
/usr/local/bin/crictl --timeout 30s info >/dev/null || die "containerd runs, but its CRI plugin does not answer: see journalctl -u containerd"
say "containerd is ready: $version"
