// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
)

// The host's own containerd is told of the registry by files in its own folder, k3s by its socket alone, and the kubelet of the cgroup
// driver where it cannot ask.
func TestContainerd(t *testing.T) {
	c, hosts := newCluster(t, oneHost, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {container-runtime-endpoint: \"unix:///run/containerd/containerd.sock\", kubelet-arg: [max-pods=90]}\n")
	problems := quick().Check(c)
	require.Len(t, problems, 1)
	require.Equal(t, "containerd", problems[0].Check)
	step := quick().Install(c, c.Hosts[0])[3]
	_, err := step.Done(t.Context())
	require.EqualError(t, err, "10.0.0.1: its containerd at /run/containerd/containerd.sock tells of no config_path for registries")

	c.Hosts[0].Facts.Containerd = &runtime.Containerd{Socket: "/run/containerd/containerd.sock", Version: "1.7.28", Config: &runtime.ContainerdConfig{
		CertsDir: "/srv/registries", Sandbox: "rancher/mirrored-pause:3.6", CNIConf: "/var/lib/rancher/k3s/agent/etc/cni/net.d", CNIBins: []string{"/var/lib/rancher/k3s/data/cni"}, SystemdCgroup: true,
	}}
	require.Empty(t, quick().Check(c))
	require.Equal(t, "/run/containerd/containerd.sock", quick().ContainerdSocket(c, c.Hosts[0]))
	require.False(t, quick().UsesDocker(c, c.Hosts[0]))
	var noted []string
	hosts[0].On(`noteContainerd|containers list`, hosttest.Answer{Do: func(_ context.Context, call hosttest.Call) hosttest.Answer {
		noted = call.Argv[len(call.Argv)-3:]
		return hosttest.Answer{}
	}})
	onNewHost(hosts[0])
	_, err = do(t, append(quick().Install(c, c.Hosts[0])[3:], quick().Init(c, c.Hosts[0])...))
	require.NoError(t, err)
	goldenfile.Equal(t, "testdata/containerd/first.yaml", configOf(t, hosts[0]))
	require.Equal(t, []string{"/var/lib/sealer/k3s/containerd", "/run/containerd/containerd.sock", "/srv/registries"}, noted)
	files := hosts[0].Files()
	goldenfile.Equal(t, "testdata/containerd/hosts.toml", string(files["/srv/registries/_default/hosts.toml"].Data))
	require.EqualValues(t, 0o600, files["/srv/registries/_default/hosts.toml"].Mode)
	require.Equal(t, "CA", string(files["/srv/registries/sealer-ca.crt"].Data))
	require.NotContains(t, files, "/etc/rancher/k3s/registries.yaml")
	done, err := step.Done(t.Context())
	require.NoError(t, err)
	require.True(t, done)
	c.Registry.Password = "another"
	done, err = quick().Install(c, c.Hosts[0])[3].Done(t.Context())
	require.NoError(t, err)
	require.False(t, done, "the registry has changed")

	c.Hosts[0].Facts.Containerd.Version = "2.0.1"
	hosts[0].On("ctr .*version", hosttest.Answer{Code: 1, Stderr: "no such file"})
	probe := quick().Health(c, c.Hosts[0])[1]
	require.Equal(t, "containerd", probe.Name)
	require.ErrorContains(t, probe.Ask(t.Context()), "10.0.0.1: its containerd does not answer at /run/containerd/containerd.sock")
}

// k3s' folder of plugins has another name before 1.31.7 and 1.32.3; without flannel the pod network is the user's.
func TestContainerdNetwork(t *testing.T) {
	c, _ := newCluster(t, oneHost, "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {container-runtime-endpoint: /run/containerd/containerd.sock}\n")
	c.Hosts[0].Facts.Containerd = &runtime.Containerd{Socket: "/run/containerd/containerd.sock", Version: "2.0.1", Config: &runtime.ContainerdConfig{CertsDir: "/srv", Sandbox: "rancher/mirrored-pause:3.6", CNIConf: "/etc/cni/net.d"}}
	for version, plugins := range map[string]string{"v1.31.6+k3s1": "data/current/bin", "v1.31.7+k3s1": "data/cni", "v1.32.1+k3s1": "data/current/bin", "v1.33.0+k3s1": "data/cni"} {
		c.Metadata.ClusterRuntimeVersion = version
		problems := quick().Check(c)
		require.Len(t, problems, 1, version)
		require.True(t, strings.Contains(problems[0].Fix, `bin_dir = "/var/lib/rancher/k3s/`+plugins+`"`), problems[0].Fix)
	}
	c.File.K3s.Server["flannel-backend"] = "none"
	require.Empty(t, quick().Check(c))
}
