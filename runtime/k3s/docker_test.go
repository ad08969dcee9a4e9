// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
)

// With docker k3s' kubelet has docker's cgroup driver, deletes no images, and knows the registry's login; containerd is told nothing.
func TestDocker(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {docker: true, kubelet-arg: [max-pods=90]}\n")
	for name, want := range map[string]string{
		"systemd": "", "cgroupfs": "", "": "docker is to run its containers, and its daemon does not answer",
	} {
		c.Hosts[0].Facts.Docker = &runtime.Docker{Version: "20.10.24+dfsg1", CgroupDriver: name}
		if name == "" {
			c.Hosts[0].Facts.Docker.Version = ""
		}
		problems := quick().Check(c)
		if want == "" {
			require.Empty(t, problems)
			continue
		}
		require.Len(t, problems, 1)
		require.Equal(t, want, problems[0].What)
	}
	require.True(t, quick().UsesDocker(c, c.Hosts[0]))
	c.Hosts[0].Facts.Docker = &runtime.Docker{Version: "20.10.24+dfsg1", CgroupDriver: "systemd"}
	c.File.K3s.Server["kubelet-arg"] = []string{"cgroup-driver=cgroupfs"}
	problems := quick().Check(c)
	require.Len(t, problems, 1)
	require.Equal(t, "its docker has the cgroup driver systemd, and the kubelet is told cgroupfs", problems[0].What)

	c.File.K3s.Server["kubelet-arg"] = []string{"max-pods=90"}
	onNewHost(hosts[0])
	_, err := do(t, append(quick().Install(c, c.Hosts[0])[3:], quick().Init(c, c.Hosts[0])...))
	require.NoError(t, err)
	goldenfile.Equal(t, "testdata/docker/first.yaml", configOf(t, hosts[0]))
	files := hosts[0].Files()
	goldenfile.Equal(t, "testdata/docker/login.json", string(files["/var/lib/kubelet/config.json"].Data))
	require.EqualValues(t, 0o600, files["/var/lib/kubelet/config.json"].Mode)
	require.NotContains(t, files, "/etc/rancher/k3s/registries.yaml")

	probe := quick().Health(c, c.Hosts[0])[1]
	require.Equal(t, "docker", probe.Name)
	for answer, want := range map[string]string{`[]`: "", `["a:1","b:2"]`: "10.0.0.1: its docker has no more the images a:1, b:2"} {
		hosts[0].On("docker lost", hosttest.Answer{Stdout: answer})
		if err := probe.Ask(t.Context()); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}
