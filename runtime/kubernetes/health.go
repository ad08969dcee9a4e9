// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"net"
	"strconv"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Health asks for containerd and the kubelet, and on a control plane for what runs there.
func (d Distribution) Health(c *runtime.Cluster, h *runtime.Host) []runtime.Probe {
	unit := func(name string) runtime.Probe {
		return runtime.Probe{
			Name: name,
			Fix:  "look at journalctl -u " + name + " on the host",
			Ask: func(ctx context.Context) error {
				return h.Runner.Run(ctx, host.Command{Argv: []string{"systemctl", "is-active", name}})
			},
		}
	}
	probes := []runtime.Probe{unit("containerd"), unit("kubelet")}
	if h.Spec.Role != clusterfile.ControlPlane {
		return probes
	}
	// The host's own API server, whatever its name stands for.
	own := "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(port(c)))
	get := func(name, path, pod string) runtime.Probe {
		return runtime.Probe{
			Name: name,
			Fix:  "look at crictl ps -a, and crictl logs of " + pod + ", on the host",
			Ask: func(ctx context.Context) error {
				return h.Runner.Run(ctx, d.Kubectl().Command("--server", own, "get", "--raw", path, "--request-timeout", "10s"))
			},
		}
	}
	probes = append(probes, get("API server", "/readyz", "kube-apiserver"))
	if !externalEtcd(c) {
		// The API server asks the etcd of its host alone, for an answer that a majority agrees to.
		probes = append(probes, get(runtime.ProbeDatastore, "/readyz/etcd", "etcd"))
	}
	return probes
}
