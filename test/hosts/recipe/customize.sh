#!/bin/sh
# Runs once while the image is built; $1 is its root.
set -eu
root=$1
chroot "$root" useradd --create-home --shell /bin/bash sealer
printf 'sealer ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/sealer"
chmod 440 "$root/etc/sudoers.d/sealer"
printf 'PermitRootLogin yes\nPasswordAuthentication yes\nUseDNS no\n' >"$root/etc/ssh/sshd_config.d/testhost.conf"
chmod 755 "$root/usr/local/lib/testhost/setup"
chmod 644 "$root/etc/systemd/system/host-setup.service"
chroot "$root" systemctl enable ssh.service host-setup.service

# Devices, file systems and timers are the machine's; a host that plays with them would disturb it or the other hosts.
chroot "$root" systemctl mask \
	systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service \
	getty.target console-getty.service getty@tty1.service \
	dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
	sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer

# Nothing in the image may be the same on two hosts, and nothing may hint at where packages could be fetched.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/var/lib/dbus/machine-id
: >"$root/etc/machine-id"
