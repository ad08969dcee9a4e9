//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
)

// contextOnHost is where a template's files are put.
const contextOnHost = "/tmp/sealer-template"

// putContext copies a distribution's template to a host.
func putContext(t *testing.T, h hosts.Host, distribution string) {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, folder := range []string{"shared", distribution} {
		require.NoError(t, w.AddFS(os.DirFS(filepath.Join(shared.Source, "rootfs-templates", folder))))
	}
	require.NoError(t, w.Close())
	dash(t, h, "rm -rf "+contextOnHost+" && mkdir "+contextOnHost)
	require.NoError(t, h.Pipe(t.Context(), &packed, io.Discard, io.Discard, "tar", "-xf", "-", "-C", contextOnHost))
	t.Cleanup(func() { dash(t, h, "rm -rf "+contextOnHost) })
	for _, folder := range []string{"shared", distribution} {
		require.NoError(t, fs.WalkDir(os.DirFS(filepath.Join(shared.Source, "rootfs-templates", folder)), "scripts", func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				dash(t, h, "chmod 755 "+contextOnHost+"/"+path)
			}
			return err
		}))
	}
}

// dash runs shell text and returns what it prints, also after the test.
func dash(t *testing.T, h hosts.Host, text string) string {
	t.Helper()
	var out, errs bytes.Buffer
	err := h.Pipe(context.WithoutCancel(t.Context()), nil, &out, &errs, "dash", "-euc", text)
	require.NoError(t, err, "%s\n%s%s", text, &out, &errs)
	return out.String()
}

// podNetwork leaves on a host what a cluster does, beside what is somebody else's.
const podNetwork = `
mkdir -p /etc/cni/net.d /var/lib/cni /run/flannel
echo '{}' > /etc/cni/net.d/10-flannel.conflist
ip link add cni0 type bridge
ip addr add 10.42.0.1/24 dev cni0
ip link set cni0 up
iptables -t nat -N KUBE-SERVICES
iptables -t nat -A PREROUTING -j KUBE-SERVICES
iptables -N THEIRS
iptables -A THEIRS -s 192.0.2.1 -j DROP
nft add table ip kube-proxy
nft add table ip podnet
nft add chain ip podnet pods
nft add rule ip podnet pods ip saddr 10.42.0.0/16 counter
nft add table inet theirs
`

// The scripts of k3s' and k0s' templates prepare a host, change nothing a second time, and put it back as it was.
func TestTemplates_Scripts(t *testing.T) {
	h := shared.Hosts.Hosts[0]
	const environment = "PodCIDR=10.42.0.0/16 ServiceCIDR=10.43.0.0/16 HostIP="
	for distribution, folder := range map[string]string{"k3s": "/etc/rancher/k3s", "k0s": "/etc/k0s"} {
		t.Run(distribution, func(t *testing.T) {
			putContext(t, h, distribution)
			init := environment + h.Address.String() + " " + contextOnHost + "/scripts/init-" + distribution + ".sh"
			clean := "/var/lib/sealer/" + distribution + "/scripts/clean-" + distribution + ".sh"
			dash(t, h, "sysctl -qw net.ipv4.ip_forward=0")
			before := snapshots(t)[h.Name]

			require.Contains(t, dash(t, h, init), "the host is ready for "+distribution)
			require.Equal(t, "1\n", dash(t, h, "cat /proc/sys/net/ipv4/ip_forward"))
			require.Contains(t, dash(t, h, "cat /etc/modules-load.d/sealer-"+distribution+".conf"), "br_netfilter")
			first := snapshots(t)[h.Name]
			require.NotEqual(t, before, first)
			dash(t, h, init)
			require.Equal(t, first, snapshots(t)[h.Name], "the second time changes nothing")

			dash(t, h, "mkdir -p "+folder+" && echo secret > "+folder+"/config.yaml")
			dash(t, h, podNetwork)
			require.Contains(t, dash(t, h, clean), "as it was before "+distribution)
			require.Equal(t, "table inet theirs\n", dash(t, h, "nft list tables | grep -e theirs -e podnet -e kube-proxy; nft delete table inet theirs"))
			require.Equal(t, "-A THEIRS -s 192.0.2.1/32 -j DROP\n", dash(t, h, "iptables -S THEIRS | grep '^-A'; iptables -F THEIRS; iptables -X THEIRS"))
			if !strings.Contains(before, "\ntable ip filter\n") {
				dash(t, h, "nft delete table ip filter") // theirs, too: it held that chain
			}
			require.Equal(t, before, snapshots(t)[h.Name])
			dash(t, h, "test ! -e /var/lib/sealer/"+distribution)
		})
	}
}

// A host without a default route gets a route to the services, by systemd or by OpenRC.
func TestTemplates_ServiceRoute(t *testing.T) {
	h := shared.Hosts.Hosts[0]
	putContext(t, h, "k3s")
	route := strings.TrimSpace(dash(t, h, "ip -4 route show default"))
	before := snapshots(t)[h.Name]
	restore := func() { dash(t, h, "rm -rf /tmp/openrc /etc/init.d/cgroups; ip route replace "+route) }
	t.Cleanup(restore)
	dash(t, h, "ip route del default")
	init := "ServiceCIDR=10.43.0.0/16 HostIP=" + h.Address.String() + " " + contextOnHost + "/scripts/init-k3s.sh"
	const clean = "/var/lib/sealer/k3s/scripts/clean-k3s.sh"

	dash(t, h, init)
	require.Equal(t, "active\n", dash(t, h, "systemctl is-active sealer-service-route"))
	require.NotEmpty(t, dash(t, h, "ip route show 10.43.0.0/16"))
	dash(t, h, clean)
	require.Empty(t, dash(t, h, "ip route show 10.43.0.0/16"))
	dash(t, h, "! systemctl cat sealer-service-route")

	// Programs without systemctl, and OpenRC's that write down what they are asked, and start what is a script.
	dash(t, h, `mkdir -p /tmp/openrc/bin
for program in /usr/bin/* /usr/sbin/* /bin/* /sbin/*; do
	name=$(basename "$program")
	[ "$name" = systemctl ] || ln -sf "$program" "/tmp/openrc/bin/$name"
done
rm -f /tmp/openrc/bin/rc-service /tmp/openrc/bin/rc-update
cat > /tmp/openrc/bin/rc-update <<'EOF'
#!/bin/sh
echo "rc-update $*" >> /tmp/openrc/log
EOF
cat > /tmp/openrc/bin/rc-service <<'EOF'
#!/bin/sh
echo "rc-service $*" >> /tmp/openrc/log
case "$*" in
*status) exit 3 ;;
*sealer-service-route*)
	for action; do :; done
	. /etc/init.d/sealer-service-route
	"$action" ;;
esac
EOF
chmod 755 /tmp/openrc/bin/rc-update /tmp/openrc/bin/rc-service
echo '#!/sbin/openrc-run' > /etc/init.d/cgroups`)
	dash(t, h, "export PATH=/tmp/openrc/bin; "+init)
	require.NotEmpty(t, dash(t, h, "ip route show 10.43.0.0/16"))
	dash(t, h, "export PATH=/tmp/openrc/bin; "+clean)
	require.Empty(t, dash(t, h, "ip route show 10.43.0.0/16"))
	require.Equal(t, `rc-service --quiet cgroups status
rc-update --quiet add cgroups default
rc-service --quiet cgroups start
rc-update --quiet add sealer-service-route default
rc-service --quiet --ifstopped sealer-service-route start
rc-service --quiet --ifstarted sealer-service-route stop
rc-update --quiet del sealer-service-route default
rc-update --quiet del cgroups default
`, dash(t, h, "cat /tmp/openrc/log"))
	restore()
	require.Equal(t, before, snapshots(t)[h.Name])
}
