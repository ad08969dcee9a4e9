//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// sampleApplication is an image of one workload, which asks for one packed image.
func sampleApplication(t *testing.T, l *lab.Lab, site, name, image string) string {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"Kubefile": "FROM scratch\nAPP " + name + " local://pods.yaml\nLAUNCH [\"" + name + "\"]\n",
		"pods.yaml": `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ` + name + `, namespace: default}
spec:
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
      containers: [{name: one, image: "` + image + `"}]
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}
	tag := l.Registry + "/team/" + name + ":v1"
	_, err := l.Run(t.Context(), site, "build", "-t", tag, dir)
	require.NoError(t, err)
	return tag
}

// k3s whose containers are run by the hosts' own docker, a real one: it is checked, given the packed images and those of an application
// under their own names, and in the end has what it had.
func TestDocker(t *testing.T) {
	const image = "docker.io/sealer-test/hello:v2"
	r := lab.Release{Program: "k3s", Version: lab.K3sVersion}
	b := &bed{
		lab: shared, name: "k3s", site: "docker", h: shared.Hosts.Hosts, journal: "/var/log/k3s-double.jsonl",
		versions: []release{{shared.ReleaseImage(r), r.Version, r.Version}},
		kubectl:  []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"},
	}
	require.NoError(t, b.lab.TrustHosts(b.site))
	b.clusterfile(t, strings.Replace(k3sSettings, "ignoreChecks", "server: {docker: true}\nagent: {docker: true}\nignoreChecks", 1))
	_, err := b.lab.BuildRelease(t.Context(), b.site, r)
	require.NoError(t, err)
	run := b.runArgs(b.versions[0].image, b.h[:1], b.h[1:])
	b.refused(t, run, b.h[0].Address.String()+": docker is to run its containers, and there is none", b.h[1].Address.String()+": docker is to run its containers")

	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			_, err := b.lab.Run(ctx, b.site, b.args("delete", "--all", "--yes", "--force")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
		for _, h := range b.h {
			require.NoError(t, h.RemoveDocker(ctx))
		}
	})
	var g errgroup.Group
	for _, h := range b.h {
		g.Go(func() error { return h.StartDocker(t.Context()) })
	}
	require.NoError(t, g.Wait())
	// An image of the people of the host, which they have called as one of k3s'.
	b.exec(t, b.h[1], "sh", "-ec", "cd /etc; tar -c hostname | docker import - rancher/mirrored-pause:3.6; tar -c hostname | docker import - own:1")
	images := func(h hosts.Host) string {
		return b.exec(t, h, "sh", "-c", "docker images --all --no-trunc --digests --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}' | sort")
	}
	for _, h := range b.h {
		b.exec(t, h, "rm", "-f", b.journal) // what tests before have left there is not of interest
	}
	before := map[string]string{b.h[0].Name: images(b.h[0]), b.h[1].Name: images(b.h[1])}
	b.before = b.snapshots(t, b.h...)

	b.sealer(t, run...)
	b.status(t, r.Version, 2)
	require.Contains(t, b.sealer(t, run...), "nothing to change")
	require.Contains(t, b.on(t, b.h[0], "get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.containerRuntimeVersion}"), "docker://20.10")
	for _, h := range b.h {
		require.Contains(t, images(h), "rancher/mirrored-pause:3.6 ")
		require.NotContains(t, images(h), "sea.hub")
		require.Contains(t, b.exec(t, h, "cat", "/etc/rancher/k3s/config.yaml"), "- cgroup-driver=cgroupfs\n")
	}

	t.Run("applications", func(t *testing.T) {
		app := sampleApplication(t, b.lab, b.site, "greeter", image)
		b.sealer(t, b.args("run", app)...)
		for _, h := range b.h {
			require.Contains(t, images(h), "sealer-test/hello:v2 ")
		}
		pinned := sampleApplication(t, b.lab, b.site, "pinned", image+"@"+registryDigest(t, image))
		b.refused(t, b.args("run", pinned), "docker cannot be given images under names with a digest", image+"@sha256:")
		b.sealer(t, b.args("delete", "--nodes", b.h[1].Address.String(), "--yes")...)
		require.Equal(t, before[b.h[1].Name], images(b.h[1]), "docker has what it had")
		b.sealer(t, b.args("join", "--nodes", b.h[1].Address.String())...)
		require.Contains(t, images(b.h[1]), "sealer-test/hello:v2 ", "a host that joins has the applications' images, too")
		b.sealer(t, b.args("app", "delete", "greeter", "--yes")...)
		for _, h := range b.h {
			require.NotContains(t, images(h), "sealer-test/hello")
		}
	})
	t.Run("by the registry's own name", func(t *testing.T) {
		// As a user pushes: here an image of the host's people, with the login that sealer has made.
		b.exec(t, b.h[0], "sh", "-ec", `tar -C /etc -c hostname | docker import - sea.hub:5000/team/own:v1
			mkdir -p /tmp/login; cp /var/lib/kubelet/config.json /tmp/login/; docker --config /tmp/login push -q sea.hub:5000/team/own:v1
			docker rmi sea.hub:5000/team/own:v1; rm -rf /tmp/login`)
		b.on(t, b.h[0], "run", "own", "--image=sea.hub:5000/team/own:v1", "--image-pull-policy=Always", "--restart=Always",
			`--overrides={"spec":{"nodeName":"`+b.h[1].Name+`"}}`)
		b.on(t, b.h[0], "wait", "--for=condition=Ready", "pod/own", "--timeout=60s")
		b.on(t, b.h[0], "delete", "pod", "own", "--now")
		b.exec(t, b.h[1], "docker", "rmi", "sea.hub:5000/team/own:v1")
	})
	for _, h := range b.h {
		journal := b.exec(t, h, "cat", b.journal)
		require.NotContains(t, journal, `"event":"upstream"`, "no image was asked for elsewhere")
	}
	b.sealer(t, b.args("delete", "--all", "--yes")...)
	for _, h := range b.h {
		require.Equal(t, before[h.Name], images(h), "docker has what it had")
	}
	b.asFound(t, b.h...)
}
