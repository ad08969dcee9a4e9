// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// reachTime is how long the endpoint may take to lead to the API servers: a balancer looks at servers every so often, and control planes
// have to agree who has the virtual address.
const reachTime = 90 * time.Second

// way and tried are internal/node's Way and Tried, with its words for what is in the way.
type way struct {
	Server string `json:"server"`
	CA     string `json:"ca"`
}

type tried struct {
	Obstacle  string   `json:"obstacle"`
	Why       string   `json:"why"`
	Addresses []string `json:"addresses"`
}

const (
	wayName    = "name"
	wayForeign = "foreign"
	wayUnnamed = "unnamed"
	wayTLS     = "protocol"
)

// UnreachedError is a host from which the endpoint does not lead to an API server of the cluster.
type UnreachedError struct {
	Host, Server  string
	Endpoint      clusterfile.Endpoint
	Addresses     []string // what Server's name stands for there
	Obstacle, Why string
	Tries         int
	Time          time.Duration // for which it was tried
	ControlPlanes []string      // host:port of those that should be reached
}

func (e *UnreachedError) Error() string {
	at := e.Server
	if len(e.Addresses) > 0 && !strings.Contains(e.Server, e.Addresses[0]) {
		at += " (" + strings.Join(e.Addresses, ", ") + ")"
	}
	times := ""
	if e.Tries > 1 {
		times = fmt.Sprintf(", asked %d times in %s", e.Tries, e.Time.Round(time.Second))
	}
	return fmt.Sprintf("%s: the endpoint %s does not lead to the API servers of this cluster%s: %s", e.Host, at, times, e.Why)
}

// Hint says what to look at.
func (e *UnreachedError) Hint() string {
	servers := strings.Join(e.ControlPlanes, ", ")
	if e.Endpoint.VIP != "" {
		return "on the control plane look at crictl ps -a and crictl logs of the pod that carries the address, and at whether the hosts' network lets VRRP (IP protocol 112) and gratuitous ARP through"
	}
	switch e.Obstacle {
	case wayName:
		return "have the hosts' nameserver know the name, or name it in hostAliases of the Clusterfile"
	case wayForeign:
		return "point the balancer at this cluster's control planes, " + servers + ", and have it hand on TCP as it is: with a certificate of its own nothing here would trust it"
	case wayUnnamed:
		return "sealer cert renew --alt-names adds names to the API servers' certificates"
	case wayTLS:
		return "have the balancer hand on TCP as it is to " + servers
	}
	return "have the balancer hand on connections to the control planes that answer, of " + servers + ", and see that the hosts reach it"
}

// reaching makes sure that a host finds this cluster, and no other, by its endpoint.
func (r *run) reaching(h *runtime.Host) []runtime.Step {
	if !r.cluster.File.Endpoint.Own() {
		return nil
	}
	server := r.cluster.File.Endpoint.HostPort(apiPort(r.cluster, r.distribution))
	try := func(ctx context.Context) (tried, error) { return reach(ctx, r.cluster, r.distribution, h, server) }
	return []runtime.Step{{
		Name: "reaching the API servers at " + server,
		Done: func(ctx context.Context) (bool, error) {
			t, err := try(ctx)
			return err == nil && t.Obstacle == "", err
		},
		Do: func(ctx context.Context, log io.Writer) error { return r.awaitReached(ctx, h, server, try, log) },
	}}
}

// reach asks from a host for an API server of the cluster at server.
func reach(ctx context.Context, c *runtime.Cluster, d runtime.Distribution, h *runtime.Host, server string) (t tried, err error) {
	ca, err := authority(ctx, c, d)
	if err != nil {
		return t, err
	}
	err = program.Call{In: way{server, ca}, Out: &t, Reads: true}.Run(ctx, h, "endpoint", "reach")
	return t, err
}

func (r *run) awaitReached(ctx context.Context, h *runtime.Host, server string, try func(context.Context) (tried, error), log io.Writer) error {
	limited, cancel := context.WithTimeoutCause(ctx, reachTime, errTimeout)
	defer cancel()
	tick := time.NewTicker(r.PollInterval)
	defer tick.Stop()
	began, last := time.Now(), tried{}
	for tries := 1; ; tries++ {
		t, err := try(limited)
		switch {
		case err != nil && limited.Err() == nil:
			return err
		case err == nil && t.Obstacle == "":
			return nil
		case err == nil:
			if t.Why != last.Why {
				say(log, "%s", t.Why)
			}
			last = t
		}
		unreached := &UnreachedError{
			Host: h.String(), Server: server, Endpoint: r.cluster.File.Endpoint, Addresses: last.Addresses, Obstacle: last.Obstacle, Why: last.Why,
			Tries: tries, Time: time.Since(began), ControlPlanes: controlPlaneIPs(r.cluster),
		}
		if last.Obstacle == wayForeign || last.Obstacle == wayUnnamed {
			return unreached // time makes it no better
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return unreached
		case <-tick.C:
		}
	}
}

// authority is the CA of the cluster's API servers, as the admin's kubeconfig has it.
func authority(ctx context.Context, c *runtime.Cluster, d runtime.Distribution) (string, error) {
	h := c.Server()
	data, err := host.ReadFile(ctx, h.Runner, d.Kubectl().Kubeconfig)
	if err != nil {
		return "", err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA string `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil || len(config.Clusters) == 0 {
		return "", fmt.Errorf("%s: reading the kubeconfig: it names no cluster", h)
	}
	ca, err := base64.StdEncoding.DecodeString(config.Clusters[0].Cluster.CA)
	if err != nil || len(ca) == 0 {
		return "", fmt.Errorf("%s: reading the kubeconfig: it has no CA", h)
	}
	return string(ca), nil
}
