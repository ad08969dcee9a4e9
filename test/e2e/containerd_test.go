//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// Configurations of containerd, as the people of hosts write them: with nothing of Kubernetes, and as sealer asks for it.
const (
	bareContainerd = `version = 2
root = "/var/containerd"
`
	containerd1 = bareContainerd + `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "rancher/mirrored-pause:3.6"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
  bin_dir = "/var/lib/rancher/k3s/data/cni"
`
	containerd2 = `version = 3
root = "/var/containerd"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "docker.io/rancher/mirrored-pause:3.6"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/registries/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
  bin_dirs = ["/var/lib/rancher/k3s/data/cni"]
`
	// ownImage is an image of the people of the host, in the namespace that is Kubernetes', too.
	ownImage = `set -eu
mkdir -p /tmp/own; cd /tmp/own; tar -C /etc -cf layer.tar hostname
printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$(sha256sum layer.tar | cut -d' ' -f1)" >config.json
printf '[{"Config":"config.json","RepoTags":["example.org/own:v1"],"Layers":["layer.tar"]}]' >manifest.json
tar -c manifest.json config.json layer.tar | ctr -n k8s.io images import --all-platforms -
cd /; rm -r /tmp/own
`
	// ownPod is a pod that k3s might have started: a real one, with no network of its own. sealer has to take it away.
	ownPod = `set -eu
printf '{"metadata":{"name":"left","namespace":"default","uid":"1"},"linux":{"security_context":{"namespace_options":{"network":2}}}}' >/tmp/pod.json
crictl --runtime-endpoint unix:///run/containerd/containerd.sock runp /tmp/pod.json
rm /tmp/pod.json
`
)

// k3s whose containers are run by the hosts' own containerd, real ones of both formats of configuration: it is checked, told of the cluster's
// registry by its own files, pulls by its CRI, and in the end has what it had.
func TestContainerd(t *testing.T) {
	r := lab.Release{Program: "k3s", Version: lab.K3sVersion}
	b := &bed{
		lab: shared, name: "k3s", site: "containerd", h: shared.Hosts.Hosts, journal: "/var/log/k3s-double.jsonl",
		versions: []release{{shared.ReleaseImage(r), r.Version, r.Version}},
		kubectl:  []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"},
	}
	require.NoError(t, b.lab.TrustHosts(b.site))
	b.clusterfile(t, strings.Replace(k3sSettings, "ignoreChecks", `server: {container-runtime-endpoint: "unix:///run/containerd/containerd.sock"}
agent: {container-runtime-endpoint: /run/containerd/containerd.sock}
ignoreChecks`, 1))
	_, err := b.lab.BuildRelease(t.Context(), b.site, r)
	require.NoError(t, err)
	run := b.runArgs(b.versions[0].image, b.h[:1], b.h[1:])
	b.refused(t, run, b.h[0].Address.String()+": containerd is to run its containers, and there is no socket /run/containerd/containerd.sock [containerd]",
		b.h[1].Address.String()+": containerd is to run its containers")

	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			_, err := b.lab.Run(ctx, b.site, b.args("delete", "--all", "--yes", "--force")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
		for _, h := range b.h {
			require.NoError(t, h.RemoveContainerd(ctx))
		}
	})
	onBoth := func(do func(i int, h hosts.Host) error) {
		var g errgroup.Group
		for i, h := range b.h {
			g.Go(func() error { return do(i, h) })
		}
		require.NoError(t, g.Wait())
	}
	onBoth(func(i int, h hosts.Host) error {
		if err := h.PutContainerd(t.Context(), filepath.Join(b.lab.Components, "bin"), i == 0); err != nil {
			return err
		}
		return h.StartContainerd(t.Context(), bareContainerd)
	})
	b.refused(t, run, b.h[0].Address.String()+": its containerd has no config_path for registries", b.h[1].Address.String()+": its containerd has no config_path for registries",
		`its containerd begins each pod with the image "registry.k8s.io/pause:`, "its containerd looks for the pod network in /etc/cni/net.d",
		`[plugins."io.containerd.grpc.v1.cri".registry]`, `[plugins."io.containerd.cri.v1.images".registry]`)
	onBoth(func(i int, h hosts.Host) error {
		return h.StartContainerd(t.Context(), []string{containerd1, containerd2}[i])
	})
	certs := []string{"/etc/containerd/certs.d", "/etc/containerd/registries/certs.d"}
	images := func(h hosts.Host) string {
		return b.exec(t, h, "sh", "-ec", "ctr -n k8s.io images list | awk '{ print $1, $3 }' | sort; ctr -n k8s.io containers list --quiet; ctr -n k8s.io tasks list --quiet")
	}
	before := map[string]string{}
	for _, h := range b.h {
		b.exec(t, h, "sh", "-c", ownImage)
		b.exec(t, h, "rm", "-f", b.journal)
		before[h.Name] = images(h)
		require.Contains(t, before[h.Name], "example.org/own:v1 ")
	}
	b.before = b.snapshots(t, b.h...)
	other := b.exec(t, b.h[1], "sh", "-c", "mkdir -p "+certs[1]+"/_default && echo "+certs[1]+"/_default")
	b.refused(t, run, b.h[1].Address.String()+": its containerd is told by "+other+" where images of a registry come from")
	b.exec(t, b.h[1], "rm", "-r", "/etc/containerd/registries")

	b.sealer(t, run...)
	b.status(t, r.Version, 2)
	require.Contains(t, b.sealer(t, run...), "nothing to change")
	for i, h := range b.h {
		require.Contains(t, images(h), "docker.io/rancher/mirrored-pause:3.6 ")
		require.Contains(t, b.exec(t, h, "cat", certs[i]+"/_default/hosts.toml"), "https://"+b.h[0].Address.String()+":5000")
		b.exec(t, h, "test", "!", "-e", "/etc/rancher/k3s/registries.yaml")
		// By the C library, not by a parser of ours.
		for _, name := range []string{"sea.hub", "apiserver.cluster.local"} {
			require.Equal(t, b.h[0].Address.String(), b.exec(t, h, "sh", "-c", "getent ahosts "+name+" | awk '{ print $1 }' | sort -u"))
		}
	}
	require.Contains(t, b.exec(t, b.h[0], "cat", "/etc/rancher/k3s/config.yaml"), "- cgroup-driver=cgroupfs\n", "containerd 1 does not tell")
	require.NotContains(t, b.exec(t, b.h[1], "cat", "/etc/rancher/k3s/config.yaml"), "cgroup-driver")

	b.exec(t, b.h[1], "sh", "-c", ownPod)
	b.sealer(t, b.args("delete", "--nodes", b.h[1].Address.String(), "--yes")...)
	require.Equal(t, before[b.h[1].Name], images(b.h[1]), "containerd has what it had")
	b.asFound(t, b.h[1])
	b.sealer(t, b.args("join", "--nodes", b.h[1].Address.String())...)
	b.status(t, r.Version, 2)
	for _, asked := range b.wellAsked(t) {
		pulled := 0
		for _, e := range asked {
			if e.Event == "pulled" {
				require.True(t, strings.HasSuffix(e.Text, " by CRI"), e.Text)
				pulled++
			}
		}
		require.Positive(t, pulled)
	}
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	for _, h := range b.h {
		require.Equal(t, before[h.Name], images(h), "containerd has what it had")
		b.exec(t, h, "sh", "-c", "! getent hosts sea.hub && ctr version >/dev/null")
	}
	b.asFound(t, b.h...)
}
