//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// snapshot6 is what the other snapshots do not look at: they are of hosts without IPv6.
const snapshot6 = `set -eu
ip6tables-save | grep -v '^#' | sed 's/\[[0-9]*:[0-9]*\]//' | grep '^-' || true
ip -6 route | sed 's/ expires [0-9]*sec//' | sort
nft list tables
cd /proc/sys/net/ipv6/conf
grep . all/forwarding default/forwarding eth0/forwarding eth0/accept_ra
`

// sixth is a bed on hosts that are known by their addresses of IPv6.
type sixth struct {
	bed
	before6 map[string]string
}

func (b *sixth) addresses(list ...hosts.Host) string {
	var all []string
	for _, h := range list {
		all = append(all, h.Address6.String())
	}
	return strings.Join(all, ",")
}

func (b *sixth) found(t *testing.T) {
	b.before, b.before6 = b.snapshots(t, b.h...), map[string]string{}
	for _, h := range b.h {
		b.before6[h.Name] = b.exec(t, h, "sh", "-c", snapshot6)
	}
}

func (b *sixth) gone(t *testing.T) {
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	b.asFound(t, b.h...)
	for _, h := range b.h {
		require.Equal(t, b.before6[h.Name], b.exec(t, h, "sh", "-c", snapshot6), h.Name)
	}
}

// cutIPv4 has the hosts take nothing that comes by IPv4 from one another or from this machine.
const cutIPv4 = `nft add table ip cut
nft 'add chain ip cut input { type filter hook input priority -300; }'
nft add rule ip cut input ip saddr "$1" counter drop
`

// Three hosts with addresses of both families, which sealer is told by those of IPv6 alone: it logs in, sends, and has images pulled over
// IPv6, for nothing comes through by IPv4. First k3s and k0s without any IPv4 in the cluster, then Kubernetes by kubeadm with both families, IPv6
// first.
func TestIPv6(t *testing.T) {
	dropAfter(t, "six", "six-kubernetes")
	l, err := shared.With(t.Context(), lab.Options{Hosts: 3, Name: labName() + "-six", IPv6: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close(context.WithoutCancel(t.Context()))) })
	for _, h := range l.Hosts.Hosts {
		out, err := h.Exec(t.Context(), "sh", "-ec", cutIPv4, "sh", l.Hosts.Subnet.String())
		require.NoError(t, err, string(out))
	}
	t.Run("k3s", func(t *testing.T) { testSixK3s(t, l) })
	t.Run("k0s", func(t *testing.T) { testSixK0s(t, l) })
	t.Run("kubernetes", func(t *testing.T) { testSixKubernetes(t, l) })
}

// testSixKubernetes has two real control planes, which hand on an address of IPv6.
func testSixKubernetes(t *testing.T, l *lab.Lab) {
	b := &sixth{bed: bed{
		lab: l, name: "kubernetes", site: "six-kubernetes", h: l.Hosts.Hosts, kubectl: []string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"},
	}}
	_, err := l.BuildBase(t.Context(), b.site)
	require.NoError(t, err)
	require.NoError(t, l.TrustHosts(b.site))
	image := carrierImage(t, &b.bed)
	b.file, err = l.WriteClusterfile(b.name)
	require.NoError(t, err)
	one, two, worker := b.h[0], b.h[1], b.h[2]
	b.found(t)
	raw := one.Address6.As16()
	raw[15] = 200
	v := &virtual{bed: &b.bed, address: netip.AddrFrom16(raw)}
	run := []string{"run", image, "-f", b.file, "--pk", l.Hosts.KeyFile, "-e", "PodCIDR=fd00:10:244::/56,10.244.0.0/16", "--masters", b.addresses(one, two), "--nodes", b.addresses(worker), "--vip"}
	b.sealer(t, append(run, strings.ToUpper(v.address.StringExpanded()))...)
	b.ready(t, b.h...)
	require.NoError(t, lab.Poll(t.Context(), time.Minute, v.ask))
	require.Contains(t, b.sealer(t, append(run, v.address.String())...), "nothing to change", "the same address in other words")
	var addresses []string
	for _, h := range b.h {
		addresses = append(addresses, h.Address6.String(), h.Address.String())
	}
	require.Equal(t, strings.Join(addresses, " "), b.on(t, one, "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`))
	require.Equal(t, "https://["+b.addresses(one)+"]:2379", strings.TrimPrefix(b.exec(t, one, "sh", "-c",
		"grep -o -- '--advertise-client-urls=.*' /etc/kubernetes/manifests/etcd.yaml"), "--advertise-client-urls="))
	require.Equal(t, "1\n2", b.exec(t, worker, "sh", "-c", "cd /proc/sys/net/ipv6/conf && cat all/forwarding eth0/accept_ra"), "it forwards, and listens to routers all the same")
	b.pulls(t, worker)
	require.Contains(t, b.exec(t, worker, "cat", "/etc/hosts"), v.address.String()+" apiserver.cluster.local\n")
	require.Contains(t, b.sealer(t, b.args("kubeconfig")...), "server: https://["+v.address.String()+"]:6443\n")

	b.on(t, one, "rollout", "status", "deployment/hello", "--timeout", "120s")
	for _, h := range b.h { // by each host's node port, and by the service's own address, from a host
		answer, err := getSix(t.Context(), "http://"+net.JoinHostPort(h.Address6.String(), "30080")+"/")
		require.NoError(t, err)
		require.NotEmpty(t, answer)
	}
	service := b.on(t, one, "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	require.Contains(t, service, ":")
	for _, h := range b.h {
		b.exec(t, h, "timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/"+service+"/80")
	}
	b.on(t, one, "patch", "service", "hello", "--patch", `{"spec":{"ipFamilyPolicy":"RequireDualStack"}}`)
	require.Len(t, strings.Fields(b.on(t, one, "get", "service", "hello", "-o", "jsonpath={.spec.clusterIPs[*]}")), 2)
	require.Contains(t, b.sealer(t, b.args("status")...), "Ready")
	v.movesOn(t)
	b.gone(t)
	require.Empty(t, v.holders(t, b.h...))
}

// movesOn takes the API server away from the control plane that holds the address, and puts it back.
func (v *virtual) movesOn(t *testing.T) {
	holders := v.holders(t, v.h...)
	require.Len(t, holders, 1)
	lost := holders[0]
	const manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	v.exec(t, lost, "mv", manifest, "/root/")
	began := time.Now()
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		if now := v.holders(t, v.h...); len(now) != 1 || now[0].Name == lost.Name {
			return fmt.Errorf("%d hosts have the address", len(now))
		}
		return v.ask(ctx)
	}))
	t.Logf("%s is served by another control plane %s after %s had no API server", v.address, time.Since(began).Round(100*time.Millisecond), lost.Name)
	v.exec(t, lost, "mv", "/root/kube-apiserver.yaml", manifest)
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		_, err := lost.Exec(ctx, append(slices.Clone(v.kubectl), "--server", "https://"+net.JoinHostPort(lost.Address6.String(), "6443"), "get", "--raw", "/readyz")...)
		return err
	}))
}

// getSix asks until there is an answer.
func getSix(ctx context.Context, url string) (answer string, err error) {
	err = lab.Poll(ctx, time.Minute, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		answer = string(text)
		return err
	})
	return answer, err
}
