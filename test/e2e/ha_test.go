//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/testregistry"
)

// corporate is a registry of the user's own: TLS by an authority of its own, a login, on the hosts' network, under a name that only the
// Clusterfile knows.
func corporate(t *testing.T, set *hosts.Set) *testregistry.Registry {
	t.Helper()
	reg, err := testregistry.Start(t.Context(), testregistry.Options{
		Address: net.JoinHostPort(set.Gateway.String(), "0"), TLS: true, Name: "hub.corp.example", User: "robot", Password: "s3cret of robots",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
}

// carrierImage is the shop image with a keepalived, by which control planes can carry a virtual address.
func carrierImage(t *testing.T, b *bed) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "carrier")
	require.NoError(t, b.lab.WriteShop(dir))
	file := filepath.Join(dir, "imageList")
	list, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(list, "ghcr.io/sealer-test/keepalived:v1\n"...), 0o600))
	name := b.lab.Registry + "/team/carrier:v1"
	b.sealer(t, "build", "-t", name, dir)
	return name
}

// A real cluster of three control planes and two workers, made at once, whose images all come from a registry of the user's own, one of whose
// hosts is given by its name, and whose API servers are found by a balancer of the user's own. Then they have a virtual address.
// apartLink is an interface of each host beside the one that has its address. It is there after a restart, too.
const apartLink = "vip0"

func apart(t *testing.T, g *bed) {
	t.Helper()
	for _, h := range g.h {
		g.exec(t, h, "sh", "-ec", `link=$(ip -o addr show | awk -v a="$1/" 'index($4, a) == 1 { print $2 }')
cat >/etc/systemd/system/apart.service <<EOF
[Unit]
Description=Interface beside the one that has the address of the host
DefaultDependencies=no
Before=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link add link $link name $2 type macvlan mode bridge
ExecStart=ip link set $2 up

[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
systemctl enable --quiet --now apart`, "sh", h.Address.String(), apartLink)
	}
}

func TestHighAvailability(t *testing.T) {
	l := fiveHosts(t)
	const site = "ha"
	dropAfter(t, site)
	_, err := l.BuildBase(t.Context(), site)
	require.NoError(t, err)
	require.NoError(t, l.TrustHosts(site))
	g := &bed{lab: l, name: "ha", site: site, h: l.Hosts.Hosts, kubectl: []string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}}
	image := carrierImage(t, g)
	apart(t, g)
	g.before = g.snapshots(t, g.h...)
	reg := corporate(t, l.Hosts)
	t.Setenv("CORP_PASSWORD", "s3cret of robots")
	file, err := l.WriteClusterfile("ha")
	require.NoError(t, err)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	vip := l.Hosts.Subnet.Addr().As4()
	vip[3] = 200
	v := &virtual{bed: g, address: netip.AddrFrom4(vip)}
	m := &moving{virtual: v, file: file, text: string(text), image: image, reg: reg, front: newFront(t, l, g.h[:3]...)}
	m.write(t, "external: \""+m.external(t)+"\"", true)
	g.refused(t, []string{"run", l.BaseImage(), "-f", file, "--vip", v.address.String()}, "the image packs nothing that carries the virtual address", "hint: list an image of keepalived")
	g.refused(t, []string{"run", image, "-f", file, "--vip", l.Hosts.Gateway.String()}, "is in use, as seen from", "nothing was touched")
	g.sealer(t, "run", image, "-f", file)
	g.ready(t, g.h...)

	t.Run("images come from there", func(t *testing.T) {
		for _, h := range g.h {
			g.pulls(t, h)
			_, err := h.Exec(t.Context(), "systemctl", "is-active", "sealer-registry.service")
			require.Error(t, err, "no registry of the cluster's own")
		}
		require.Contains(t, m.log(t), "GET /v2/mirror/all/docker.io/sealer-test/multi/manifests/")
		for _, h := range g.h {
			_, err := l.GetShopOn(t.Context(), h, time.Minute)
			require.NoError(t, err)
		}
	})
	t.Run("a balancer of the user's own leads past a control plane that hangs", m.hangs)
	t.Run("the endpoint and the registry become others", m.moves)
	t.Run("the API servers have an address that outlives each of them", v.outlives)
	g.sealer(t, "delete", "--all", "--name", "ha", "--pk", l.Hosts.KeyFile, "--yes")
	require.Empty(t, v.holders(t, g.h...))
	g.asFound(t, g.h...)
}
