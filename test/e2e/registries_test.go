//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
	"github.com/sealerio/sealer/test/testregistry"
)

// switching is a cluster whose Clusterfile names one registry or the other.
type switching struct {
	bed
	reg   *testregistry.Registry
	image string
}

func newSwitching(t *testing.T, name, settings string, kubectl []string, versions ...string) *switching {
	t.Helper()
	s := &switching{bed: bed{lab: shared, name: name, site: "registries", h: shared.Hosts.Hosts, kubectl: kubectl}}
	require.NoError(t, s.lab.TrustHosts(s.site))
	for _, v := range versions {
		r := lab.Release{Program: name, Version: v}
		_, err := s.lab.BuildRelease(t.Context(), s.site, r)
		require.NoError(t, err)
		s.versions = append(s.versions, release{s.lab.ReleaseImage(r), v, kubeletVersion(v)})
	}
	s.image, s.journal = s.versions[0].image, "/var/log/"+name+"-double.jsonl"
	s.reg = corporate(t, s.lab.Hosts)
	t.Setenv("CORP_PASSWORD", "s3cret of robots")
	s.clusterfile(t, settings)
	s.before = s.snapshots(t, s.h...)
	for _, h := range s.h {
		s.exec(t, h, "rm", "-f", s.journal)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_, err := s.lab.Run(context.WithoutCancel(t.Context()), s.site, s.args("delete", "--all", "--yes", "--force")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
	})
	return s
}

// write writes the Clusterfile for as many hosts, control plane first, with the external registry or without.
func (s *switching) write(t *testing.T, settings string, external bool, workers int) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: %s}\nspec:\n  image: %s\n  ssh: {pk: %s}\n  hosts:\n  - {ips: [%s], roles: [master]}\n",
		s.name, s.image, s.lab.Hosts.KeyFile, s.h[0].Address)
	if workers > 0 {
		text += fmt.Sprintf("  - {ips: [%s], roles: [node]}\n", addresses(s.h[1:1+workers]...))
	}
	_, port, err := net.SplitHostPort(s.reg.Address)
	require.NoError(t, err)
	text += fmt.Sprintf("  hostAliases: [{ip: %s, hostnames: [hub.corp.example]}]\n", s.lab.Hosts.Gateway)
	if external {
		text += fmt.Sprintf("  registry:\n    externalRegistry: {domain: hub.corp.example, port: %s, path: mirror/all, username: robot, password: \"env:CORP_PASSWORD\", ca: \"file:%s\"}\n",
			port, s.reg.CAFile)
	}
	require.NoError(t, os.WriteFile(s.file, []byte(text+settings), 0o600))
}

// pullsAnew requires of a host that it gets an image now, by its own name.
func (s *switching) pullsAnew(t *testing.T, h hosts.Host, image string) {
	t.Helper()
	s.on(t, s.h[0], "run", "asks", "--image="+image, "--image-pull-policy=Always", `--overrides={"spec":{"nodeName":"`+h.Name+`"}}`)
	s.on(t, s.h[0], "wait", "--for=condition=Ready", "pod/asks", "--timeout=60s")
	s.on(t, s.h[0], "delete", "pod", "asks", "--now")
}

func (s *switching) asked(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(s.reg.AccessLog)
	require.NoError(t, err)
	return string(log)
}

// nowhereElse requires that no image was looked for in its own registry.
func (s *switching) nowhereElse(t *testing.T) {
	t.Helper()
	for _, h := range s.h {
		require.NotContains(t, s.exec(t, h, "sh", "-c", "cat "+s.journal+" 2>/dev/null || :"), `"event":"upstream"`)
	}
}

const helloImage = "docker.io/sealer-test/hello:v2"

// The images of a cluster of k3s come from the control planes, then, by an apply, from a registry of the user's own, with those of an
// application. A cluster of k0s begins with such a registry, is upgraded, and has its images from the control planes in the end.
func TestRegistries(t *testing.T) {
	t.Run("k3s", func(t *testing.T) {
		s := newSwitching(t, "k3s", k3sSettings, []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"}, lab.K3sVersion)
		apply := func(more ...string) string {
			return s.sealer(t, append([]string{"apply", "-f", s.file, "--yes"}, more...)...)
		}
		s.write(t, k3sSettings, false, 1)
		apply()
		s.sealer(t, s.args("run", sampleApplication(t, s.lab, s.site, "greeter", helloImage))...)

		s.write(t, k3sSettings, true, 1)
		plan := apply()
		require.Contains(t, plan, "~ registry: sea.hub:5000 → hub.corp.example:")
		require.Contains(t, plan, "- "+s.h[0].Address.String()+": registry: sea.hub:5000")
		require.Contains(t, apply(), "nothing to do")
		s.status(t, lab.K3sVersion, 2)
		s.exec(t, s.h[0], "sh", "-c", "! systemctl cat sealer-registry.service 2>/dev/null && test ! -e /var/lib/sealer/node/registry")
		for _, h := range s.h {
			s.pullsAnew(t, h, helloImage)
			require.NotContains(t, s.exec(t, h, "cat", "/etc/hosts"), "sea.hub")
		}
		require.Contains(t, s.asked(t), "GET /v2/mirror/all/docker.io/sealer-test/hello/manifests/v2")
		s.sealer(t, s.args("delete", "--nodes", s.h[1].Address.String(), "--yes")...)
		s.nowhereElse(t)
		s.sealer(t, s.args("delete", "--all", "--yes")...)
		s.asFound(t, s.h...)
	})
	t.Run("k0s", func(t *testing.T) {
		s := newSwitching(t, "k0s", k0sSettings, []string{"/usr/local/bin/k0s", "kubectl", "--kubeconfig", "/var/lib/k0s/pki/admin.conf", "--cache-dir", "/tmp/kubectl"},
			lab.K0sPreviousVersion, lab.K0sVersion)
		s.write(t, k0sSettings, true, 0)
		s.sealer(t, "apply", "-f", s.file, "--yes")
		s.sealer(t, s.args("run", sampleApplication(t, s.lab, s.site, "greeter", helloImage))...)
		require.Contains(t, s.asked(t), "GET /v2/mirror/all/docker.io/sealer-test/hello/manifests/v2")
		s.exec(t, s.h[0], "sh", "-c", "! systemctl cat sealer-registry.service 2>/dev/null")
		s.sealer(t, s.args("upgrade", s.versions[1].image, "--yes", "--no-snapshot")...)
		s.status(t, s.versions[1].kubelet, 1)
		s.pullsAnew(t, s.h[0], helloImage)

		s.image = s.versions[1].image
		s.write(t, k0sSettings, false, 0)
		back := []string{"apply", "-f", s.file, "--yes"}
		s.refused(t, back, "only that has the images of greeter", "sealer app delete")
		s.sealer(t, s.args("app", "delete", "greeter", "--yes")...)
		s.sealer(t, back...)
		require.Contains(t, s.sealer(t, back...), "nothing to do")
		before := s.asked(t)
		s.pullsAnew(t, s.h[0], s.exec(t, s.h[0], "sh", "-c", "k0s airgap list-images | grep pause"))
		require.Equal(t, before, s.asked(t), "the other registry is asked no more")
		s.status(t, s.versions[1].kubelet, 1)
		certs := s.exec(t, s.h[0], "sh", "-c", "ls /etc/k0s/containerd.d/certs.d")
		require.Equal(t, []string{"_default", "sealer-ca.crt"}, strings.Fields(certs), "files of the other registry are gone")
		s.nowhereElse(t)
		s.sealer(t, s.args("delete", "--all", "--yes")...)
		s.asFound(t, s.h...)
	})
}
