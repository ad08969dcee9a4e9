#!/bin/sh
# Runs early at every boot of a test host and undoes what the container engine did to it that a machine of its own
# would not have. What is special to this host lies in /etc/testhost, put there before the first boot.
set -eu
own=/etc/testhost
# shellcheck source=/dev/null
. "$own/env"

# The engine lays files of its own over these three: they cannot be replaced by rename, and what is appended to them
# is lost at the next boot. Below them lie the host's real ones.
for name in hostname hosts resolv.conf; do
	while grep -q " /etc/$name " /proc/self/mountinfo; do umount "/etc/$name"; done
done

if [ ! -e "$own/installed" ]; then
	cp "$own/hostname" "$own/hosts" "$own/resolv.conf" /etc/
	chmod 644 /etc/hostname /etc/hosts /etc/resolv.conf
	install -m 600 "$own"/ssh_host_*_key /etc/ssh/
	install -m 644 "$own"/ssh_host_*_key.pub /etc/ssh/
	install -d -m 700 /root/.ssh
	install -m 600 "$own/authorized_keys" /root/.ssh/
	install -d -m 700 -o sealer -g sealer /home/sealer/.ssh
	install -m 600 -o sealer -g sealer "$own/authorized_keys" /home/sealer/.ssh/
	chpasswd <"$own/passwords"
	rm -f "$own"/ssh_host_* "$own/passwords"
	: >"$own/installed"
fi

# No way out: other hosts and the bridge are on the link, nothing else is reachable. NEXT_HOP, where it is set, is an
# address that nobody has: routes resolve, packets still go nowhere.
while ip -4 route del default 2>/dev/null; do :; done
while ip -6 route del default 2>/dev/null; do :; done
[ -z "${NEXT_HOP:-}" ] || ip -4 route add default via "$NEXT_HOP"

# The engine switches IPv6 off for links that are to come.
if [ -n "${IPV6:-}" ]; then
	for conf in all default; do echo 0 >"/proc/sys/net/ipv6/conf/$conf/disable_ipv6"; done
fi

# The rules that lead to the engine's own DNS server, which the host does not use.
for iptables in iptables-nft iptables-legacy; do
	case $iptables in *legacy) grep -qx nat /proc/net/ip_tables_names 2>/dev/null || continue ;; esac
	$iptables -w -t nat -F || true
	$iptables -w -t nat -X || true
done
nft delete table ip nat 2>/dev/null || true

# Hosts on one machine share its DMI tables: give each a product_uuid of its own, where there is one at all.
uuid=/sys/class/dmi/id/product_uuid
if [ -e "$uuid" ]; then
	echo "$HOST_UUID" >/run/product_uuid
	chmod 400 /run/product_uuid
	mount --bind /run/product_uuid "$uuid"
fi
