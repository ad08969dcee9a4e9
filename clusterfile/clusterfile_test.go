// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/goldenfile"
)

func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

func TestParse(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)

	got, err := json.MarshalIndent(f, "", "  ")
	require.NoError(t, err)
	golden(t, "testdata/good/full.json", string(got)+"\n")

	require.Equal(t, "other", f.ControlPlanes()[0].SSH.Password.Reveal())
	workers := f.Workers()
	require.Len(t, workers, 2)
	require.Equal(t, "hunter2", workers[0].SSH.Password.Reveal())
	require.Equal(t, "10.0.0.2", f.Machines()[0].Address, "control planes come first")
	require.Equal(t, map[string]string{"PodCIDR": "10.244.0.0/16", "GREETING": "hi"}, f.HostEnv(workers[0]))
	require.Equal(t, "hello = world", f.Env["GREETING"], "a host's environment is its own")

	require.Equal(t, "worker-5", workers[0].Hostname)
	require.Equal(t, map[string]string{"rack": "1", "zone": "b"}, f.ControlPlanes()[0].Labels)
	require.Len(t, workers[1].Taints, 2)
	require.Len(t, f.Hosts[1].Taints, 1, "what plugins say is not mixed into the hosts")
	require.Equal(t, []string{"shop"}, f.Apps)
	require.Len(t, f.PluginsAt(clusterfile.PreInitHost, clusterfile.Worker), 1)
	require.Empty(t, f.PluginsAt(clusterfile.PreInitHost, clusterfile.ControlPlane))
	require.Empty(t, f.PluginsAt(clusterfile.PostInstall, clusterfile.Worker))
	require.Equal(t, "gate.example.com", workers[0].SSH.Jump.Host)

	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		require.NotContains(t, fmt.Sprintf(verb, *f), "hunter2")
	}
}

func TestParse_K0s(t *testing.T) {
	f, err := clusterfile.Parse("f", []byte(`apiVersion: sealer.io/v2
kind: Cluster
spec: {hosts: [{ips: [10.0.0.1], roles: [master]}]}
---
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
metadata: {annotations: {a/b: "true"}}
spec:
  workerProfiles: [{name: default, values: {failCgroupV1: false, maxPods: 200}}]
  network: {kubeProxy: {mode: nftables}}
`))
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig",
		"metadata": map[string]any{"annotations": map[string]any{"a/b": "true"}},
		"spec": map[string]any{
			"workerProfiles": []any{map[string]any{"name": "default", "values": map[string]any{"failCgroupV1": false, "maxPods": int64(200)}}},
			"network":        map[string]any{"kubeProxy": map[string]any{"mode": "nftables"}},
		},
	}, f.K0s)
}

// The keys of k3s come out with the types that they have; what may hold a password shows nowhere.
func TestParse_K3s(t *testing.T) {
	src, err := os.ReadFile("testdata/good/k3s.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("k3s.yaml", src)
	require.NoError(t, err)
	require.Equal(t, &clusterfile.K3s{
		IgnoreChecks: []string{"cpu"},
		Server: map[string]any{
			"tls-san": []string{"k8s.example.com", "192.0.2.10"}, "disable": []string{"traefik"}, "https-listen-port": int64(7443),
			"datastore-endpoint": clusterfile.Secret("postgres://k3s:hunter2@10.0.0.9/k3s"), "datastore-cafile": "etc/datastore/ca.crt",
			"kube-apiserver-arg": []string{"profiling=false"}, "secrets-encryption": true, "etcd-snapshot-retention": int64(3),
		},
		Agent: map[string]any{"kubelet-arg": []string{"max-pods=200"}},
	}, f.K3s)
	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		require.NotContains(t, fmt.Sprintf(verb, *f.K3s), "hunter2")
	}
}

// Every mistake of a file is reported at once, with its place and line.
func TestParse_Mistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			_, err = clusterfile.Parse(filepath.Base(file), src)
			var all clusterfile.Errors
			require.ErrorAs(t, err, &all)
			var b strings.Builder
			for _, e := range all {
				b.WriteString(e.Show() + "\n")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", b.String())
		})
	}
}

// A line with a password is shown without it.
func TestParse_MistakeHidesPassword(t *testing.T) {
	_, err := clusterfile.Parse("f", []byte("kind: Cluster\napiVersion: sealer.io/v2\nspec:\n  ssh:\n    passwd: 12345\n"))
	var all clusterfile.Errors
	require.ErrorAs(t, err, &all)
	require.NotContains(t, all[0].Show(), "12345")
}

func TestInventory(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)
	out, err := f.Inventory()
	require.NoError(t, err)
	golden(t, "testdata/good/inventory.yaml", string(out))

	again, err := clusterfile.Parse("Clusterfile", out)
	require.NoError(t, err, "what is kept can be read back")
	require.Equal(t, f.Machines()[0].Address, again.Machines()[0].Address)
	require.Equal(t, f.Registry, again.Registry)
	for _, secret := range []string{"hunter2", "other", "hello", "version = 3"} {
		require.NotContains(t, string(out), secret)
	}
}

func TestFromFlags(t *testing.T) {
	f, err := clusterfile.FromFlags("10.0.0.2, 10.0.0.4-10.0.0.5", "10.0.0.9", clusterfile.SSH{User: "u"})
	require.NoError(t, err)
	var got []string
	for _, h := range f.Machines() {
		got = append(got, h.Address+" "+string(h.Role)+" "+h.SSH.User)
	}
	require.Equal(t, []string{"10.0.0.2 control-plane u", "10.0.0.4 control-plane u", "10.0.0.5 control-plane u", "10.0.0.9 worker u"}, got)

	f, err = clusterfile.FromFlags("[FD00:0::1]", "fd00::a-fd00::b,[fd00::d]-[fd00::e],::ffff:10.0.0.9", clusterfile.SSH{})
	require.NoError(t, err)
	got = nil
	for _, h := range f.Machines() {
		got = append(got, h.Address)
	}
	require.Equal(t, []string{"fd00::1", "fd00::a", "fd00::b", "fd00::d", "fd00::e", "10.0.0.9"}, got)

	f, err = clusterfile.FromFlags("", "", clusterfile.SSH{})
	require.NoError(t, err)
	require.True(t, f.Machines()[0].Local(), "without hosts the cluster is this machine")
	require.Equal(t, "localhost", f.Machines()[0].String())

	for _, c := range []struct{ controlPlanes, workers, want string }{
		{"", "10.0.0.1", "none has the role control-plane"},
		{"10.0.0.1", "10.0.0.1", "is there twice"},
		{"10.0.0.1-10.0.0.0", "", "ends before it begins"},
		{"10.0.0.1-fe80::1", "", "mixes IPv4 and IPv6"},
		{"2000::-ffff::", "", "more than 5000"},
		{"fe80::1", "", "an address of one link alone"},
		{"fe80::1%eth0", "", "an address of one link alone"},
		{"[fe80::1%eth0]-[fe80::9%eth0]", "", "an address of one link alone"},
		{"169.254.0.1", "", "an address of one link alone"},
		{"ff02::1", "", "no address of one host"},
		{"fd00::1,[fd00::2-fd00::3]", "", "neither an IP address nor a host name"},
		{"[10.0.0.1]", "", "neither an IP address nor a host name"},
		{"[fd00::1]:22", "", "names a port"},
		{"a_b", "", "neither an IP address nor a host name"},
		{"10.0.0", "", "neither an IP address nor a host name"},
		{"10.0.0.1-x", "", "does not end in an IP address"},
	} {
		_, err := clusterfile.FromFlags(c.controlPlanes, c.workers, clusterfile.SSH{})
		require.ErrorContains(t, err, c.want)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/wrong/*.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(f, err)
		for _, file := range files {
			src, err := os.ReadFile(file)
			require.NoError(f, err)
			f.Add(src)
		}
	}
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? [x]\n: y\n<<: {a: b}\n!!str k: !x v\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := clusterfile.Parse("Clusterfile", src)
		if err != nil {
			var all clusterfile.Errors
			require.ErrorAs(t, err, &all, "an error without a position")
			for _, e := range all {
				require.NotEmpty(t, e.Show())
			}
			return
		}
		require.NoError(t, file.Validate(), "what Parse takes must hold together")
		out, err := file.Inventory()
		require.NoError(t, err)
		_, err = clusterfile.Parse("inventory", out)
		require.NoError(t, err, "%s", out)
	})
}

// What a reference names is asked for once, and stands in its place on every host.
func TestFile_ResolveSecrets(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)
	asked := map[string]int{}
	require.NoError(t, f.ResolveSecrets(func(r clusterfile.Reference) (clusterfile.Secret, error) {
		asked[r.String()]++
		return "of " + clusterfile.Secret(r.String()), nil
	}))
	require.Equal(t, map[string]int{"env:SUDO": 1, "prompt": 1}, asked)
	for _, h := range f.Machines() {
		require.Equal(t, "of env:SUDO", h.SSH.SudoPassword.Reveal())
		require.Equal(t, "of prompt", h.SSH.Jump.KeyPassword.Reveal())
	}
	require.Equal(t, "other", f.ControlPlanes()[0].SSH.Password.Reveal(), "what is no reference stays")
	require.Equal(t, []string{"full.yaml:11: passwd", "full.yaml:22: passwd"}, []string{f.ClearText[0].String(), f.ClearText[1].String()})

	f.Hosts[0].SSH.Password = "file:/nowhere"
	err = f.ResolveSecrets(func(clusterfile.Reference) (clusterfile.Secret, error) { return "", os.ErrNotExist })
	require.EqualError(t, err, `getting the secret "file:/nowhere" of the Clusterfile: file does not exist`)
}

func TestConfig_Content(t *testing.T) {
	const two = "kind: Service\nmetadata: {name: shop}\nspec: {type: ClusterIP}\n---\nkind: Deployment\nmetadata: {name: shop}\nspec: {replicas: 1, paused: true}\n"
	for name, c := range map[string]struct {
		config         clusterfile.Config
		original, want string
	}{
		"overwrite":          {clusterfile.Config{Data: "any\n text"}, two, "any\n text"},
		"merge into nothing": {clusterfile.Config{Strategy: clusterfile.Merge, Data: "a: 1\n"}, "", "a: 1\n"},
		"one of its kind": {
			clusterfile.Config{Strategy: clusterfile.Merge, Data: "kind: Deployment\nspec: {replicas: 3, paused: null}"}, two,
			"kind: Service\nmetadata:\n  name: shop\nspec:\n  type: ClusterIP\n---\nkind: Deployment\nmetadata:\n  name: shop\nspec:\n  replicas: 3\n",
		},
		"every one": {
			clusterfile.Config{Strategy: clusterfile.Merge, Data: "metadata: {namespace: x}"}, "kind: A\n---\nkind: B\n",
			"kind: A\nmetadata:\n  namespace: x\n---\nkind: B\nmetadata:\n  namespace: x\n",
		},
		"json": {clusterfile.Config{Path: "x.json", Strategy: clusterfile.Merge, Data: "b: [2]"}, `{"a":1,"b":[1]}`, "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}\n"},
		"process": {
			clusterfile.Config{Name: "c", Process: []clusterfile.Process{clusterfile.ToJSON, clusterfile.ToBase64, clusterfile.ToSecret}, Data: "a: {b: 1}\nc: d"}, "",
			"apiVersion: v1\ndata:\n  a: eyJiIjoxfQ==\n  c: ZA==\nkind: Secret\nmetadata:\n  name: c\ntype: Opaque\n",
		},
		"into a Secret": {
			clusterfile.Config{Strategy: clusterfile.Merge, Process: []clusterfile.Process{clusterfile.ToSecret}, Data: "c: d"}, "kind: Secret\nmetadata: {name: theirs}\ndata: {a: YQ==}\n",
			"data:\n  a: YQ==\n  c: ZA==\nkind: Secret\nmetadata:\n  name: theirs\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.config.Content([]byte(c.original))
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
			if c.config.Strategy == clusterfile.Merge {
				again, err := c.config.Content(got)
				require.NoError(t, err)
				require.Equal(t, c.want, string(again), "merging twice is merging once")
			}
		})
	}
	_, err := clusterfile.Config{Name: "c", Path: "p", Strategy: clusterfile.Merge, Data: "kind: Deployment\nmetadata: {name: shopp}"}.Content([]byte(two))
	var none *clusterfile.NoDocumentError
	require.ErrorAs(t, err, &none)
	require.EqualError(t, err, `merging the Config "c" into "p": the file has no Deployment shopp; it has Service shop, Deployment shop`)
}

// A Clusterfile goes over the default one of an image: field by field where there are names, else as a whole.
func TestFile_Over(t *testing.T) {
	base, err := clusterfile.ParseBase("base", []byte(`apiVersion: sealer.io/v2
kind: Cluster
metadata: {name: theirs}
spec:
  env: [A=1, B=1]
  cmd: [theirs]
  registry: {localRegistry: {domain: hub.example.com}}
  ssh: {user: theirs, port: 2222, pk: /k, passwd: "env:THEIRS", pkPasswd: prompt, jump: {host: theirs}}
---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: c}
spec: {path: etc/c, data: theirs}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: p}
spec: {type: SHELL, action: post-install, data: theirs}
---
apiVersion: sealer.io/v2
kind: Application
spec: {configs: [{name: web, env: [X=1, Y=1], launch: {cmds: [theirs]}}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.1.0.0/16, dnsDomain: theirs}
`))
	require.NoError(t, err)
	ours, err := clusterfile.Parse("ours", []byte(`apiVersion: sealer.io/v2
kind: Cluster
metadata: {name: ours}
spec:
  env: [B=2]
  hosts: [{ips: [10.0.0.1], roles: [master]}, {ips: [10.0.0.2], roles: [node], ssh: {user: ours, pk: /ours, passwd: prompt}}]
---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: c}
spec: {path: etc/c, data: ours}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: q}
spec: {type: SHELL, action: post-install, data: ours}
---
apiVersion: sealer.io/v2
kind: Application
spec: {configs: [{name: web, env: [Y=2]}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {dnsDomain: ours}
`))
	require.NoError(t, err)
	got := ours.Over(base)
	require.NoError(t, got.Validate())
	require.Equal(t, "ours", got.Name)
	require.Equal(t, map[string]string{"A": "1", "B": "2"}, got.Env)
	require.Equal(t, []string{"theirs"}, got.Cmd)
	require.Equal(t, "hub.example.com", got.Registry.Domain)
	require.Equal(t, clusterfile.SSH{User: "theirs", Port: 2222, KeyFile: "/k"}, got.Hosts[0].SSH, "no password, and no jump host")
	require.Equal(t, clusterfile.SSH{User: "ours", Port: 2222, KeyFile: "/ours", Password: "prompt"}, got.Hosts[1].SSH)
	require.Equal(t, clusterfile.SSH{}, ours.Hosts[0].SSH)

	base.Hosts = []clusterfile.Host{{Address: "10.0.0.7", Role: clusterfile.ControlPlane, SSH: base.SSH}}
	alone := (&clusterfile.File{Name: "n", SSH: clusterfile.SSH{Port: 22}}).Over(base)
	require.Equal(t, clusterfile.SSH{User: "theirs", Port: 22, KeyFile: "/k"}, alone.Hosts[0].SSH)
	require.Len(t, got.Configs, 1)
	require.Equal(t, "ours", got.Configs[0].Data)
	require.Len(t, got.Plugins, 2)
	require.Equal(t, clusterfile.Application{Name: "web", Env: map[string]string{"X": "1", "Y": "2"}, Cmds: []string{"theirs"}}, got.Applications[0])
	require.Equal(t, map[string]any{"podSubnet": "10.1.0.0/16", "dnsDomain": "ours"}, got.Kubeadm["ClusterConfiguration"]["networking"])
	require.Equal(t, map[string]string{"B": "2"}, ours.Env, "neither is changed")
	require.Equal(t, map[string]string{"A": "1", "B": "1"}, base.Env)
}

// What is written is read as the same again, but for secrets in clear, which are asked for.
func TestFile_Marshal(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)
	f.K0s = map[string]any{"apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig"}
	text, err := f.Marshal()
	require.NoError(t, err)
	golden(t, "testdata/good/whole.yaml", string(text))
	require.NotContains(t, string(text), "hunter2")

	again, err := clusterfile.Parse("whole.yaml", text)
	require.NoError(t, err)
	f.ClearText = nil
	for i := range f.Hosts {
		f.Hosts[i].SSH.Password = "prompt"
	}
	for i, c := range f.Configs {
		if c.App != "" { // its path holds the folder already
			f.Configs[i].Name, f.Configs[i].App = again.Configs[i].Name, ""
		}
	}
	slices.SortFunc(f.Plugins, func(a, b clusterfile.Plugin) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(again.Plugins, func(a, b clusterfile.Plugin) int { return strings.Compare(a.Name, b.Name) })
	for i, h := range again.Hosts {
		if len(h.Env) == 0 {
			again.Hosts[i].Env = f.Hosts[i].Env
		}
	}
	f.SSH = clusterfile.SSH{} // each host has it
	f.PluginLines, again.PluginLines = nil, nil
	require.Equal(t, f, again)
}

// Files that older sealers have kept have their own values in the environment, which say nothing new.
func TestParse_Environment(t *testing.T) {
	const kept = `apiVersion: sealer.io/v2
kind: Cluster
spec:
  env:
  - SvcCIDR=fd00:96::/112,10.96.0.0/22
  - KubeSvcIP=fd00:96::1
  - DNSSvcIP=fd00:96::a
  - HostIPFamily=IPv6
  - ContainerRuntime=containerd
  - UseIPasNodeName=false
  - CertSANs=k8s.example.com,*.k8s.example.com;[fd00::9]
  - IPvsVIPv6=fd00::5
  - RegistryURL=%s
  - RegistryDomain=%s
  - RegistryPort=%s
  - %s
  controlPlaneEndpoint: {ipvs: true, ipvsAddress: "fd00::5"}
  registry: %s
  hosts: [{ips: ["fd00::1"], roles: [master]}]
`
	_, err := clusterfile.Parse("f", fmt.Appendf(nil, kept, "sea.hub:5443", "sea.hub", "5443", "LocalRegistryURL=sea.hub:5443", "{localRegistry: {port: 5443}}"))
	require.NoError(t, err)
	_, err = clusterfile.Parse("f", fmt.Appendf(nil, kept, "hub.example.com:443", "hub.example.com", "443", "ExternalRegistryURL=hub.example.com:443", "{externalRegistry: {domain: hub.example.com, path: mirror}}"))
	require.NoError(t, err)
	_, err = clusterfile.Parse("f", fmt.Appendf(nil, kept, "sea.hub:5000", "sea.hub", "5000", "LocalRegistryPort=5001", "{}"))
	require.ErrorContains(t, err, "f:16:5: the variable LocalRegistryPort is sealer's to give")
	require.Equal(t, []string{"a", "b", "c"}, clusterfile.CertSANs("a;b, c;"))
}

// Lines of plugins have white space of any kind, and name hosts as the hosts do.
func TestParse_PluginLines(t *testing.T) {
	const plugin = `---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: marks}
spec:
  type: LABEL
  data: |

    # racks
    10.0.0.1-10.0.0.2\track=1
    DB-1\t rack=2,disk=fast
    [fd00::9] rack=3
`
	f, err := clusterfile.Parse("f", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {image: x}\n"+strings.ReplaceAll(plugin, `\t`, "\t")))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"10.0.0.1": "rack=1", "10.0.0.2": "rack=1", "db-1": "rack=2,disk=fast", "fd00::9": "rack=3"}, f.Plugins[0].PerHost)

	f.Hosts = []clusterfile.Host{{Address: "10.0.0.1", Role: clusterfile.ControlPlane}, {Address: "db-1", Role: clusterfile.Worker}}
	require.NoError(t, f.ResolveHosts(func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil }, nil))
	var stray []string
	for _, l := range f.StrayLines() {
		stray = append(stray, l.Place.String()+" "+l.Host)
	}
	require.Equal(t, []string{"f:13: data 10.0.0.2", "f:15: data fd00::9"}, stray)
	require.Equal(t, map[string]string{"rack": "2", "disk": "fast"}, f.Workers()[0].Labels)
}

// Each thing that is prompted for is asked for once, by its name: one answer is not taken for all.
func TestFile_ResolvePrompts(t *testing.T) {
	f, err := clusterfile.Parse("x.yaml", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  ssh: {passwd: prompt, sudoPasswd: prompt, jump: {host: gate, passwd: prompt}}\n"+
		"  hosts: [{ips: [10.0.0.1, 10.0.0.2], roles: [master]}]\n  registry: {localRegistry: {username: robot, password: prompt}}\n"))
	require.NoError(t, err)
	var asked []string
	require.NoError(t, f.ResolveSecrets(func(r clusterfile.Reference) (clusterfile.Secret, error) {
		asked = append(asked, r.What)
		return clusterfile.Secret("the " + r.What), nil
	}))
	require.Equal(t, []string{"password of the registry", "SSH password", "password for sudo", "SSH password of gate"}, asked)
	require.Equal(t, "the SSH password", f.Hosts[1].SSH.Password.Reveal())
	require.Equal(t, "the SSH password of gate", f.Hosts[0].SSH.Jump.Password.Reveal())
}

// What replaces the image's commands and applications by nothing is written, and secrets stay where they are.
func TestFile_MarshalNothing(t *testing.T) {
	f, err := clusterfile.Parse("x.yaml", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  cmd: []\n  appNames: [\"\"]\n  ssh: {passwd: \"env:A\", sudoPasswd: \"file:/b\"}\n  hosts: [{ips: [10.0.0.1], roles: [master]}]\n"))
	require.NoError(t, err)
	text, err := f.Marshal()
	require.NoError(t, err)
	again, err := clusterfile.Parse("y.yaml", text)
	require.NoError(t, err, string(text))
	require.NotNil(t, again.Cmd, string(text))
	require.Empty(t, again.Cmd)
	require.NotNil(t, again.Apps, string(text))
	require.Empty(t, again.Apps)
	require.Equal(t, "env:A", again.Hosts[0].SSH.Password.Reveal())
	require.Equal(t, "file:/b", again.Hosts[0].SSH.SudoPassword.Reveal())
}

// An image has no secrets, and does not choose among those of whoever runs it.
func TestParseBase_Secrets(t *testing.T) {
	const cluster = "apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {passwd: \"env:IGNORED\"}, registry: {localRegistry: {username: a, password: %q}}}\n"
	for _, reference := range []string{"env:HOME", "file:/etc/shadow", "prompt"} {
		_, err := clusterfile.ParseBase("etc/Clusterfile", fmt.Appendf(nil, cluster, reference))
		var secret *clusterfile.ImageSecretError
		require.ErrorAs(t, err, &secret)
		require.Equal(t, reference, secret.Reference.String())
		require.ErrorContains(t, err, "etc/Clusterfile: it refers to the secret")
	}
	_, err := clusterfile.ParseBase("etc/Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {passwd: \"env:IGNORED\"}}\n---\n"+
		"apiVersion: sealer.io/v2\nkind: K3s\nserver: {datastore-endpoint: \"env:DATASTORE\"}\n"))
	require.ErrorContains(t, err, "env:DATASTORE")
	f, err := clusterfile.ParseBase("etc/Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {passwd: \"env:IGNORED\"}}\n"))
	require.NoError(t, err)
	require.Equal(t, "env:IGNORED", f.SSH.Password.Reveal())
}
