# shellcheck shell=sh
# Prints what may keep anything from being installed, for a step that has failed. Reads only. Parsed by ailments.go.
for dir in /etc /var/lib /var/lib/sealer /var/lib/containerd /var/lib/rancher /var/lib/k0s /var/lib/etcd /usr/local/bin /run /tmp; do
	[ -d "$dir" ] || continue
	at=$(df -P "$dir" | awk 'NR == 2 { print $NF }')
	case ,$(awk -v at="$at" '$2 == at { o = $4 } END { print o }' /proc/self/mounts), in *,ro,*) printf 'read-only=%s %s\n' "$dir" "$at" ;; esac
	printf 'free=%s %s %s\n' "$dir" "$at" "$(df -Pk "$dir" | awk 'NR == 2 { print $4 }')"
	inodes=$(df -Pi "$dir" 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')
	[ -z "$inodes" ] || printf 'inodes=%s %s %s\n' "$dir" "$at" "$inodes"
done
echo end=1
