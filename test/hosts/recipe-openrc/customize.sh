#!/bin/sh
# Runs once while the image is built; $1 is its root.
set -eu
root=$1
chroot "$root" useradd --create-home --shell /bin/bash sealer
printf 'sealer ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/sealer"
chmod 440 "$root/etc/sudoers.d/sealer"
printf 'PermitRootLogin yes\nPasswordAuthentication yes\nUseDNS no\n' >"$root/etc/ssh/sshd_config.d/testhost.conf"

# Devices and file systems are the machine's.
printf 'rc_sys="docker"\nrc_logger="NO"\n' >>"$root/etc/rc.conf"
ln -sf openrc-init "$root/sbin/init"
# Those of Debian's packages are for its old init, and name services that are not there.
rm -f "$root"/etc/init.d/hwclock.sh "$root"/etc/init.d/kmod "$root"/etc/init.d/procps "$root"/etc/init.d/ssh "$root"/etc/init.d/sudo
cat >"$root/etc/init.d/host-setup" <<-'EOF'
	#!/sbin/openrc-run
	description="Turn a container into a test host"
	start() {
		/usr/local/lib/testhost/setup
	}
EOF
cat >"$root/etc/init.d/testhost-sshd" <<-'EOF'
	#!/sbin/openrc-run
	supervisor=supervise-daemon
	command=/usr/sbin/sshd
	command_args="-D -e"
	pidfile=/run/testhost-sshd.pid
	output_log=/var/log/sshd.log
	error_log=/var/log/sshd.log
	start_pre() {
		mkdir -p /run/sshd /run/lock
	}
EOF
chmod 755 "$root/usr/local/lib/testhost/setup" "$root/etc/init.d/host-setup" "$root/etc/init.d/testhost-sshd"
rm -rf "$root"/etc/runlevels/*/* "$root/etc/systemd"
ln -s /etc/init.d/host-setup "$root/etc/runlevels/sysinit/host-setup"
ln -s /etc/init.d/testhost-sshd "$root/etc/runlevels/default/testhost-sshd"

# Nothing in the image may be the same on two hosts, and nothing may hint at where packages could be fetched.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/etc/machine-id
