// SPDX-License-Identifier: Apache-2.0

// Package recipe says which programs and images a cluster is made of. It is data: nothing here builds anything.
package recipe

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sealerio/sealer/test/components/internal/compile"
)

// The modules whose versions are stamped into programs.
const (
	ModuleKubernetes = "k8s.io/kubernetes"
	ModuleEtcd       = "go.etcd.io/etcd/server/v3"
	ModuleCoreDNS    = "github.com/coredns/coredns"
	ModuleContainerd = "github.com/containerd/containerd/v2"
	ModuleCNI        = "github.com/containernetworking/plugins"
	ModuleCRITools   = "sigs.k8s.io/cri-tools"
)

// Release is a version of Kubernetes, with what goes with it.
type Release string

// The releases: the one of go.mod, and the minor version before it, of previous.mod.
const (
	Current  Release = "current"
	Previous Release = "previous"
)

// Releases are all of them.
func Releases() []Release { return []Release{Current, Previous} }

// ModFile is the file in the programs' folder that has the release's versions.
func (r Release) ModFile() string {
	if r == Previous {
		return "previous.mod"
	}
	return "go.mod"
}

// Modules lists those whose versions are the release's own.
func Modules() []string {
	return []string{ModuleKubernetes, ModuleEtcd, ModuleCoreDNS, ModuleContainerd}
}

// CommonModules lists those that all releases have in the version of go.mod.
func CommonModules() []string { return []string{ModuleCNI, ModuleCRITools} }

// ProgramsFolder is the folder of the module that all programs but runc are built in.
func ProgramsFolder(source string) string { return filepath.Join(source, "programs") }

// DoublesFolder holds the doubles of k3s and k0s, which are no part of a cluster: they are built, and kept, apart.
func DoublesFolder(source string) string { return filepath.Join(ProgramsFolder(source), "doubles") }

// Doubles is the one program that stands in for k3s and k0s, and the program of their images.
func Doubles(source, arch string, versions map[string]string) compile.Set {
	return compile.Set{
		Module:   ProgramsFolder(source),
		Arch:     arch,
		Packages: []string{"./doubles", "./pause"},
		Stamps:   kubernetesStamps(versions[ModuleKubernetes]),
	}
}

// Programs is what the release brings of its own; they need no C compiler, and one run of the go command builds them all.
func Programs(source, arch string, release Release, versions map[string]string) compile.Set {
	stamps := kubernetesStamps(versions[ModuleKubernetes])
	stamps[ModuleContainerd+"/version.Version"] = versions[ModuleContainerd]
	return compile.Set{
		Module:  ProgramsFolder(source),
		ModFile: release.ModFile(),
		Arch:    arch,
		Packages: []string{
			"./kube", "./etcd", "./coredns",
			ModuleContainerd + "/cmd/containerd",
			ModuleContainerd + "/cmd/containerd-shim-runc-v2",
			ModuleContainerd + "/cmd/ctr",
			"go.etcd.io/etcd/etcdctl/v3",
			"go.etcd.io/etcd/etcdutl/v3",
		},
		Tags:   tags(),
		Stamps: stamps,
	}
}

// Common is what all releases have alike: the tests' own programs, CNI's and crictl.
func Common(source, arch string, versions map[string]string) compile.Set {
	return compile.Set{
		Module: ProgramsFolder(source),
		Arch:   arch,
		Packages: []string{
			"./podnet", "./pause", "./hello",
			ModuleCNI + "/plugins/ipam/host-local",
			ModuleCNI + "/plugins/main/bridge",
			ModuleCNI + "/plugins/main/loopback",
			ModuleCNI + "/plugins/main/ptp",
			ModuleCNI + "/plugins/meta/portmap",
			ModuleCRITools + "/cmd/crictl",
		},
		Tags: tags(),
		Stamps: map[string]string{
			ModuleCNI + "/pkg/utils/buildversion.BuildVersion": versions[ModuleCNI],
			ModuleCRITools + "/pkg/version.Version":            versions[ModuleCRITools],
		},
	}
}

// kubernetesStamps tell programs made of Kubernetes' packages which version they are.
func kubernetesStamps(kubernetes string) map[string]string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	stamps := map[string]string{}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		stamps[pkg+".gitVersion"] = kubernetes
		stamps[pkg+".gitMajor"] = major
		stamps[pkg+".gitMinor"] = minor
		stamps[pkg+".gitCommit"] = "unknown"
		stamps[pkg+".gitTreeState"] = "archive" // Kubernetes' word for sources without git
		stamps[pkg+".buildDate"] = "1970-01-01T00:00:00Z"
	}
	return stamps
}

// tags are containerd's: snapshotters and tracing that no test uses, and the tag its own Makefile sets.
func tags() []string {
	return []string{"no_btrfs", "no_devmapper", "no_erofs", "no_tracing", "no_zfs", "urfave_cli_no_docs"}
}

// Runc is built against Debian's static libseccomp, so that it runs on any host.
func Runc(source, arch string) compile.Set {
	return compile.Set{
		Module:   filepath.Join(ProgramsFolder(source), "runc"),
		Arch:     arch,
		Packages: []string{"github.com/opencontainers/runc"},
		Tags:     []string{"netgo", "osusergo", "seccomp"},
		C:        true,
	}
}

// Hello is the workload alone, for another architecture.
func Hello(source, arch string) compile.Set {
	return compile.Set{Module: ProgramsFolder(source), Arch: arch, Packages: []string{"./hello"}}
}

// OtherArch is the second platform of the image that has two.
func OtherArch(arch string) string {
	if arch == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// KubeNames are the programs that the file kube holds.
func KubeNames() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubeadm", "kubectl", "kubelet"}
}

// HostNames are the names of kube that go onto hosts; the others run in containers.
func HostNames() []string { return []string{"kubeadm", "kubectl", "kubelet"} }

// HostPrograms are the other programs for a host's PATH.
func HostPrograms() []string {
	return []string{"containerd", "containerd-shim-runc-v2", "crictl", "ctr", "runc"}
}

// Plugins are the CNI plugins.
func Plugins() []string { return []string{"bridge", "host-local", "loopback", "portmap", "ptp"} }

// The images of the tests themselves, beside those that kubeadm lists.
const (
	ImagePodnet    = "ghcr.io/sealer-test/podnet:v1"
	ImageHello     = "docker.io/sealer-test/hello:v1"
	ImageHelloNext = "docker.io/sealer-test/hello:v2"
	ImageHelloQuay = "quay.io/sealer-test/hello:v1" // the same repository and tag in another domain, with another content
	ImageMulti     = "docker.io/sealer-test/multi:v1"
	ImageCarrier   = "ghcr.io/sealer-test/keepalived:v1" // Debian's keepalived, for clusters with a virtual address
)

// ProxyPackages are the Debian packages with the programs that kube-proxy calls.
func ProxyPackages() []string { return []string{"conntrack", "iptables", "nftables"} }

// CarrierPackage is the Debian package of ImageCarrier.
const CarrierPackage = "keepalived"

// CheckTag compares an image's tag, as kubeadm asks for it, with the version of the module that the image is made
// from: "3.6.8-0" and "v3.6.8" agree.
func CheckTag(reference, tag, version string) error {
	plain, _, _ := strings.Cut(strings.TrimPrefix(tag, "v"), "-")
	if plain != strings.TrimPrefix(version, "v") {
		return fmt.Errorf("kubeadm asks for %s, but go.mod has version %s", reference, version)
	}
	return nil
}
