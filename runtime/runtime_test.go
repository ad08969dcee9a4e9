// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
	"github.com/sealerio/sealer/runtime/k3s"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

// all are the distributions that are known.
func all() runtime.Distributions {
	return runtime.Distributions{"k0s": k0s.New(), "k3s": k3s.New(), "kubernetes": kubernetes.New()}
}

// The script runs for real, on this machine.
func TestGather_ThisMachine(t *testing.T) {
	local, err := host.NewLocal(t.Context(), host.LocalConfig{})
	require.NoError(t, err)
	f, err := runtime.Gather(t.Context(), local, all().Marks())
	require.NoError(t, err)
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, name, f.Hostname)
	require.Equal(t, goruntime.GOARCH, f.Arch)
	require.Equal(t, os.Geteuid() == 0, f.Root)
	require.Positive(t, f.CPUs)
	require.Positive(t, f.Memory)
	require.Positive(t, f.DiskFree)
	require.Contains(t, f.Links, "lo")
	require.Contains(t, []int{1, 2}, f.Cgroup)
	require.Less(t, f.Skew.Abs(), 10*time.Second)
}

func TestFactsScript_Shellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	out, err := exec.Command(shellcheck, "-s", "sh", "facts.sh").CombinedOutput()
	require.NoError(t, err, "%s", out)
}

const answer = `time=TIME
uid=0
arch=aarch64
kernel=6.1.0-28-arm64
hostname=H7
machine-id=abc
os=debian
os-version=12
os-name=Debian GNU/Linux 12 (bookworm)
init=systemd
cgroup=2
selinux=enforcing
cpus=4
memory=8.23e+09
swap=/dev/sda2 partition 1000 0 -2
disk-free=53687091200
default-route=eth0
ipv6=on
ipvs=on
link=lo
address=10.244.0.1/24 cni0
address=10.0.0.7/24 eth0
address=fd00::7/64 eth0
listen=tcp 0100007F:1F90
listen=tcp6 00000000000000000000000000000000:192B
listen=tcp6 0000000000000000FFFF00000100007F:0050
socket=*:6443 users:(("kube-apiserver",pid=12,fd=3))
path=/usr/bin/dockerd
unit=containerd.service loaded active
unit=kubelet.service not-found inactive
state={"schemaVersion":"v1","cluster":"prod","steps":{"a":"b"}}
end=1
`

func fakeHost(t *testing.T, name, answer string) *hosttest.Runner {
	t.Helper()
	return hosttest.New(name).On("^sh -s -- ", hosttest.Answer{Stdout: answer})
}

func TestGather(t *testing.T) {
	f, err := runtime.Gather(t.Context(), fakeHost(t, "10.0.0.7", strings.ReplaceAll(answer, "TIME", "0")), all().Marks())
	require.NoError(t, err)
	require.Less(t, f.Skew, -24*time.Hour)
	f.Skew = 0
	require.Equal(t, runtime.Facts{
		OS: "debian", OSVersion: "12", OSName: "Debian GNU/Linux 12 (bookworm)", Arch: "arm64", Kernel: "6.1.0-28-arm64",
		Hostname: "H7", MachineID: "abc", Init: "systemd", Root: true, Cgroup: 2, SELinux: true, CPUs: 4, Memory: 8230000000, DiskFree: 53687091200,
		Swap: true, DefaultRoute: true, IPv6: true, IPVS: true, Links: []string{"lo"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/24"), netip.MustParsePrefix("fd00::7/64"), netip.MustParsePrefix("10.244.0.1/24")},
		LinkOf: map[netip.Prefix]string{
			netip.MustParsePrefix("10.0.0.7/24"): "eth0", netip.MustParsePrefix("fd00::7/64"): "eth0", netip.MustParsePrefix("10.244.0.1/24"): "cni0",
		},
		Listening: []runtime.Listener{{Port: 8080, Loopback: true}, {Port: 6443, Process: "kube-apiserver"}, {Port: 80, Loopback: true}},
		Paths:     []string{"/usr/bin/dockerd"},
		Units:     map[string]runtime.Unit{"containerd.service": {Active: true}},
		State:     &runtime.HostState{SchemaVersion: "v1", Cluster: "prod", Steps: map[string]string{"a": "b"}},
	}, f)
	require.Equal(t, "h7", f.NodeName())
}

func TestGather_CutOrStrange(t *testing.T) {
	for _, out := range []string{"", "time=1\nuid=0\n", "cpus=many\nend=1\n", "state={\nend=1\n", "listen=x\nend=1\n", "address=10.0.0.300/8 eth0\nend=1\n"} {
		_, err := runtime.Gather(t.Context(), fakeHost(t, "h", out), all().Marks())
		require.ErrorContains(t, err, "h: gathering facts")
	}
}

func facts(name, ip string) runtime.Facts {
	return runtime.Facts{
		Arch: "amd64", Hostname: name, MachineID: "id-of-" + name, Init: "systemd", Root: true, Cgroup: 2, CPUs: 4,
		Memory: 8 << 30, DiskFree: 100 << 30, DefaultRoute: true, Addresses: []netip.Prefix{netip.MustParsePrefix(ip + "/24")},
		Nameservers: []string{"10.0.0.254"},
	}
}

var images = []string{
	"registry.k8s.io/coredns/coredns:v1.14.2", "registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/kube-apiserver:v1.36.3",
	"registry.k8s.io/kube-controller-manager:v1.36.3", "registry.k8s.io/kube-proxy:v1.36.3",
	"registry.k8s.io/kube-scheduler:v1.36.3", "registry.k8s.io/pause:3.10.2",
}

func cluster(t *testing.T) *runtime.Cluster {
	t.Helper()
	f, err := clusterfile.FromFlags("10.0.0.1", "10.0.0.2-10.0.0.3", clusterfile.SSH{})
	require.NoError(t, err)
	c := &runtime.Cluster{
		File: f, Digest: "sha256:1", Images: images, Metadata: clusterimage.Metadata{ClusterRuntime: "kubernetes"},
		Registry: runtime.Registry{Domain: f.Registry.Domain, Port: f.Registry.Port},
	}
	for i, m := range f.Machines() {
		c.Hosts = append(c.Hosts, &runtime.Host{
			Spec: m, Runner: hosttest.New(m.Address), Platform: "linux/amd64", DiskNeed: 10 << 30,
			Facts: facts("h"+string(rune('1'+i)), m.Address),
		})
	}
	return c
}

func TestPreflight(t *testing.T) {
	require.NoError(t, runtime.Preflight(cluster(t), kubernetes.New(), all(), "id"))
}

// Everything that is wrong on any host is one error; its text is golden.
func TestPreflight_Everything(t *testing.T) {
	c := cluster(t)
	one, two, three := &c.Hosts[0].Facts, &c.Hosts[1].Facts, &c.Hosts[2].Facts
	one.CPUs, one.Memory, one.DiskFree = 1, 1<<30, 5<<30
	one.Listening = []runtime.Listener{{Port: 6443, Process: "nginx"}, {Port: 5000}}
	one.Cgroup = 1
	one.Paths = []string{"/usr/bin/dockerd", "/etc/cni/net.d/10-flannel.conflist"}
	two.Root, two.Init, two.Hostname, two.MachineID = false, "init", "H1", "id-of-h1"
	two.Skew = time.Minute
	two.Addresses = []netip.Prefix{netip.MustParsePrefix("192.168.0.2/24")}
	two.Paths = []string{"/usr/local/bin/k3s", "/etc/kubernetes/kubelet.conf"}
	c.Hosts[1].Platform = ""
	three.MachineID, three.Hostname = "", "localhost"
	three.ReadOnly, three.NoExec, three.Nameservers = []string{"/etc", "/var/lib"}, []string{"/etc", "/usr/local/bin"}, nil
	three.Units = map[string]runtime.Unit{"k0sworker.service": {}, "containerd.service": {}}
	c.Images = images[:2]
	c.Metadata.KubeVersion = "v1.30.1"
	c.File.Kubeadm["ClusterConfiguration"] = map[string]any{"kubernetesVersion": "v1.36.0"}

	err := runtime.Preflight(c, kubernetes.New(), all(), "id")
	var problems *runtime.PreflightError
	require.ErrorAs(t, err, &problems)
	golden(t, "testdata/preflight.txt", err.Error()+"\nhint: "+problems.Hint()+"\n")
}

// Hosts whose clocks agree may yet be far from this machine's.
func TestPreflight_OwnClock(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		4 * time.Minute: "", -4 * time.Minute: "",
		2 * time.Hour:  "the clock of this machine is 2h0m0s behind those of the hosts; 5m0s is the limit",
		-2 * time.Hour: "the clock of this machine is 2h0m0s ahead of those of the hosts",
	} {
		c := cluster(t)
		for _, h := range c.Hosts {
			h.Facts.Skew = skew
		}
		err := runtime.Preflight(c, kubernetes.New(), all(), "id")
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}

// What ails a host is each told once, and nothing where nothing does.
func TestAilments(t *testing.T) {
	for out, want := range map[string][]string{
		"free=/etc / 9999999\ninodes=/etc / 100000\nend=1\n": nil,
		"read-only=/etc /\nread-only=/var/lib /\nfree=/etc / 2048\nfree=/var/lib / 2048\ninodes=/run /run 3\nend=1\n": {
			"h: /etc is mounted read-only [read-only]",
			"h: the file system that holds /etc is full: 2 MiB is free [disk]",
			"h: the file system that holds /run can take 3 more files [disk]",
		},
	} {
		found, err := runtime.Ailments(t.Context(), hosttest.New("h").On("^sh -s", hosttest.Answer{Stdout: out}))
		require.NoError(t, err)
		var got []string
		for _, p := range found {
			require.NotEmpty(t, p.Fix)
			got = append(got, p.String())
		}
		require.Equal(t, want, got)
	}
	local, err := host.NewLocal(t.Context(), host.LocalConfig{})
	require.NoError(t, err)
	_, err = runtime.Ailments(t.Context(), local) // the script runs for real
	require.NoError(t, err)
}

func TestPreflight_Owner(t *testing.T) {
	ours := func() *runtime.HostState {
		return &runtime.HostState{
			SchemaVersion: "v1", Cluster: clusterfile.DefaultName, ClusterID: "id", Role: "control-plane", Image: "x:1",
			ImageDigest: "sha256:1", Runtime: "kubernetes", KubeVersion: "v1.36.3",
		}
	}
	for name, c := range map[string]struct {
		change func(*runtime.HostState)
		want   string // empty: goes on
	}{
		"continue":           {func(*runtime.HostState) {}, ""},
		"complete":           {func(s *runtime.HostState) { s.Complete = true }, ""},
		"another cluster":    {func(s *runtime.HostState) { s.Cluster = "other" }, `belongs to the cluster "other"`},
		"same name":          {func(s *runtime.HostState) { s.ClusterID = "theirs" }, "belongs to another cluster named"},
		"another role":       {func(s *runtime.HostState) { s.Role = "worker" }, "was installed as worker"},
		"another runtime":    {func(s *runtime.HostState) { s.Runtime = "k3s" }, "it runs k3s"},
		"newer sealer":       {func(s *runtime.HostState) { s.SchemaVersion = "v9" }, `its state has the version "v9"`},
		"image, half done":   {func(s *runtime.HostState) { s.ImageDigest = "sha256:2" }, ""},
		"image, done":        {func(s *runtime.HostState) { s.ImageDigest, s.Complete = "sha256:2", true }, "installed from the image x:1"},
		"version, half done": {func(s *runtime.HostState) { s.ImageDigest, s.KubeVersion = "sha256:2", "v1.35.0" }, "installed from the image"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := cluster(t)
			s := ours()
			c.change(s)
			f := &cl.Hosts[0].Facts
			f.State = s
			f.Listening = []runtime.Listener{{Port: 6443}, {Port: 5000}}
			f.DiskFree = 1
			if s.Runtime == "kubernetes" {
				f.Paths = []string{"/etc/kubernetes/admin.conf", "/usr/local/bin/containerd", "/etc/cni/net.d/x.conf"}
			}
			err := runtime.Preflight(cl, kubernetes.New(), all(), "id")
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestHostsTOML(t *testing.T) {
	r := runtime.Registry{Domain: "sea.hub", Port: 5000, CA: []byte("PEM"), Username: `o"r`, Password: `p'"\x`}
	data, err := runtime.HostsTOML(r, "/etc/containerd/certs.d/sealer-ca.crt")
	require.NoError(t, err)
	golden(t, "testdata/hosts.toml", string(data))

	r.Servers = []string{"10.0.0.2", "fd00::3", "10.0.0.1"}
	data, err = runtime.HostsTOML(r, "/etc/containerd/certs.d/sealer-ca.crt")
	require.NoError(t, err)
	golden(t, "testdata/hosts-three.toml", string(data))
}

// The files for registries of other domains, as users give them, and what is added to /etc/hosts for them.
func TestMirrorFiles(t *testing.T) {
	for name, r := range map[string]runtime.Registry{
		"domain":        {Domain: "hub.shop.example", Port: 5443, Servers: []string{"10.0.0.1", "10.0.0.2"}, CA: []byte("PEM"), Username: "team", Password: "p"},
		"external-open": {Domain: "hub.corp.example", Port: 443, External: true, Domains: []string{"registry.k8s.io"}},
		"external-ipv6": {Domain: "fd00::9", Port: 5443, External: true, Path: "a/b", Domains: []string{"[fd00::1]:5000"}, CA: []byte("PEM"), Username: "robot", Password: "p"},
	} {
		files, err := runtime.MirrorFiles(r, "/ca.crt")
		require.NoError(t, err)
		c := cluster(t)
		c.Registry = r
		var all strings.Builder
		for _, f := range files {
			if f.Dir == "_default" || slices.Contains(r.Domains, f.Dir) || f.Dir == r.Name() { // the common ones are as all others
				fmt.Fprintf(&all, "== %s\n%s", f.Dir, f.Data)
			}
		}
		fmt.Fprintf(&all, "== /etc/hosts\n%s", runtime.HostsFile(nil, c, c.Hosts[1], "10.0.0.1"))
		golden(t, "testdata/registry-"+name+".txt", all.String())
	}
}

// An external registry has each domain in repositories of its own, and what is its own where it is.
func TestMirrorFiles_External(t *testing.T) {
	r := runtime.Registry{
		Domain: "hub.corp.example", Port: 443, External: true, Path: "mirror", Domains: []string{"docker.io", "localhost:5000"},
		CA: []byte("PEM"), Username: "robot", Password: "p",
	}
	files, err := runtime.MirrorFiles(r, "/ca.crt")
	require.NoError(t, err)
	var all strings.Builder
	for _, f := range files {
		fmt.Fprintf(&all, "== %s\n%s", f.Dir, f.Data)
	}
	golden(t, "testdata/hosts-external.toml", all.String())

	r.Path, r.CA, r.Username, r.Password = "", nil, "", ""
	files, err = runtime.MirrorFiles(r, "/ca.crt")
	require.NoError(t, err)
	for _, f := range files {
		require.NotContains(t, string(f.Data), "/ca.crt", "hosts trust it anyway")
		require.NotContains(t, string(f.Data), "Authorization")
	}
	require.Len(t, files, 3+len(runtime.CommonDomains()))

	r.External = false
	files, err = runtime.MirrorFiles(r, "/ca.crt")
	require.NoError(t, err)
	require.Len(t, files, 1)
}

// A control plane asks itself first; workers do not all begin with the same one.
func TestRegistryFor(t *testing.T) {
	c := cluster(t)
	c.Registry = runtime.Registry{Domain: "sea.hub", Port: 5000, Servers: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}}
	at := func(ip string) []string {
		return c.RegistryFor(&runtime.Host{Spec: clusterfile.Host{Address: ip}}).Endpoints()
	}
	require.Equal(t, []string{"https://10.0.0.2:5000", "https://10.0.0.3:5000", "https://10.0.0.1:5000"}, at("10.0.0.2"))
	begins := map[string]int{}
	for i := range 30 {
		urls := at(fmt.Sprintf("10.0.1.%d", i))
		require.ElementsMatch(t, at("10.0.0.1"), urls)
		begins[urls[0]]++
	}
	require.Len(t, begins, 3)
}

func TestHostsFile(t *testing.T) {
	c := cluster(t)
	c.File.Aliases = []clusterfile.Alias{{IP: "10.0.0.9", Hostnames: []string{"nas", "nas.example.com"}}}
	const theirs = "127.0.0.1\tlocalhost\n# mine\n10.9.9.9 x"
	got := runtime.HostsFile([]byte(theirs), c, c.Hosts[0], "10.0.0.1")
	golden(t, "testdata/hosts", string(got))
	require.Equal(t, string(got), string(runtime.HostsFile(got, c, c.Hosts[0], "10.0.0.1")), "a second time changes nothing")
	require.Equal(t, theirs+"\n", string(runtime.CleanHostsFile(got)))
	require.Equal(t, "10.0.0.1", runtime.NamedAPIServer(got))
	require.Empty(t, runtime.NamedAPIServer([]byte(theirs)))
	require.Equal(t, "a\n", string(runtime.CleanHostsFile([]byte("a\n"))))

	more := append(got, "10.9.9.8 y\n"...)
	require.Equal(t, theirs+"\n10.9.9.8 y\n", string(runtime.CleanHostsFile(more)), "lines after ours stay")
}

func TestState_Write(t *testing.T) {
	r := hosttest.New("h")
	s := runtime.HostState{Cluster: "prod", Steps: map[string]string{"a": "1"}}.Clone()
	s.Steps["b"] = "2"
	require.NoError(t, s.Write(t.Context(), r))
	require.JSONEq(t, `{"schemaVersion":"v1","cluster":"prod","clusterID":"","role":"","image":"","imageDigest":"","runtime":"",
		"kubeVersion":"","complete":false,"steps":{"a":"1","b":"2"}}`, string(r.Files()[runtime.StateFile].Data))
}

// This machine keeps the address that its cluster knows it by, whatever links come later.
func TestHost_IP(t *testing.T) {
	h := &runtime.Host{Facts: runtime.Facts{Addresses: []netip.Prefix{
		netip.MustParsePrefix("fd00::7/64"), netip.MustParsePrefix("10.244.0.1/24"), netip.MustParsePrefix("10.0.0.7/24"),
	}}}
	require.Equal(t, "10.244.0.1", h.IP())
	h.Facts.State = &runtime.HostState{Address: "10.0.0.7"}
	require.Equal(t, "10.0.0.7", h.IP())
	require.True(t, h.HasAddress())
	h.Spec.Address = "192.0.2.1"
	require.Equal(t, "192.0.2.1", h.IP())
	require.False(t, h.HasAddress())
}
