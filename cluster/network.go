// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// awaitNetwork waits for the nodes of a cluster whose image launches nothing. Where a network plugin is there, or comes with
// the distribution, they become Ready; without one they cannot, and the run says so at its end.
func (r *run) awaitNetwork() runtime.Step {
	return runtime.Step{
		Name: "waiting until all nodes are Ready",
		Done: func(ctx context.Context) (bool, error) { return r.isReady(ctx) },
		Do: func(ctx context.Context, log io.Writer) error {
			limited, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if r.staysWithoutNetwork(limited) {
					cancel(errNoNetwork)
				}
			}()
			err := r.waitReady(limited, log)
			cancel(nil)
			<-ended
			if errors.Is(err, errNoNetwork) {
				r.noNetwork = true
				say(log, "%v: not waiting any longer", err)
				return nil
			}
			return err
		},
	}
}

var errNoNetwork = errors.New("no host has a network plugin, and none is coming")

// staysWithoutNetwork looks for a network plugin for a tenth of ReadyTimeout, and tells that there is none by then.
func (r *run) staysWithoutNetwork(ctx context.Context) bool {
	tick := time.NewTicker(r.ReadyTimeout / 10)
	defer tick.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-tick.C:
	}
	has, err := r.hasNetwork(ctx)
	return err == nil && !has
}

// cniConfigs are where container runtimes look for a network plugin: containerd's and cri-o's own place, and k3s'.
const cniConfigs = `for f in /etc/cni/net.d/*.conf* /var/lib/rancher/k3s/agent/etc/cni/net.d/*.conf*; do [ -e "$f" ] && exit 0; done; exit 1`

// hasNetwork: a plugin is configured on a host, or a DaemonSet is there that may be one.
func (r *run) hasNetwork(ctx context.Context) (bool, error) {
	for _, h := range r.cluster.Hosts {
		there, err := answered(h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", cniConfigs}}))
		if err != nil || there {
			return there, err
		}
	}
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := r.kubectl(ctx, &list, "get", "daemonsets", "--all-namespaces"); err != nil {
		return false, err
	}
	for _, d := range list.Items {
		if d.Metadata.Name != "kube-proxy" && d.Metadata.Name != "konnectivity-agent" {
			return true, nil
		}
	}
	return false, nil
}

// noNetworkNotice is the last line of a run whose nodes are not Ready for that reason.
const noNetworkNotice = "the nodes are not Ready: the cluster has no network plugin, and its image launches none. " +
	"Install one with kubectl, or build an image FROM this one with CNI and LAUNCH\n"
