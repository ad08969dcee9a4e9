// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

const (
	ownSocket = "/run/containerd/containerd.sock"
	ownFile   = "---\napiVersion: sealer.io/v2\nkind: K3s\nserver: {container-runtime-endpoint: \"unix://" + ownSocket + "\"}\nagent: {docker: false}\n"
)

// told is a host that tells of a containerd with a configuration, the text of containerd config dump.
func told(t *testing.T, version, address, config string, more ...string) runtime.Facts {
	t.Helper()
	file, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\nspec:\n  hosts: [{ips: [10.0.0.1], roles: [master]}]\n"+ownFile))
	require.NoError(t, err)
	lines := append([]string{"containerd=" + ownSocket + " " + version, "containerd-config=- !", "containerd-config=/run/other.sock " + base64.StdEncoding.EncodeToString([]byte(config)),
		"containerd-config=" + address + " " + base64.StdEncoding.EncodeToString([]byte(config))}, more...)
	r := hosttest.New("10.0.0.1").On("^sh -s -- .*containerd:"+ownSocket, hosttest.Answer{Stdout: strings.Join(lines, "\n") + "\nend=1\n"})
	f, err := runtime.Gather(t.Context(), r, runtime.OwnRuntime(all().Marks(), file, clusterfile.ControlPlane))
	require.NoError(t, err)
	require.Len(t, runtime.OwnRuntime(all().Marks(), file, clusterfile.Worker), len(all().Marks()), "nobody asks for one there")
	return f
}

// The configurations are what containerd 1.6 and 2.3 print with such files.
func TestContainerd(t *testing.T) {
	for name, c := range map[string]struct{ version, address string }{"1.6": {"1.6.20~ds1", ownSocket}, "2.3": {"v2.3.6", "-"}} {
		t.Run(name, func(t *testing.T) {
			config, err := os.ReadFile("testdata/containerd-" + name + ".toml")
			require.NoError(t, err)
			f := told(t, c.version, c.address, string(config), "containerd-mirror=/etc/containerd/certs.d/own", "containerd-image=registry.k8s.io/pause:3.9")
			require.Equal(t, &runtime.Containerd{
				Socket: ownSocket, Version: c.version, Mirrored: []string{"/etc/containerd/certs.d/own"}, Images: []string{"registry.k8s.io/pause:3.9"},
				Config: &runtime.ContainerdConfig{
					CertsDir: "/etc/containerd/certs.d", Sandbox: "rancher/mirrored-pause:3.6", SystemdCgroup: true,
					CNIConf: "/var/lib/rancher/k3s/agent/etc/cni/net.d", CNIBins: []string{"/var/lib/rancher/k3s/data/cni"},
				},
			}, f.Containerd)
			require.Equal(t, name == "2.3", f.Containerd.TellsCgroups())
		})
	}
	_, err := runtime.Gather(t.Context(), fakeHost(t, "h", "containerd="+ownSocket+" 1.7.0\ncontainerd-config=- "+base64.StdEncoding.EncodeToString([]byte("= no TOML"))+"\nend=1\n"), all().Marks())
	require.ErrorContains(t, err, "h: gathering facts: reading \"containerd-config=")
}

// What is wrong with a host's containerd is told by name, each with its remedy.
func TestContainerdProblems(t *testing.T) {
	c := cluster(t)
	c.Images = []string{"docker.io/rancher/mirrored-pause:3.6", "registry.k8s.io/pause:3.10"}
	c.Metadata.KubeVersion = "v1.37.0"
	h := c.Hosts[0]
	needs := runtime.ContainerdNeeds{
		Socket: ownSocket, Sandbox: "docker.io/rancher/mirrored-pause:3.6", PodConf: "/var/lib/rancher/k3s/agent/etc/cni/net.d", Plugins: []string{"/var/lib/rancher/k3s/data/cni"},
	}
	good := func() *runtime.ContainerdConfig {
		return &runtime.ContainerdConfig{CertsDir: "/etc/containerd/certs.d", Sandbox: "rancher/mirrored-pause:3.6", CNIConf: needs.PodConf + "/", CNIBins: []string{"/opt/cni/bin", needs.Plugins[0]}}
	}
	bare := &runtime.ContainerdConfig{Sandbox: "registry.k8s.io/pause:3.8", CNIConf: "/etc/cni/net.d", CNIBins: []string{"/opt/cni/bin"}}
	mirrored := &runtime.Containerd{Socket: ownSocket, Version: "2.0.0", Config: good(), Mirrored: []string{
		"/etc/containerd/certs.d/_default", "/etc/containerd/certs.d/docker.io", "/etc/containerd/certs.d/own.example:5000", "/etc/containerd/certs.d/sea.hub_5000_", "/elsewhere/docker.io",
	}}
	disabled := good()
	disabled.Disabled = true
	var all strings.Builder
	for _, d := range []*runtime.Containerd{
		nil, {Socket: ownSocket}, {Socket: ownSocket, Version: "1.5.9"}, {Socket: ownSocket, Version: "v2.3.6"}, {Socket: ownSocket, Version: "2.3.6", Config: disabled},
		{Socket: ownSocket, Version: "1.7.28", Config: bare}, {Socket: ownSocket, Version: "2.0.1", Config: bare}, {Socket: ownSocket, Version: "v2.3.6", Config: bare}, mirrored,
	} {
		h.Facts.Containerd = d
		for _, p := range runtime.ContainerdProblems(c, h, needs) {
			fmt.Fprintf(&all, "%s\n  %s\n", p, p.Fix)
		}
	}
	golden(t, "testdata/containerd.txt", all.String())

	h.Facts.Containerd = &runtime.Containerd{Socket: ownSocket, Version: "2.3.6", Config: good()}
	require.Empty(t, runtime.ContainerdProblems(c, h, needs))
	own := *bare
	own.CertsDir = "/etc/containerd/certs.d"
	h.Facts.Containerd = &runtime.Containerd{Socket: ownSocket, Version: "2.3.6", Config: &own, Images: []string{"registry.k8s.io/pause:3.8"}}
	needs.PodConf = ""
	require.Empty(t, runtime.ContainerdProblems(c, h, needs), "a pod network of one's own, an image that is there")
}

// The script asks a real containerd's program, where this machine has one, as it asks the process.
func TestContainerd_Debian(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		t.Skip("containerd is not installed")
	}
	out, err := exec.CommandContext(t.Context(), program, "--config", "testdata/containerd-1.6.toml", "config", "dump").Output()
	require.NoError(t, err)
	f := told(t, "1.6.20~ds1", "-", string(out))
	require.Equal(t, "/etc/containerd/certs.d", f.Containerd.Config.CertsDir)
	require.True(t, f.Containerd.Config.SystemdCgroup)
}
