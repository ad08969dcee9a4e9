// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// etcdPort is where members of etcd talk to one another.
const etcdPort = 2380

// Leave takes a control plane's member out of etcd, asking another one: where a member has left, k0s' etcd commands hang.
func (d Distribution) Leave(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if !isController(h) || !ownEtcd(c) {
		return nil
	}
	return []runtime.Step{{
		Name: "removing " + h.Facts.NodeName() + " from etcd",
		Done: func(ctx context.Context) (bool, error) {
			_, there, err := member(ctx, c, h)
			return err == nil && !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error { return d.leave(ctx, c, h, log) },
	}}
}

// leaveTries is how often a member is asked to go: etcd refuses for some seconds after another one has come or gone.
const leaveTries = 30

func (d Distribution) leave(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	tick := time.NewTicker(d.interval())
	defer tick.Stop()
	for try := 1; ; try++ {
		address, there, err := member(ctx, c, h)
		if err != nil || !there {
			return err
		}
		err = run(ctx, c.Server(), log, call(2*time.Minute, "etcd", "leave", "--peer-address", address)...)
		if refused, _ := errors.AsType[*host.ExitError](err); refused == nil || try == leaveTries {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// member is the address of the host's member of etcd, without scheme and port, as k0s wants it for leaving.
func member(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (address string, there bool, err error) {
	out, err := host.Output(ctx, c.Server().Runner, host.Command{Argv: call(30*time.Second, "etcd", "member-list")})
	if err != nil {
		return "", false, fmt.Errorf("listing the members of etcd: %w", err)
	}
	var list struct {
		Members map[string]string `json:"members"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return "", false, fmt.Errorf("%s: reading the members of etcd: %w", c.Server(), err)
	}
	own := "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(etcdPort))
	for name, url := range list.Members {
		if name == h.Facts.Hostname || name == h.Facts.NodeName() || url == own {
			hostPort := strings.TrimPrefix(url, "https://")
			if address, _, err := net.SplitHostPort(hostPort); err == nil {
				return address, true, nil
			}
			return h.IP(), true, nil
		}
	}
	return "", false, nil
}

// Forget deletes what k0s keeps of a control plane, and the Node object.
func (d Distribution) Forget(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	var objects []string
	if isController(h) {
		objects = append(objects, "controlnodes.autopilot.k0sproject.io")
		if ownEtcd(c) {
			objects = append(objects, "etcdmembers.etcd.k0sproject.io")
		}
	}
	objects = append(objects, "node")
	var steps []runtime.Step
	for _, kind := range objects {
		short, _, _ := strings.Cut(kind, ".")
		steps = append(steps, runtime.Step{
			Name: "deleting the " + strings.TrimSuffix(short, "s") + " " + h.Facts.NodeName(),
			Done: func(ctx context.Context) (bool, error) {
				out, err := host.Output(ctx, c.Server().Runner, kubectl(time.Minute, "get", kind, h.Facts.NodeName(), "--ignore-not-found", "--output", "name", "--request-timeout", "20s"))
				return err == nil && strings.TrimSpace(string(out)) == "", err
			},
			Do: func(ctx context.Context, log io.Writer) error {
				k := kubectl(2*time.Minute, "delete", kind, h.Facts.NodeName(), "--ignore-not-found", "--timeout", "60s")
				k.Stdout, k.Stderr, k.Mutates = log, log, true
				return c.Server().Runner.Run(ctx, k)
			},
		})
	}
	return steps
}
