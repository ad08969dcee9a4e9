// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/sealerio/sealer/runtime"
)

// Health asks for k0s itself, and on a control plane for what runs there.
func (d Distribution) Health(c *runtime.Cluster, h *runtime.Host) []runtime.Probe {
	s := service(h)
	probes := []runtime.Probe{{
		Name: "k0s",
		Fix:  s.Hint(),
		Ask: func(ctx context.Context) error {
			st, answers, err := readStatus(ctx, h)
			switch {
			case err != nil:
				return err
			case !answers:
				return fmt.Errorf("%s: %s does not answer", h, s.Name)
			case !isController(h) && !st.WorkerToAPIConnectionStatus.Success:
				return fmt.Errorf("%s: it does not reach the API server: %s", h, st.WorkerToAPIConnectionStatus.Message)
			}
			return nil
		},
	}}
	if !isController(h) {
		return probes
	}
	// The host's own API server, whatever its kubeconfig names.
	own := "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(portAt(c, apiPort, "api", "port")))
	get := func(name, path, fix string) runtime.Probe {
		return runtime.Probe{Name: name, Fix: fix, Ask: func(ctx context.Context) error {
			return h.Runner.Run(ctx, kubectl(20*time.Second, "--server", own, "get", "--raw", path, "--request-timeout", "10s"))
		}}
	}
	probes = append(probes, get("API server", "/readyz", s.Hint()+", for component=kube-apiserver"))
	if ownEtcd(c) {
		// The API server asks the etcd of its host alone, for an answer that a majority agrees to.
		probes = append(probes, get(runtime.ProbeDatastore, "/readyz/etcd", s.Hint()+", for component=etcd"))
	}
	return probes
}
