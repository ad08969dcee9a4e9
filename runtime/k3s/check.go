// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Minors are those that it is known to work with.
func (Distribution) Minors() runtime.Minors { return runtime.Minors{Oldest: 31, Newest: 37} }

// sinceJSON is the versions of k3s in which keys appeared, one for each minor that got it; a key that is in all
// supported minors is not there.
//
//go:embed since.json
var sinceJSON []byte

// helmImage runs Helm for charts that k3s installs.
const helmImage = "klipper-helm"

// packaged are the components that k3s installs itself, with the images of each by the end of their names.
func packaged() map[string][]string {
	return map[string][]string{
		"coredns":        {"mirrored-coredns-coredns"},
		"servicelb":      {"klipper-lb"},
		"traefik":        {"mirrored-library-traefik", helmImage},
		"local-storage":  {"local-path-provisioner", "mirrored-library-busybox"},
		"metrics-server": {"mirrored-metrics-server"},
	}
}

// Images are those of the components that the Clusterfile leaves enabled, and the sandbox image.
func (Distribution) Images(c *runtime.Cluster) []string {
	s := serverAsked(c)
	list := []string{"mirrored-pause"}
	if image, ok := s["pause-image"].(string); ok {
		list[0] = runtime.Repository(image)
	}
	disabled := texts(s["disable"])
	for _, component := range slices.Sorted(maps.Keys(packaged())) {
		off := slices.Contains(disabled, component) || component == "traefik" && s["disable-helm-controller"] == true
		if !off {
			list = append(list, packaged()[component]...)
		}
	}
	if image, ok := s["helm-job-image"].(string); ok { // what installs charts in the place of k3s' own
		for i, name := range list {
			if name == helmImage {
				list[i] = runtime.Repository(image)
			}
		}
	}
	return list
}

func serverAsked(c *runtime.Cluster) settings {
	if c.File.K3s == nil {
		return nil
	}
	return c.File.K3s.Server
}

// Check finds what k3s would stop at, on all hosts at once.
func (d Distribution) Check(c *runtime.Cluster) []runtime.Problem {
	problems := d.checkImage(c)
	problems = append(problems, checkClusterfile(c)...)
	problems = append(problems, runtime.NetworkProblems(c, networks(c), nodeMask6(c))...)
	for _, h := range c.Hosts {
		problems = append(problems, checkHost(c, h)...)
	}
	return problems
}

func (d Distribution) checkImage(c *runtime.Cluster) []runtime.Problem {
	var problems []runtime.Problem
	version, err := semver.NewVersion(c.Metadata.ClusterRuntimeVersion)
	switch {
	case c.Metadata.ClusterRuntimeVersion == "":
		problems = append(problems, runtime.Problem{
			Check: "version", What: "the image does not say which version of k3s it holds",
			Fix: "build it with the version's label in its Kubefile, as the k3s template has it",
		})
	case err != nil || !d.Minors().Include(c.Metadata.ClusterRuntimeVersion):
		problems = append(problems, runtime.Problem{
			Check: "version", What: fmt.Sprintf("the image holds k3s %s; this sealer installs %s", c.Metadata.ClusterRuntimeVersion, d.Minors()),
			Fix: "use an image with one of these versions",
		})
	case version.Minor() == 32 && version.Patch() == 2:
		problems = append(problems, runtime.Problem{
			Check: "version", What: fmt.Sprintf("the image holds k3s %s, which ignores a registry for images of all names", c.Metadata.ClusterRuntimeVersion),
			Fix: "use an image with k3s 1.32.3 or later",
		})
	default:
		problems = append(problems, checkKeys(c, version)...)
	}
	for _, name := range d.Images(c) {
		if !slices.ContainsFunc(c.Images, func(image string) bool { return runtime.Repository(image) == name }) {
			problems = append(problems, runtime.Problem{
				Check: "images", What: "the image does not pack " + name,
				Fix: "list it in the image's imageList, as k3s-images.txt of the release has it, and build again; or disable what needs it in the K3s document of the Clusterfile",
			})
		}
	}
	return problems
}

// ownDatastore tells whether datastore-endpoint names a datastore within k3s itself: SQLite, or NATS that k3s runs.
// See https://docs.k3s.io/datastore#datastore-endpoint-format-and-functionality and https://github.com/k3s-io/kine/blob/master/examples/nats.md
func ownDatastore(c *runtime.Cluster) (scheme string, own bool) {
	endpoint, _ := c.File.K3s.Server["datastore-endpoint"].(host.Secret)
	scheme, rest, _ := strings.Cut(endpoint.Reveal(), ":")
	return scheme, scheme == "sqlite" || scheme == "nats" && !strings.Contains(rest, "noEmbed")
}

// checkKeys finds keys that the image's k3s does not know yet.
func checkKeys(c *runtime.Cluster, version *semver.Version) []runtime.Problem {
	if c.File.K3s == nil {
		return nil
	}
	var since map[string][]string
	if err := json.Unmarshal(sinceJSON, &since); err != nil {
		return []runtime.Problem{{Check: "version", What: "reading the versions of k3s' keys: " + err.Error()}}
	}
	var problems []runtime.Problem
	for _, of := range []struct {
		name string
		keys settings
	}{{"server", c.File.K3s.Server}, {"agent", c.File.K3s.Agent}} {
		for _, key := range slices.Sorted(maps.Keys(of.keys)) {
			if versions, ok := since[key]; ok && !knows(version, versions) {
				problems = append(problems, runtime.Problem{
					Check: "version", What: fmt.Sprintf("the K3s document sets %s.%s, which k3s has since %s; the image holds %s", of.name, key, strings.Join(versions, ", "), c.Metadata.ClusterRuntimeVersion),
					Fix: "leave the key out, or use a newer image",
				})
			}
		}
	}
	return problems
}

// knows: the version is that of its own minor or later, or of a minor after all of them.
func knows(version *semver.Version, since []string) bool {
	last := uint64(0)
	for _, text := range since {
		v, err := semver.NewVersion(text)
		if err != nil {
			return false
		}
		if v.Minor() == version.Minor() {
			return version.Patch() >= v.Patch()
		}
		last = max(last, v.Minor())
	}
	return version.Minor() > last
}

// checkClusterfile finds what cannot work, before anything is touched.
func checkClusterfile(c *runtime.Cluster) []runtime.Problem {
	var problems []runtime.Problem
	for _, kind := range slices.Sorted(maps.Keys(c.File.Kubeadm)) {
		problems = append(problems, runtime.Problem{
			Check: "clusterfile", What: "the Clusterfile has a " + kind + ", which k3s does not read",
			Fix: "use the K3s document: its kubelet-arg, kube-apiserver-arg and the like",
		})
	}
	if c.File.K3s == nil {
		return problems
	}
	if init, said := c.File.K3s.Server["cluster-init"].(bool); said && !init && len(c.ControlPlanes()) > 1 && c.File.K3s.Server["datastore-endpoint"] == nil {
		problems = append(problems, runtime.Problem{
			Check: "datastore", What: fmt.Sprintf("cluster-init is false, and %d control planes cannot share SQLite", len(c.ControlPlanes())),
			Fix: "leave cluster-init out, or name an external datastore with datastore-endpoint",
		})
	}
	if scheme, own := ownDatastore(c); own && len(c.ControlPlanes()) > 1 {
		problems = append(problems, runtime.Problem{
			Check: "datastore", What: fmt.Sprintf("%d control planes cannot share the datastore %s://, which each has for itself", len(c.ControlPlanes()), scheme),
			Fix: "leave datastore-endpoint out for etcd, or name a database that all of them reach",
		})
	}
	if slices.ContainsFunc(c.Hosts, func(h *runtime.Host) bool { return onDocker(c, h) }) {
		if p, ok := runtime.PinnedProblem(c.Images, c.Registry); !ok {
			problems = append(problems, p)
		}
	}
	for _, of := range []struct {
		name  string
		keys  settings
		hosts []*runtime.Host
	}{{"server", c.File.K3s.Server, c.ControlPlanes()}, {"agent", c.File.K3s.Agent, c.Workers()}} {
		for _, key := range []string{"bind-address", "node-external-dns", "node-external-ip", "node-internal-dns"} {
			if of.keys[key] != nil && len(of.hosts) > 1 {
				problems = append(problems, runtime.Problem{
					Check: "clusterfile", What: fmt.Sprintf("%s.%s of the K3s document is one host's, and there are %d such hosts", of.name, key, len(of.hosts)),
					Fix: "leave it out",
				})
			}
		}
	}
	return problems
}

func checkHost(c *runtime.Cluster, h *runtime.Host) []runtime.Problem {
	var problems []runtime.Problem
	add := func(check, fix, format string, args ...any) {
		if c.File.K3s == nil || !slices.Contains(c.File.K3s.IgnoreChecks, check) {
			problems = append(problems, runtime.Problem{Host: h.String(), Check: check, What: fmt.Sprintf(format, args...), Fix: fix})
		}
	}
	// docs.k3s.io/installation/requirements; a machine sold with 2 GB has a little less.
	cpus, memory := 1, int64(480)
	if isServer(h) {
		cpus, memory = 2, 1700
	}
	const accept = ", or accept it with ignoreChecks in the K3s document of the Clusterfile"
	if h.Facts.CPUs < cpus {
		add("cpu", fmt.Sprintf("use a host with %d CPUs or more as %s%s", cpus, h.Spec.Role, accept), "it has %d CPU, k3s %s needs %d", h.Facts.CPUs, command(h), cpus)
	}
	if h.Facts.Memory < memory<<20 {
		add("memory", fmt.Sprintf("use a host with %d MiB of memory or more as %s%s", memory, h.Spec.Role, accept), "it has %d MiB of memory, k3s %s needs %d", h.Facts.Memory>>20, command(h), memory)
	}
	if minor, err := semver.NewVersion(c.KubeVersion()); err == nil && h.Facts.Cgroup == 1 && minor.Minor() >= 35 && !acceptsCgroup1(c, h) {
		add("cgroup", "boot the host with cgroup v2, or accept v1 with kubelet-arg: fail-cgroupv1=false in the K3s document of the Clusterfile", "it has cgroup v1, which the kubelet of %s refuses", c.KubeVersion())
	}
	for _, p := range runtime.SELinuxProblems(h, "selinux: true of k3s, or ignoreChecks: [selinux], in the K3s document of the Clusterfile") {
		if asked(c, h)["selinux"] != true {
			add(p.Check, p.Fix, "%s", p.What)
		}
	}
	if onDocker(c, h) {
		problems = append(problems, dockerProblems(c, h)...)
	}
	if onContainerd(c, h) != "" {
		problems = append(problems, containerdProblems(c, h)...)
	}
	problems = append(problems, runtime.InitProblems(h)...)
	return append(problems, runtime.PortProblems(h, ports(c, h)...)...)
}

func acceptsCgroup1(c *runtime.Cluster, h *runtime.Host) bool {
	return slices.Contains(texts(asked(c, h)["kubelet-arg"]), "fail-cgroupv1=false")
}

// ports that k3s listens on (docs.k3s.io/installation/requirements#networking), besides those of services.
func ports(c *runtime.Cluster, h *runtime.Host) []int {
	local := 6444
	s := asked(c, h)
	if p, ok := s["lb-server-port"].(int64); ok {
		local = int(p)
	}
	list := []int{local, 10010, 10250}
	if isServer(h) {
		list = append(list, port(c), 10257, 10259)
		if s["datastore-endpoint"] == nil && (len(c.ControlPlanes()) > 1 || s["cluster-init"] == true) {
			list = append(list, 2379, 2380)
		}
	}
	return list
}
