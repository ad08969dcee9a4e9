// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"

	"github.com/sealerio/sealer/runtime"
)

// Health asks for the service, and on a server for its API server and datastore.
func (d Distribution) Health(c *runtime.Cluster, h *runtime.Host) []runtime.Probe {
	s := service(h)
	probes := []runtime.Probe{{
		Name: s.Name,
		Fix:  s.Hint(),
		Ask: func(ctx context.Context) error {
			active, err := s.Active(ctx)
			if err == nil && !active {
				err = fmt.Errorf("%s: %s does not run", h, s.Name)
			}
			return err
		},
	}}
	if onDocker(c, h) {
		probes = append(probes, runtime.DockerProbe(h))
	}
	if socket := onContainerd(c, h); socket != "" {
		probes = append(probes, runtime.ContainerdProbe(h, socket))
	}
	if !isServer(h) {
		return probes
	}
	get := func(name, path string) runtime.Probe {
		return runtime.Probe{
			Name: name,
			Fix:  s.Hint(),
			Ask: func(ctx context.Context) error {
				return h.Runner.Run(ctx, d.Kubectl().Command("--server", address(c, h), "get", "--raw", path, "--request-timeout", "10s"))
			},
		}
	}
	probes = append(probes, get("API server", "/readyz"))
	if serverAsked(c)["datastore-endpoint"] == nil {
		// With SQLite it is the one server's; with etcd it is answered where a majority agrees.
		probes = append(probes, get(runtime.ProbeDatastore, "/readyz/etcd"))
	}
	return probes
}
