# shellcheck shell=sh
# Prints what sealer wants to know of a host as key=value lines, one round trip. Reads only. POSIX sh; what is not
# there is left out. Its arguments are paths and units to look for. Parsed by facts.go.
p() { printf '%s=%s\n' "$1" "$2"; }
first() { head -n 1 2>/dev/null; }

p time "$(date -u +%s)"
p uid "$(id -u)"
p arch "$(uname -m)"
p kernel "$(uname -r)"
p hostname "$(cat /proc/sys/kernel/hostname)"
p machine-id "$(cat /etc/machine-id 2>/dev/null)"
# shellcheck source=/dev/null
(. /etc/os-release 2>/dev/null && p os "$ID" && p os-version "${VERSION_ID:-}" && p os-name "${PRETTY_NAME:-$ID}")
if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then p init openrc; else p init "$(cat /proc/1/comm 2>/dev/null)"; fi
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then p cgroup 2; else p cgroup 1; fi
if [ "$(cat /sys/fs/selinux/enforce 2>/dev/null)" = 1 ]; then p selinux enforcing; fi
p cpus "$(grep -c '^processor' /proc/cpuinfo)"
p memory "$(awk '/^MemTotal:/ { print $2 * 1024 }' /proc/meminfo)"
p swap "$(awk 'NR > 1' /proc/swaps 2>/dev/null | first)"
dir=/var/lib/sealer
while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
p disk-free "$(df -Pk "$dir" | awk 'NR == 2 { print $4 * 1024 }')"
for dir in /etc /var/lib /usr/local/bin; do
	[ -d "$dir" ] || continue
	options=$(df -P "$dir" | awk 'NR == 2 { print $NF }' | while read -r at; do
		awk -v at="$at" '$2 == at { o = $4 } END { print o }' /proc/self/mounts
	done)
	case ,$options, in *,ro,*) p read-only "$dir" ;; esac
	case ,$options, in *,noexec,*) p noexec "$dir" ;; esac
done
for file in /run/systemd/resolve/resolv.conf /etc/resolv.conf; do
	[ -r "$file" ] || continue
	awk '$1 == "nameserver" && $2 { print "nameserver=" $2 }' "$file"
	break
done
if [ -e /proc/net/route ]; then
	awk '$2 == "00000000" && $8 == "00000000" { print "default-route=" $1 }' /proc/net/route
fi
if [ -e /proc/net/ipv6_route ]; then
	# every kernel has an unreachable one on lo
	awk '$1 ~ /^0+$/ && $2 == "00" && $10 != "lo" { print "default-route=" $10 }' /proc/net/ipv6_route
fi
if [ -e /proc/net/if_inet6 ] && [ "$(cat /proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null)" != 1 ]; then p ipv6 on; fi
if [ -e /proc/net/ip_vs ] || PATH=$PATH:/usr/sbin:/sbin modprobe -n -q -a ip_vs ip_vs_rr 2>/dev/null; then p ipvs on; fi
for link in /sys/class/net/*; do p link "$(basename "$link")"; done
if command -v ip >/dev/null; then
	# what a kernel makes up for a while, and virtual addresses that others lend, are not a host's own
	ip -o addr show scope global 2>/dev/null | awk '!/ (temporary|deprecated|dadfailed)( |$)/ { print "address=" $4 " " $2 }'
fi
for table in tcp tcp6; do
	# 0A is LISTEN; the second field is ADDRESS:PORT in hexadecimal (proc_net(5))
	[ -r /proc/net/$table ] && awk -v t=$table '$4 == "0A" { print "listen=" t " " $2 }' /proc/net/$table
done
if command -v ss >/dev/null; then
	ss -Hlntp 2>/dev/null | awk '{ print "socket=" $4 " " $6 }'
fi
# containerd SOCKET tells of the one that listens there, if one does: its version, how it is configured, what it has.
option() { tr '\0' '\n' <"$1/cmdline" | awk -v short="$2" -v long="$3" 'take { print; exit } $0 == short || $0 == long { take = 1 }
	index($0, short "=") == 1 || index($0, long "=") == 1 { print substr($0, index($0, "=") + 1); exit }'; }
containerd() {
	[ -S "$1" ] || return 0
	p containerd "$1 $(timeout 10 ctr --address "$1" version 2>/dev/null | awk '/^Server:/ { server = 1 } server && $1 == "Version:" { print $2; exit }')"
	for proc in /proc/[0-9]*; do
		[ "$(cat "$proc/comm" 2>/dev/null)" = containerd ] || continue
		program=$(readlink "$proc/exe") && [ -x "$program" ] || program=containerd
		config=$(option "$proc" -c --config)
		address=$(option "$proc" -a --address)
		dump=$(timeout 10 "$program" --config "${config:-/etc/containerd/config.toml}" config dump 2>/dev/null) || continue
		p containerd-config "${address:--} $(printf '%s\n' "$dump" | base64 | tr -d '\n')"
		printf '%s\n' "$dump" | sed -n 's/^ *bin_dirs\{0,1\} *= *//p' | tr -d "[]'\" " | tr , '\n' | while IFS= read -r dir; do
			if [ -x "$dir/flannel" ]; then p path "$dir/flannel"; fi
		done
		printf '%s\n' "$dump" | sed -n "s/^ *config_path *= *['\"]\([^:'\"]*\).*/\1/p" | sort -u | while IFS= read -r certs; do
			for dir in "$certs"/*/; do
				[ -d "$dir" ] || continue
				read -r line 2>/dev/null <"$dir/hosts.toml" || line=
				case $line in "# Written by sealer:"*) ;; *) p containerd-mirror "${dir%/}" ;; esac
			done
		done
	done
	timeout 10 ctr --address "$1" --namespace k8s.io images list --quiet 2>/dev/null | sed 's/^/containerd-image=/'
}
units=
for note in /var/lib/sealer/*/containerd; do # a host of a cluster that runs by its own
	socket=$(sed -n 's/^socket //p' "$note" 2>/dev/null)
	if [ -n "$socket" ]; then set -- "$@" "containerd:$socket"; fi
done
seen=
for mark in "$@"; do
	case $mark in
	containerd:*)
		[ "$mark" = "$seen" ] || containerd "${mark#containerd:}"
		seen=$mark
		;;
	/*) if [ -e "$mark" ]; then p path "$mark"; fi ;;
	*) units="$units $mark" ;;
	esac
done
for conf in /etc/cni/net.d/*; do
	if [ -f "$conf" ]; then p path "$conf"; fi
done
if [ -n "$units" ] && command -v systemctl >/dev/null; then
	# shellcheck disable=SC2086 # a list
	systemctl show --property=Id,LoadState,ActiveState $units \
		2>/dev/null | awk -F= '$1 == "Id" { id = $2 } $1 == "LoadState" { load = $2 } $1 == "ActiveState" { active = $2 }
			id && load && active { print "unit=" id " " load " " active; id = load = active = "" }'
fi
if command -v docker >/dev/null && [ -S /var/run/docker.sock ]; then # one that hangs is one that does not answer
	p docker "$(DOCKER_HOST=unix:///var/run/docker.sock timeout 10 docker info --format '{{.ServerVersion}} {{.CgroupDriver}}' 2>/dev/null)"
fi
if [ -f /etc/sealer/state.json ]; then p state "$(tr -d '\n' </etc/sealer/state.json)"; fi
p end 1
