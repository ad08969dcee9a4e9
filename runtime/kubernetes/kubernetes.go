// SPDX-License-Identifier: Apache-2.0

// Package kubernetes installs Kubernetes with kubeadm, from the binaries,
// scripts and units that the base ClusterImage of rootfs-templates/kubernetes holds.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Name is what Metadata.ClusterRuntime calls this distribution.
const Name = "kubernetes"

// Where things are on a host.
const (
	adminConf  = "/etc/kubernetes/admin.conf"
	configFile = "/etc/kubernetes/kubeadm.yaml"
	joinFile   = "/etc/kubernetes/kubeadm-join.yaml"
	certsDir   = "/etc/containerd/certs.d"
	caFile     = certsDir + "/sealer-ca.crt"
	keptDir    = "/var/lib/sealer/kubernetes" // lib.sh's STATE
	kubectlBin = "/usr/local/bin/kubectl"
	kubeadmBin = "/usr/local/bin/kubeadm"
)

// Distribution is kubeadm's Kubernetes. The zero value is ready.
type Distribution struct{}

// New is kubeadm's Kubernetes.
func New() Distribution { return Distribution{} }

var (
	_ runtime.Distribution = Distribution{}
	_ runtime.Balanced     = Distribution{}
	_ runtime.Addressed    = Distribution{}
	_ runtime.Repointer    = Distribution{}
	_ runtime.Restarter    = Distribution{}
)

// Name is "kubernetes".
func (Distribution) Name() string { return Name }

// RestartsLate is true: the control plane is static pods of the kubelet.
func (Distribution) RestartsLate() bool { return true }

// Marks are what kubeadm and its kubelet leave.
func (Distribution) Marks() runtime.Marks {
	return runtime.Marks{
		Name: Name, Title: "Kubernetes by kubeadm",
		Started: []string{
			"/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf", "/etc/kubernetes/admin.conf",
			"/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/pki/ca.crt", "/var/lib/etcd/member",
		},
		Programs: []string{"/usr/bin/kubeadm", kubeadmBin, "/usr/bin/kubelet", "/usr/local/bin/kubelet"},
		Units:    []string{"kubelet.service"},
	}
}

// Kubectl asks as cluster-admin.
func (Distribution) Kubectl() runtime.Kubectl {
	// Its cache would stand in root's .kube, which is there only once root has a kubeconfig.
	return runtime.Kubectl{Argv: []string{kubectlBin, "--cache-dir", keptDir + "/kubectl-cache"}, Kubeconfig: adminConf}
}

// Install puts containerd and Kubernetes' programs on a host, and lets containerd ask the cluster's registry only.
func (Distribution) Install(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "installing containerd",
			Key:  c.RootfsKey(h),
			Done: active(h, "containerd"),
			Do:   script(c, h, "containerd.sh"),
		},
		pointing(c, h),
		{
			Name: "preparing the host for Kubernetes",
			Key:  c.RootfsKey(h),
			Done: func(ctx context.Context) (bool, error) {
				return succeeds(ctx, h.Runner, "systemctl", "is-enabled", "--quiet", "kubelet")
			},
			Do: script(c, h, "init-kube.sh"),
		},
	}
}

func pointing(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "pointing containerd at the cluster's registry",
		Done: func(ctx context.Context) (bool, error) { return registryPlaced(ctx, c, h) },
		Do:   func(ctx context.Context, _ io.Writer) error { return placeRegistry(ctx, c, h) },
	}
}

// Repoint lets containerd ask the registries that there are now.
func (Distribution) Repoint(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{pointing(c, h)}
}

// RegistryCAFile is the CA that hosts.toml names.
func (Distribution) RegistryCAFile() string { return caFile }

// BalancedPort is that of the API server, unless the Clusterfile names an endpoint of its own.
func (Distribution) BalancedPort(c *runtime.Cluster) int {
	if c.File.Endpoint.Own() {
		return 0
	}
	if e, ok := c.File.Kubeadm["ClusterConfiguration"]["controlPlaneEndpoint"].(string); ok && e != "" {
		return 0
	}
	return port(c)
}

// script runs a script of the rootfs with the host's environment.
func script(c *runtime.Cluster, h *runtime.Host, name string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, log io.Writer) error {
		n := networks(c)
		env := append(c.EnvList(h), "HostIP="+h.IP(), "PodCIDR="+n.Pods, "ServiceCIDR="+n.Services)
		if v, ok := c.File.Kubeadm["KubeletConfiguration"]["failSwapOn"].(bool); ok && !v {
			env = append(env, "KeepSwap=true")
		}
		return h.Runner.Run(ctx, host.Command{
			Argv: []string{path.Join(h.Rootfs, "scripts", name)}, Dir: h.Rootfs, Env: env, Stdout: log, Stderr: log, Mutates: true,
		})
	}
}

func active(h *runtime.Host, unit string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		return succeeds(ctx, h.Runner, "systemctl", "is-active", "--quiet", unit)
	}
}

// succeeds asks a question whose answer is an exit status.
func succeeds(ctx context.Context, r host.Runner, argv ...string) (bool, error) {
	return ok(r.Run(ctx, host.Command{Argv: argv}))
}

func ok(err error) (bool, error) {
	if _, answered := errors.AsType[*host.ExitError](err); answered {
		return false, nil
	}
	return err == nil, err
}

func hostsTOML(dir string) string { return path.Join(certsDir, dir, "hosts.toml") }

func registryPlaced(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	files, err := runtime.MirrorFiles(c.RegistryFor(h), caFile)
	if err != nil {
		return false, err
	}
	want := map[string][]byte{}
	if len(c.Registry.CA) > 0 {
		want[caFile] = c.Registry.CA
	}
	for _, f := range files {
		want[hostsTOML(f.Dir)] = f.Data
	}
	for file, data := range want {
		if same, err := runtime.SameFile(ctx, h.Runner, file, data); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// placeRegistry needs no restart: containerd reads these files at every pull.
func placeRegistry(ctx context.Context, c *runtime.Cluster, h *runtime.Host) error {
	files, err := runtime.MirrorFiles(c.RegistryFor(h), caFile)
	if err != nil {
		return err
	}
	if err := runtime.DropMirrors(ctx, h.Runner, certsDir, files); err != nil {
		return err
	}
	if len(c.Registry.CA) > 0 {
		if err := host.WriteFile(ctx, h.Runner, caFile, c.Registry.CA, 0o644); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := host.WriteFile(ctx, h.Runner, hostsTOML(f.Dir), f.Data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Minors are those that it is known to work with.
func (Distribution) Minors() runtime.Minors { return runtime.Minors{Oldest: 31, Newest: 36} }

// Images are those that kubeadm pulls.
func (Distribution) Images(c *runtime.Cluster) []string {
	images := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "pause"}
	if !externalEtcd(c) {
		images = append(images, "etcd")
	}
	return images
}

func externalEtcd(c *runtime.Cluster) bool {
	etcd, _ := c.File.Kubeadm["ClusterConfiguration"]["etcd"].(object)
	return etcd["external"] != nil
}

// Check finds what kubeadm would stop at, on all hosts at once.
func (d Distribution) Check(c *runtime.Cluster) []runtime.Problem {
	problems := append(d.checkImage(c), adoptable(c)...)
	problems = append(problems, runtime.NetworkProblems(c, networks(c), nodeMask6(c))...)
	problems = append(problems, checkEndpoint(c)...)
	minor, _ := minorOf(c.KubeVersion())
	for _, h := range c.Hosts {
		add := func(check, fix, format string, args ...any) {
			problems = append(problems, runtime.Problem{Host: h.String(), Check: check, What: fmt.Sprintf(format, args...), Fix: fix})
		}
		problems = append(problems, runtime.SystemdProblems(h)...)
		problems = append(problems, runtime.DNSProblems(h)...)
		controlPlane := slices.Contains(c.ControlPlanes(), h)
		ports := []int{10250}
		if controlPlane {
			ports = append(ports, port(c), 2379, 2380, 10257, 10259)
			if h.Facts.CPUs < 2 && !ignored(c, h, "NumCPU") {
				add("cpu", "use a host with two CPUs or more as control plane", "it has %d CPU, a control plane needs 2", h.Facts.CPUs)
			}
			if h.Facts.Memory < 1700<<20 && !ignored(c, h, "Mem") {
				add("memory", "use a host with 1700 MiB of memory or more as control plane", "it has %d MiB of memory, a control plane needs 1700", h.Facts.Memory>>20)
			}
		}
		if !controlPlane && d.BalancedPort(c) != 0 && !c.File.Endpoint.IPVS {
			ports = append(ports, d.BalancedPort(c))
		}
		if !ignored(c, h, "SELinux") {
			problems = append(problems, runtime.SELinuxProblems(h, "SELinux among the nodeRegistration.ignorePreflightErrors of the Clusterfile's InitConfiguration and JoinConfiguration")...)
		}
		problems = append(problems, runtime.PortProblems(h, ports...)...)
		if h.Facts.Cgroup == 1 && minor >= 35 && !acceptsCgroup1(c) {
			add("cgroup", "boot the host with cgroup v2, or accept v1 with a KubeletConfiguration of failCgroupV1: false in the Clusterfile", "it has cgroup v1, which the kubelet of %s refuses", c.KubeVersion())
		}
	}
	return problems
}

func (d Distribution) checkImage(c *runtime.Cluster) []runtime.Problem {
	const fix = "list it in the image's imageList, as kubeadm config images list prints it, and build again"
	var problems []runtime.Problem
	switch {
	case c.KubeVersion() == "":
		problems = append(problems, runtime.Problem{Check: "version", What: "the image does not say which version of Kubernetes it holds", Fix: fix})
	case !d.Minors().Include(c.KubeVersion()):
		problems = append(problems, runtime.Problem{
			Check: "version", What: fmt.Sprintf("the image holds Kubernetes %s; this sealer installs %s", c.KubeVersion(), d.Minors()),
			Fix: "use an image with one of these versions",
		})
	}
	if v, ok := c.File.Kubeadm["ClusterConfiguration"]["kubernetesVersion"].(string); ok && v != c.KubeVersion() {
		problems = append(problems, runtime.Problem{
			Check: "version", What: fmt.Sprintf("the Clusterfile asks for Kubernetes %s, the image holds %s", v, c.KubeVersion()),
			Fix: "leave kubernetesVersion out of the ClusterConfiguration",
		})
	}
	for _, other := range []struct {
		kind  string
		there bool
	}{{"ClusterConfig of k0s", c.File.K0s != nil}, {"K3s", c.File.K3s != nil}} {
		if other.there {
			problems = append(problems, runtime.Problem{
				Check: "settings", What: "the Clusterfile has a document " + other.kind + ", the image holds Kubernetes by kubeadm",
				Fix: "leave the document out: kubeadm has documents of its own",
			})
		}
	}
	for _, name := range (Distribution{}).Images(c) {
		if !slices.ContainsFunc(c.Images, func(image string) bool { return runtime.Repository(image) == name }) {
			problems = append(problems, runtime.Problem{Check: "images", What: "the image does not pack " + name, Fix: fix})
		}
	}
	return problems
}

// ignored tells whether the Clusterfile has kubeadm pass over one of its checks on this host.
func ignored(c *runtime.Cluster, h *runtime.Host, check string) bool {
	kind := "JoinConfiguration"
	if h == c.First() {
		kind = "InitConfiguration"
	}
	node, _ := c.File.Kubeadm[kind]["nodeRegistration"].(object)
	list, _ := node["ignorePreflightErrors"].([]any)
	return slices.Contains(list, any(check)) || slices.Contains(list, any("all"))
}

func acceptsCgroup1(c *runtime.Cluster) bool {
	v, ok := c.File.Kubeadm["KubeletConfiguration"]["failCgroupV1"].(bool)
	return ok && !v
}

// minorOf reads the 36 of v1.36.3.
func minorOf(version string) (int, error) {
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d.", &major, &minor); err != nil || major != 1 {
		return 0, errors.New(strconv.Quote(version) + " is not a version such as v1.36.3")
	}
	return minor, nil
}
