// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"strconv"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// endpointFile is where sealer-node keeps what the balancer of a host is to do.
const endpointFile = "/var/lib/sealer/node/endpoint/config.json"

// endpointConfig is internal/node's EndpointConfig.
type endpointConfig struct {
	Listen  string   `json:"listen"`
	Servers []string `json:"servers"`
	IPVS    bool     `json:"ipvs,omitempty"`
}

// balancedPort is the port at which a host's own balancer listens; 0 where it has none.
func balancedPort(c *runtime.Cluster, d runtime.Distribution, h *runtime.Host) int {
	b, ok := d.(runtime.Balanced)
	if !ok || h.Spec.Role == clusterfile.ControlPlane {
		return 0
	}
	return b.BalancedPort(c)
}

// balancedAddress is where a worker has its own balancer.
func balancedAddress(c *runtime.Cluster, h *runtime.Host) string {
	if c.File.Endpoint.IPVS {
		return c.ServiceAddress().String()
	}
	return h.Loopback()
}

// endpoint gives a worker a balancer in front of the API servers, which outlives each of them.
func endpoint(c *runtime.Cluster, d runtime.Distribution, h *runtime.Host) []runtime.Step {
	port := balancedPort(c, d, h)
	if port == 0 {
		return nil
	}
	want := endpointConfig{Listen: net.JoinHostPort(balancedAddress(c, h), strconv.Itoa(port)), IPVS: c.File.Endpoint.IPVS}
	for _, ip := range controlPlaneIPs(c) {
		want.Servers = append(want.Servers, net.JoinHostPort(ip, strconv.Itoa(port)))
	}
	return []runtime.Step{{
		Name: "balancing the API servers",
		Done: func(ctx context.Context) (bool, error) {
			runs, err := asks(ctx, h, "systemctl", "is-active", "--quiet", "sealer-endpoint.service")
			if err != nil || !runs {
				return false, err
			}
			data, err := host.ReadFile(ctx, h.Runner, endpointFile)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			var have endpointConfig
			if json.Unmarshal(data, &have) != nil {
				return false, nil
			}
			return have.Listen == want.Listen && have.IPVS == want.IPVS && slices.Equal(have.Servers, want.Servers), nil
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log, In: want}.Run(ctx, h, "endpoint", "install")
		},
	}}
}

// controlPlaneIPs are the addresses of all control planes that the cluster has, whether they can be reached now or not.
func controlPlaneIPs(c *runtime.Cluster) []string {
	var ips []string
	for _, m := range c.File.ControlPlanes() {
		if m.Local() {
			return []string{c.First().IP()}
		}
		ips = append(ips, m.Address)
	}
	return ips
}
