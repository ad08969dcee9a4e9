// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// enter makes a copy of this machine's files in $1, in namespaces of its own, and runs $1/run in it.
const enter = `set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 77
mount -t proc proc "$1/root/proc"
mount -t sysfs sysfs "$1/root/sys"
mount -t tmpfs tmpfs "$1/root/run"
mkdir "$1/root/run/scripts"
cp scripts/*.sh "$1/root/run/scripts/"
cat >"$1/root/run/scripts/run"
exec chroot "$1/root" sh /run/scripts/run
`

// live lets k0s happen to the machine, without k0s, and puts the machine back.
const live = `set -eux
own=/var/lib/sealer/k0s/own
rm -rf /etc/k0s /var/lib/k0s /etc/cni /opt/cni /var/lib/kubelet /usr/local/bin/k0s /usr/local/bin/kubectl
mkdir -p /opt/cni/bin /var/lib/sealer
echo mine >/opt/cni/bin/mine
names() { find /etc /opt /usr/local/bin /var/lib -xdev | grep -v '/passwd-$\|/shadow-$\|/group-$\|/gshadow-$' | sort; cat /etc/passwd; }
names >/run/before
PodCIDR=10.244.0.0/16 sh /run/scripts/prepare.sh $own
PodCIDR=10.1.0.0/16 sh /run/scripts/prepare.sh $own
[ "$(cat $own/pods)" = 10.244. ] # the second time records nothing

mkdir -p /etc/k0s/containerd.d/certs.d /var/lib/k0s/pki /var/lib/k0s/bin /run/k0s /var/lib/kubelet /etc/cni/net.d
echo x >/etc/k0s/k0s.yaml
echo x >/opt/cni/bin/bridge
echo x >/etc/cni/net.d/10-kuberouter.conflist
cp /bin/sleep /var/lib/k0s/bin/containerd-shim-runc-v2
/var/lib/k0s/bin/containerd-shim-runc-v2 1000 &
cp /bin/true /usr/local/bin/k0s
printf '#!/bin/sh\n# Written by sealer: the kubectl that k0s holds.\n' >/usr/local/bin/kubectl
mkdir -p /etc/systemd/system
touch /etc/systemd/system/k0sworker.service
mount -t tmpfs tmpfs /var/lib/kubelet
grep -q '^kube-scheduler:' /etc/passwd || echo kube-scheduler:x:64123:64123::/:/bin/false >>/etc/passwd
rules=
if iptables-save >/dev/null 2>&1; then
	rules=yes
	iptables -N KUBE-FORWARD
	iptables -A FORWARD -j KUBE-FORWARD
	iptables -A INPUT -p tcp --dport 9 -j ACCEPT
fi

sh /run/scripts/clean.sh $own /usr/local/bin/kubectl
rmdir /var/lib/sealer/k0s 2>/dev/null || :
names >/run/after
diff /run/before /run/after
wait
if grep -q /var/lib/kubelet /proc/self/mounts; then exit 1; fi
[ ! -e /run/k0s ]
if [ -n "$rules" ]; then
	iptables-save | grep -q -- '--dport 9' # somebody else's stays
	if iptables-save | grep -q KUBE; then exit 1; fi
fi
sh /run/scripts/clean.sh $own /usr/local/bin/kubectl # again
`

// What k0s and its pods leave is gone, and what was there before stays, on a copy of this machine.
func TestClean(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces of its own")
	}
	script, err := os.CreateTemp(t.TempDir(), "live")
	require.NoError(t, err)
	_, err = script.WriteString(live)
	require.NoError(t, err)
	_, err = script.Seek(0, 0)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Mkdir(dir, 0o700))
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", enter, "sh", dir)
	cmd.Stdin = script
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 {
		t.Skip("no overlay file system here")
	}
	require.NoError(t, err, "%s", out)
}
