//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// snapshot prints what a host holds: files with modes, owners and, for the
// configuration, content; units; rules; links; routes; mounts; settings. What
// the system itself changes as time passes is left out.
const snapshot = `set -eu
find /etc /usr /opt /root /home /srv /var/lib /var/spool -xdev \
	\( -path /var/lib/systemd -o -path /var/lib/private -o -path /var/lib/dbus -o -path /etc/resolv.conf \) -prune \
	-o -printf '%p %y %m %U:%G %l\n' | sort
find /etc -xdev -type f ! -name resolv.conf -exec sha256sum {} + | sort -k2
if command -v rc-update >/dev/null; then
	rc-update show
	rc-status --all --nocolor 2>/dev/null | grep -v '^ \* ' | sed 's/([0-9]*)//; s/[0-9][0-9:]*//'
else
	systemctl list-unit-files --no-legend --no-pager | sort
	systemctl list-units --no-legend --no-pager --plain --type service,socket --state active | awk '{print $1}' |
		grep -v -E '^(systemd-|user@|user-runtime|dbus|session-)' | sort
fi
for save in iptables-save ip6tables-save; do
	$save | grep -v '^#' | sed 's/\[[0-9]*:[0-9]*\]//' | grep '^-' || true
done
for list in "nft list tables" "ipset list -n"; do
	if command -v "${list%% *}" >/dev/null; then $list | sort; fi
done
ip -o link | awk '{print $2}' | sed 's/@.*//' | sort
for family in -4 -6; do
	ip $family rule
	ip $family route
done
awk '{print $2, $3}' /proc/mounts | grep -v -E '^/run/(user|credentials)' | sort
ls /run/netns 2>/dev/null || true
cd /proc/sys/net # others are the machine's, not the host's
grep -s . ipv4/ip_forward ipv[46]/conf/all/* ipv[46]/conf/default/* || true
`

// snapshots of all hosts, by name.
func snapshots(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, h := range shared.Hosts.Hosts {
		out, err := h.Exec(t.Context(), "sh", "-c", snapshot)
		require.NoError(t, err, string(out))
		all[h.Name] = string(out)
	}
	return all
}

// unchanged requires of hosts that they hold what they held, and tells what they do not: a snapshot has thousands of lines.
func unchanged(t *testing.T, before, now map[string]string) {
	t.Helper()
	without := func(lines, others string) []string {
		known := map[string]bool{}
		for line := range strings.Lines(others) {
			known[line] = true
		}
		return slices.DeleteFunc(slices.Collect(strings.Lines(lines)), func(line string) bool { return known[line] })
	}
	require.Len(t, now, len(before))
	for name := range before {
		require.Empty(t, without(now[name], before[name]), "what is new on %s", name)
		require.Empty(t, without(before[name], now[name]), "what is gone from %s", name)
		require.True(t, before[name] == now[name], "%s has the same lines in another order or number", name)
	}
}
