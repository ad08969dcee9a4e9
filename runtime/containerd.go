// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/distribution/reference"
	"github.com/pelletier/go-toml/v2"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
)

// Containerd is one that the people of a host run there, and that Kubernetes is to run its containers by.
type Containerd struct {
	Socket  string // path
	Version string // "1.6.20~ds1"; empty where it does not answer
	// Config is what its process was told, with all that its files import; nil where no process tells.
	Config *ContainerdConfig
	// Mirrored are folders of ConfigPath that say where images of a registry come from, and are not sealer's.
	Mirrored []string
	Images   []string // names of what Kubernetes would find there
}

// ContainerdConfig is what Kubernetes has to know of containerd's configuration
// (github.com/containerd/containerd/blob/main/docs/cri/config.md).
type ContainerdConfig struct {
	Disabled      bool   // its CRI plugin is
	CertsDir      string // the first folder of config_path; empty where it has none
	Sandbox       string // the image of pods themselves
	CNIConf       string
	CNIBins       []string
	SystemdCgroup bool
}

// ContainerdUser is a Distribution that can run the containers of a host by the containerd that is there.
type ContainerdUser interface {
	// ContainerdSocket is the path of its socket; empty where h is none of those hosts.
	ContainerdSocket(c *Cluster, h *Host) string
}

// usesContainerd asks the distribution.
func usesContainerd(d Distribution, c *Cluster, h *Host) bool {
	user, ok := d.(ContainerdUser)
	return ok && user.ContainerdSocket(c, h) != ""
}

// socketMark begins an argument of facts.sh that is the path of a containerd's socket.
const socketMark = "containerd:"

// OwnRuntime are marks with the container runtime that a Clusterfile says hosts of a role have, so that facts tell of it.
func OwnRuntime(marks []Marks, f *clusterfile.File, role clusterfile.Role) []Marks {
	if socket := f.RuntimeSocket(role); socket != "" {
		return append(slices.Clone(marks), Marks{socket: socket})
	}
	return marks
}

// oldestContainerd is the first one that speaks the CRI of today's kubelets, v1 (github.com/containerd/containerd/releases/tag/v1.6.0).
const oldestContainerd = "1.6.0"

func (d *Containerd) version() (*semver.Version, bool) {
	text, _, _ := strings.Cut(strings.TrimPrefix(d.Version, "v"), "~")
	v, err := semver.NewVersion(text)
	return v, err == nil
}

// TellsCgroups says whether a kubelet can ask it for the cgroup driver, by RuntimeConfig of the CRI (kubernetes.io/docs/setup/production-environment/container-runtimes).
func (d *Containerd) TellsCgroups() bool {
	v, ok := d.version()
	return ok && v.Major() >= 2
}

// section names a table of containerd's configuration as its users write it.
func (d *Containerd) section(old, images, runtime string) string {
	if d.TellsCgroups() {
		if images != "" {
			return `[plugins."io.containerd.cri.v1.images"` + images + "]"
		}
		return `[plugins."io.containerd.cri.v1.runtime"` + runtime + "]"
	}
	return `[plugins."io.containerd.grpc.v1.cri"` + old + "]"
}

// ContainerdNeeds is what a distribution wants of a host's containerd.
type ContainerdNeeds struct {
	Socket  string
	Sandbox string // the image to recommend
	// PodConf is where the distribution puts the configuration of its pod network, and Plugins are where its plugins are, the one to
	// recommend first. PodConf is empty where it brings none.
	PodConf string
	Plugins []string
}

// ContainerdProblems are what keeps the containerd of a host from running the cluster's containers. sealer changes nothing of its
// configuration, and does not restart it: others may have containers there.
func ContainerdProblems(c *Cluster, h *Host, needs ContainerdNeeds) []Problem {
	socket := needs.Socket
	d := h.Facts.Containerd
	problem := func(fix, format string, args ...any) Problem {
		return Problem{h.String(), "containerd", fmt.Sprintf(format, args...), fix}
	}
	const restart = " of containerd's configuration on the host, and restart it"
	switch {
	case d == nil || d.Socket != socket:
		return []Problem{problem("install containerd on the host and start it; or leave container-runtime-endpoint out of the Clusterfile: k3s brings containerd",
			"containerd is to run its containers, and there is no socket %s", socket)}
	case d.Version == "":
		return []Problem{problem("start containerd on the host, with ctr beside it: ctr --address "+socket+" version",
			"containerd is to run its containers, and none answers at %s", socket)}
	}
	version, ok := d.version()
	if !ok || version.LessThan(semver.MustParse(oldestContainerd)) {
		return []Problem{problem("install a later containerd on the host", "its containerd is %s; %s is the oldest that will do", d.Version, oldestContainerd)}
	}
	if d.Config == nil {
		return []Problem{problem("run containerd on the host itself, with a configuration that containerd config dump can read",
			"its containerd at %s does not tell how it is configured", socket)}
	}
	if d.Config.Disabled {
		return []Problem{problem("take it out of disabled_plugins"+restart, "the CRI plugin of its containerd is disabled")}
	}
	var problems []Problem
	if minor, err := semver.NewVersion(c.KubeVersion()); err == nil && minor.Minor() >= 37 && version.Major() < 2 {
		problems = append(problems, problem("install containerd 2 on the host", "its containerd is %s; the kubelet of %s needs 2.0 or later", d.Version, c.KubeVersion()))
	}
	if d.Config.CertsDir == "" {
		problems = append(problems, problem(`set config_path = "/etc/containerd/certs.d" in `+d.section(".registry", ".registry", "")+restart,
			"its containerd has no config_path for registries, so it cannot be told of the cluster's"))
	}
	if image := fullName(d.Config.Sandbox); !slices.Contains(c.Images, image) && !slices.Contains(d.Images, image) {
		key := `sandbox_image = "` + needs.Sandbox + `" in `
		if d.TellsCgroups() {
			key = `sandbox = "` + needs.Sandbox + `" in `
		}
		problems = append(problems, problem("set "+key+d.section("", ".pinned_images", "")+restart+"; or list the image in the imageList and build again",
			"its containerd begins each pod with the image %q, which is neither there nor packed", image))
	}
	if needs.PodConf != "" && !(path.Clean(d.Config.CNIConf) == needs.PodConf && slices.ContainsFunc(d.Config.CNIBins, func(dir string) bool {
		return slices.Contains(needs.Plugins, path.Clean(dir)) || h.Facts.Has(dir+"/flannel")
	})) {
		bin := `bin_dir = "` + needs.Plugins[0] + `"`
		if !version.LessThan(semver.MustParse("2.1.0")) {
			bin = `bin_dirs = ["` + needs.Plugins[0] + `"]`
		}
		problems = append(problems, problem(`set conf_dir = "`+needs.PodConf+`" and `+bin+" in "+d.section(".cni", "", ".cni")+restart+"; or flannel-backend: none in the Clusterfile, for a pod network of your own",
			"its containerd looks for the pod network in %s and for plugins in %s; k3s has them elsewhere", d.Config.CNIConf, strings.Join(d.Config.CNIBins, ", ")))
	}
	return append(problems, mirrored(c, h)...)
}

// fullName is an image's name with its domain and its tag, as images are packed under; s where it is no name.
func fullName(s string) string {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return s
	}
	return named.String()
}

// mirrored are registries that the people of the host have told their containerd of, and that the cluster's has to stand for.
func mirrored(c *Cluster, h *Host) []Problem {
	stands := []string{"_default", c.Registry.Endpoint()}
	for _, name := range c.Images {
		domain, _, _ := strings.Cut(name, "/")
		stands = append(stands, domain)
	}
	if c.Registry.External {
		stands = append(append(stands, CommonDomains()...), c.Registry.Name())
	}
	var problems []Problem
	for i := range stands { // containerd looks for both forms (docs/hosts.md)
		if host, port, err := net.SplitHostPort(stands[i]); err == nil {
			stands = append(stands, host+"_"+port+"_")
		}
	}
	for _, dir := range h.Facts.Containerd.Mirrored {
		if slices.Contains(stands, path.Base(dir)) && path.Dir(dir) == h.Facts.Containerd.Config.CertsDir {
			problems = append(problems, Problem{h.String(), "containerd", "its containerd is told by " + dir + " where images of a registry come from, which the cluster has to say",
				"take the folder away while the host is part of the cluster"})
		}
	}
	return problems
}

// ContainerdProbe asks whether the host's containerd answers.
func ContainerdProbe(h *Host, socket string) Probe {
	return Probe{
		Name: "containerd", Fix: "see systemctl status containerd on the host",
		Ask: func(ctx context.Context) error {
			err := h.Runner.Run(ctx, host.Command{Argv: []string{"ctr", "--address", socket, "--timeout", "10s", "version"}})
			if err != nil {
				return fmt.Errorf("%s: its containerd does not answer at %s: %w", h, socket, err)
			}
			return nil
		},
	}
}

// withoutContainerd leaves out the marks of a containerd that is to be there.
func withoutContainerd(marks []Marks) []Marks {
	return slices.DeleteFunc(slices.Clone(marks), func(m Marks) bool { return m.Title == containerdMarks().Title })
}

// parse reads "ADDRESS BASE64", of a process of containerd: where it was told to listen (-: not told), and its whole configuration. One that
// listens elsewhere is not ours.
func (d *Containerd) parse(value string) error {
	address, encoded, _ := strings.Cut(value, " ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(text) == 0 {
		return nil // a process that has just gone
	}
	var file struct {
		Disabled []string                  `toml:"disabled_plugins"`
		GRPC     struct{ Address string }  `toml:"grpc"`
		Plugins  map[string]map[string]any `toml:"plugins"`
	}
	if err := toml.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("reading what containerd config dump says: %w", err)
	}
	old := file.Plugins["io.containerd.grpc.v1.cri"]
	images, runs := file.Plugins["io.containerd.cri.v1.images"], file.Plugins["io.containerd.cri.v1.runtime"]
	if images == nil {
		images, runs = old, old
	}
	if address == "-" {
		if address = file.GRPC.Address; address == "" { // since version 4 of the configuration
			address, _ = file.Plugins["io.containerd.server.v1.grpc"]["address"].(string)
		}
	}
	if path.Clean(address) != d.Socket {
		return nil
	}
	config := &ContainerdConfig{
		Disabled: slices.ContainsFunc(file.Disabled, func(name string) bool { return name == "cri" || strings.Contains(name, ".cri") }),
		Sandbox:  textAt(images, "sandbox_image"), CNIConf: textAt(runs, "cni", "conf_dir"),
	}
	if sandbox := textAt(images, "pinned_images", "sandbox"); sandbox != "" {
		config.Sandbox = sandbox
	}
	config.CertsDir, _, _ = strings.Cut(textAt(images, "registry", "config_path"), ":")
	if bin := textAt(runs, "cni", "bin_dir"); bin != "" {
		config.CNIBins = []string{bin}
	}
	if list, ok := at(runs, "cni", "bin_dirs").([]any); ok {
		for _, bin := range list {
			config.CNIBins = append(config.CNIBins, fmt.Sprint(bin))
		}
	}
	name := textAt(runs, "containerd", "default_runtime_name")
	config.SystemdCgroup, _ = at(runs, "containerd", "runtimes", name, "options", "SystemdCgroup").(bool)
	d.Config = config
	return nil
}

// at is what stands at a path of tables; nil where nothing does.
func at(table map[string]any, keys ...string) any {
	for _, key := range keys[:len(keys)-1] {
		table, _ = table[key].(map[string]any)
	}
	return table[keys[len(keys)-1]]
}

func textAt(table map[string]any, keys ...string) string {
	s, _ := at(table, keys...).(string)
	return s
}
