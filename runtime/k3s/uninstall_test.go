// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// enter makes a copy of this machine's files in $1, in namespaces of its own, and runs what it reads in it.
const enter = `set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 77
mount -t proc proc "$1/root/proc"
mount -t sysfs sysfs "$1/root/sys"
mount -t tmpfs tmpfs "$1/root/run"
cp scripts/uninstall.sh "$1/root/run/uninstall.sh"
cat >"$1/root/run/script"
exec chroot "$1/root" sh /run/script
`

// bundled lets k3s happen to a machine without iptables, which k3s brings, and takes it away. The program stands for all of them under its
// several names, as k3s' own does.
const bundled = `set -eux
[ -x /usr/sbin/xtables-nft-multi ] || exit 77
mkdir -p /run/kept /run/systemd/system
cp /usr/sbin/xtables-nft-multi /run/kept/
rm -f /usr/sbin/*tables* /sbin/*tables* /usr/sbin/nft /usr/sbin/ipset
ln -sf /bin/true "$(command -v systemctl)" # no systemd runs here
rm -rf /etc/rancher /var/lib/rancher /var/lib/kubelet /usr/local/bin/k3s
names() { find /etc /usr/local/bin /var/lib -xdev | sort; }
names >/run/before
aux=/var/lib/rancher/k3s/data/0123/bin/aux
mkdir -p $aux /etc/rancher/k3s
cp /run/kept/xtables-nft-multi $aux/
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
	ln -s xtables-nft-multi $aux/$name
	ln -s xtables-nft-multi /run/kept/$name
done
/run/kept/iptables-save >/dev/null || exit 77
if command -v iptables-save; then exit 1; fi
for chain in KUBE-FORWARD FLANNEL-FWD KUBE-ROUTER-INPUT; do
	$aux/iptables -N $chain
	$aux/iptables -A FORWARD -j $chain
done
$aux/iptables -A INPUT -p tcp --dport 9 -j ACCEPT
$aux/ip6tables -N KUBE-FORWARD
cp /bin/true /usr/local/bin/k3s
sh /run/uninstall.sh
names >/run/after
diff /run/before /run/after
/run/kept/iptables-save | grep -q -- '--dport 9' # somebody else's stays
if /run/kept/iptables-save | grep -E 'KUBE|FLANNEL'; then exit 1; fi
if /run/kept/ip6tables-save | grep KUBE; then exit 1; fi
sh /run/uninstall.sh # again
`

// Rules of k3s go from hosts that have no iptables, too.
func TestUninstall_BundledPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces of its own")
	}
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Mkdir(dir, 0o700))
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", enter, "sh", dir)
	cmd.Stdin = strings.NewReader(bundled)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 {
		t.Skip("no overlay file system or no iptables here")
	}
	require.NoError(t, err, "%s", out)
}
