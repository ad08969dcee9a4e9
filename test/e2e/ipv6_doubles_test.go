//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// newSixth is a bed for the double of a distribution, whose versions are built.
func newSixth(t *testing.T, l *lab.Lab, name, settings string, versions ...string) *sixth {
	t.Helper()
	b := &sixth{bed: bed{lab: l, name: name, site: "six", h: l.Hosts.Hosts, journal: "/var/log/" + name + "-double.jsonl"}}
	require.NoError(t, l.TrustHosts(b.site))
	b.clusterfile(t, settings)
	for _, v := range versions {
		r := lab.Release{Program: name, Version: v}
		_, err := l.BuildRelease(t.Context(), b.site, r)
		require.NoError(t, err)
		b.versions = append(b.versions, release{l.ReleaseImage(r), v, kubeletVersion(v)})
	}
	b.found(t)
	t.Cleanup(func() {
		if t.Failed() { // the next distribution wants clean hosts
			_, err := l.Run(context.WithoutCancel(t.Context()), b.site, b.args("delete", "--all", "--yes", "--force")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
	})
	return b
}

// otherwise is the host's address as nobody writes it.
func otherwise(h hosts.Host) string { return strings.ToUpper(h.Address6.StringExpanded()) }

// named runs sealer on a machine whose /etc/hosts has more in it.
func (b *sixth) named(t *testing.T, more string, args ...string) string {
	t.Helper()
	text, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "hosts")
	require.NoError(t, os.WriteFile(file, append(text, "\n"+more...), 0o644))
	cmd := b.lab.Command(t.Context(), b.site, args...)
	cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, file, cmd.Path}, args...)
	cmd.Path = "/usr/bin/unshare"
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	require.NoError(t, err, said.String())
	return string(out)
}

// servesOver requires of each control plane that its registry gives an image to another host, over IPv6.
func (b *sixth) servesOver(t *testing.T, from hosts.Host, image string, list ...hosts.Host) {
	t.Helper()
	const ask = `cd /var/lib/sealer/node/registry
login=$(sed -n 's/.*"username": *"\([^"]*\)".*/\1/p' credentials.json):$(sed -n 's/.*"password": *"\([^"]*\)".*/\1/p' credentials.json)
curl -sfS --max-time 20 --cacert ca.crt --config - "https://[$1]:5000/v2/$2" <<EOF
user = "$login"
header = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json"
EOF
`
	domain, rest, _ := strings.Cut(image, "/")
	repository, tag, _ := strings.Cut(rest, ":")
	for _, h := range list {
		require.Contains(t, b.exec(t, from, "sh", "-ec", ask, "sh", h.Address6.String(), repository+"/manifests/"+tag+"?ns="+domain), "schemaVersion")
	}
}

// restoredAndUpgraded is with three control planes.
func (b *sixth) restoredAndUpgraded(t *testing.T) {
	t.Helper()
	one := b.h[0]
	b.on(t, one, "create", "configmap", "kept", "--from-literal", "a=b")
	saved := b.sealer(t, b.args("etcd", "snapshot")...)
	require.Regexp(t, `^\[fd[0-9a-f:]*\]:/`, saved)
	b.on(t, one, "delete", "configmap", "kept")
	b.sealer(t, b.args("etcd", "restore", saved, "--yes")...)
	b.eventuallyReady(t, one, 3)
	b.on(t, one, "get", "configmap", "kept")
	b.members(t, b.h...)

	b.sealer(t, b.args("upgrade", b.versions[1].image, "--yes")...)
	b.status(t, b.versions[1].kubelet, 3)
}

// The life of a cluster of k3s: from one control plane and a worker to three control planes, over a jump host, and with names; applications,
// a snapshot, an upgrade.
func testSixK3s(t *testing.T, l *lab.Lab) {
	b := newSixth(t, l, "k3s", k3sSettings, lab.K3sVersion, lab.K3sNextVersion)
	b.kubectl = []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"}
	b.peers = strings.ReplaceAll(etcdPeers("/var/lib/rancher/k3s/server/tls/etcd", "server-ca.crt", "client.crt", "client.key"), "127.0.0.1", "localhost")
	one, two, three := b.h[0], b.h[1], b.h[2]
	run := func(masters, nodes string, more ...string) []string {
		return append([]string{"run", b.versions[0].image, "-f", b.file, "--pk", l.Hosts.KeyFile, "--masters", masters, "--nodes", nodes}, more...)
	}
	b.refused(t, run(b.addresses(one), b.addresses(two), "-e", "PodCIDR=10.42.0.0/16"), "nothing was changed", "the hosts have IPv6 addresses", "IPv4 comes first")
	b.refused(t, run(b.addresses(one), b.addresses(two), "-e", "PodCIDR=fd00:10:42::/56,10.42.0.0/16", "-e", "SvcCIDR=10.43.0.0/16,fd00:10:43::/112"),
		"nothing was changed", "the pods have IPv6 first")
	b.refused(t, run(b.addresses(one), otherwise(one)), b.addresses(one)+" is there twice")
	b.refused(t, run("["+b.addresses(one)+"]:22", b.addresses(two)), "names a port")
	b.exec(t, two, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
	b.refused(t, run(b.addresses(one), b.addresses(two)), "nothing was changed", b.addresses(two)+": IPv6 is off on it")
	b.exec(t, two, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6")

	b.sealer(t, run("["+b.addresses(one)+"]", b.addresses(two))...)
	b.ready(t, one, two)
	require.Equal(t, b.addresses(one)+" "+b.addresses(two), b.on(t, one, "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`))
	b.status(t, lab.K3sVersion, 2)
	require.Contains(t, b.exec(t, two, "cat", "/etc/hosts"), b.addresses(one)+" sea.hub\n")
	to := filepath.Join(t.TempDir(), "name")
	b.sealer(t, b.args("cp", "["+b.addresses(two)+"]:/etc/hostname", to)...)
	text, err := os.ReadFile(to)
	require.NoError(t, err)
	require.Equal(t, two.Name+"\n", string(text))
	require.Contains(t, b.sealer(t, b.args("kubeconfig")...), "server: https://["+b.addresses(one)+"]:6443\n")
	require.Contains(t, b.sealer(t, run(otherwise(one), "["+otherwise(two)+"]")...), "nothing to change")
	b.sealer(t, b.args("delete", "--nodes", otherwise(two), "--yes")...)

	// They become control planes: one by its name, of whose addresses that of the cluster's family is taken, both through the first one.
	names := fmt.Sprintf("%s two.corp.example\n%s two.corp.example\n", two.Address, two.Address6)
	b.named(t, names, b.args("join", "--masters", "two.corp.example,"+b.addresses(three), "--jump", "root@["+b.addresses(one)+"]:22")...)
	b.ready(t, b.h...)
	b.members(t, b.h...)
	require.Equal(t, two.Name, strings.TrimSpace(b.named(t, names, b.args("exec", "--hosts", "two.corp.example", "hostname")...)))
	for _, h := range b.h {
		for _, other := range b.h {
			require.Contains(t, b.exec(t, h, "cat", "/etc/rancher/k3s/registries.yaml"), "https://["+b.addresses(other)+"]:5000")
		}
	}
	b.sharesApplication(t, func() { b.servesOver(t, three, "docker.io/sealer-test/shared:v1", b.h...) })

	b.restoredAndUpgraded(t)
	b.sealer(t, b.args("delete", "--masters", b.addresses(three), "--yes")...)
	b.ready(t, one, two)
	b.members(t, one, two)
	b.wellAsked(t)
	b.takeSnapshots(t)
	b.asFound(t, three)
	b.gone(t)
}

// Three control planes of k0s, which run pods as well: a snapshot, an upgrade.
func testSixK0s(t *testing.T, l *lab.Lab) {
	b := newSixth(t, l, "k0s", k0sSettings, lab.K0sPreviousVersion, lab.K0sVersion)
	b.kubectl = []string{"/usr/local/bin/k0s", "kubectl", "--kubeconfig", "/var/lib/k0s/pki/admin.conf", "--cache-dir", "/tmp/kubectl"}
	b.peers = strings.ReplaceAll(etcdPeers("/var/lib/k0s/pki", "etcd/ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key"), "127.0.0.1", "localhost")
	one, three := b.h[0], b.h[2]
	b.sealer(t, "run", b.versions[0].image, "-f", b.file, "--pk", l.Hosts.KeyFile, "--masters", "["+b.addresses(one)+"]-"+b.addresses(three))
	b.ready(t, b.h...)
	b.status(t, b.versions[0].kubelet, 3)
	double, err := l.Double(t.Context(), "k0s", lab.K0sPreviousVersion)
	require.NoError(t, err)
	images, err := os.ReadFile(filepath.Join(double, "images.txt"))
	require.NoError(t, err)
	b.servesOver(t, one, strings.Fields(string(images))[0], b.h[1:]...)
	b.restoredAndUpgraded(t)
	b.sealer(t, b.args("delete", "--masters", b.addresses(three), "--yes")...)
	b.ready(t, b.h[:2]...)
	b.members(t, b.h[:2]...)
	b.wellAsked(t)
	b.takeSnapshots(t)
	b.asFound(t, three)
	b.gone(t)
}
