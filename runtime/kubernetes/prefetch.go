// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"io"
	"slices"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Prefetcher = Distribution{}

// Prefetch pulls what kubeadm join pulls on a control plane, and what the first pods of a worker are made of. Nothing depends on it: what
// cannot be pulled now is pulled, or complained of, when it is needed.
func (d Distribution) Prefetch(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	wanted := []string{"pause", "kube-proxy"}
	if h.Spec.Role == clusterfile.ControlPlane {
		wanted = d.Images(c)
	}
	var images []string
	for _, name := range c.Images {
		if slices.Contains(wanted, runtime.Repository(name)) {
			images = append(images, name)
		}
	}
	if len(images) == 0 {
		return nil
	}
	return []runtime.Step{{
		Name: "fetching Kubernetes' images",
		Key:  c.KubeVersion(),
		Do: func(ctx context.Context, log io.Writer) error {
			argv := append([]string{"sh", "-c", prefetch, "sh"}, images...)
			return h.Runner.Run(ctx, host.Command{Argv: argv, Stdout: log, Stderr: log, Mutates: true})
		},
	}}
}

const prefetch = `for image; do
	crictl --timeout 600s pull "$image" >/dev/null || echo "$image could not be fetched now" >&2 &
done
wait
`
