// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.DockerUser = Distribution{}

// UsesDocker tells whether the Clusterfile says docker: true for hosts like h.
func (Distribution) UsesDocker(c *runtime.Cluster, h *runtime.Host) bool { return onDocker(c, h) }

func onDocker(c *runtime.Cluster, h *runtime.Host) bool { return asked(c, h)["docker"] == true }

const (
	cgroupDriver = "cgroup-driver"
	// imageGC is the kubelet's share of the disk from which on it deletes images; 100 is never
	// (kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1).
	imageGC = "image-gc-high-threshold"
)

// dockerArgs are the Clusterfile's arguments of the kubelet, with what goes with docker: its cgroup driver, which k3s leaves to others
// (github.com/k3s-io/k3s/issues/5738), and no deletion of images, since none can be pulled again under its own name.
func dockerArgs(c *runtime.Cluster, h *runtime.Host) []string {
	args := texts(asked(c, h)["kubelet-arg"])
	if d := h.Facts.Docker; d != nil && d.CgroupDriver != "" && kubeletArg(args, cgroupDriver) == "" {
		args = append(args, cgroupDriver+"="+d.CgroupDriver)
	}
	if kubeletArg(args, imageGC) == "" {
		args = append(args, imageGC+"=100")
	}
	return args
}

// kubeletArg is the value of an argument; empty where it is not among them.
func kubeletArg(args []string, name string) string {
	for _, arg := range slices.Backward(args) {
		if v, ok := strings.CutPrefix(arg, name+"="); ok {
			return v
		}
	}
	return ""
}

func dockerProblems(c *runtime.Cluster, h *runtime.Host) []runtime.Problem {
	problems := runtime.DockerProblems(h)
	if len(problems) > 0 {
		return problems
	}
	if said := kubeletArg(texts(asked(c, h)["kubelet-arg"]), cgroupDriver); said != "" && said != h.Facts.Docker.CgroupDriver {
		problems = append(problems, runtime.Problem{
			Host: h.String(), Check: "docker", What: fmt.Sprintf("its docker has the cgroup driver %s, and the kubelet is told %s", h.Facts.Docker.CgroupDriver, said),
			Fix: "leave cgroup-driver out of kubelet-arg in the K3s document of the Clusterfile: sealer takes docker's",
		})
	}
	return problems
}

// kubeletConfig is where a kubelet looks for logins (kubernetes.io/docs/concepts/containers/images).
const kubeletConfig = "/var/lib/kubelet/config.json"

// kubeletLogin lets pods have images by the registry's own name: the kubelet hands the login to docker with every pull.
func kubeletLogin(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "giving the kubelet the registry's login",
		Done: func(ctx context.Context) (bool, error) {
			data, err := loginFile(c.Registry)
			if err != nil || data == nil {
				return err == nil, err
			}
			return runtime.SameFile(ctx, h.Runner, kubeletConfig, data)
		},
		Do: func(ctx context.Context, _ io.Writer) error {
			data, err := loginFile(c.Registry)
			if err != nil {
				return err
			}
			return host.WriteFile(ctx, h.Runner, kubeletConfig, data, 0o600)
		},
	}
}

// loginFile is docker's config.json; nil where the registry wants no login.
func loginFile(r runtime.Registry) ([]byte, error) {
	if r.Username == "" {
		return nil, nil
	}
	type auth struct {
		Auth string `json:"auth"`
	}
	file := map[string]map[string]auth{"auths": {
		r.Name(): {base64.StdEncoding.EncodeToString([]byte(r.Username + ":" + r.Password.Reveal()))},
	}}
	data, err := json.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("writing the registry's login: %w", err)
	}
	return append(data, '\n'), nil
}
