// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"io"

	"github.com/sealerio/sealer/runtime"
)

// staticPods is the kubelet's folder of pods, as kubeadm sets it.
const staticPods = "/etc/kubernetes/manifests"

// APIPort is 6443, unless the InitConfiguration says otherwise.
func (Distribution) APIPort(c *runtime.Cluster) int { return port(c) }

// StaticPods is kubeadm's folder.
func (Distribution) StaticPods() string { return staticPods }

// VirtualAddressPrograms are those that run as pods of the kubelet.
func (Distribution) VirtualAddressPrograms() []string { return []string{"keepalived", "kube-vip"} }

// checkEndpoint: the endpoint has one place in the Clusterfile.
func checkEndpoint(c *runtime.Cluster) []runtime.Problem {
	e, said := c.File.Kubeadm["ClusterConfiguration"]["controlPlaneEndpoint"].(string)
	if !said || e == "" || !c.File.Endpoint.Said() {
		return nil
	}
	return []runtime.Problem{{
		Check: "endpoint", What: "the Clusterfile has a controlPlaneEndpoint in its Cluster and another one, " + e + ", in its ClusterConfiguration",
		Fix: "leave that of the ClusterConfiguration out",
	}}
}

// ownServer has the admin's kubeconfigs of a control plane name its own API server: what is asked with them is asked of this host, and
// works while the endpoint does not. kubeadm has no word for that; its renewals and upgrades keep the server that they find.
const (
	ownServer = `set -eu
for f in admin super-admin; do
	f=/etc/kubernetes/$f.conf
	[ -e "$f" ] || continue
	! grep -qxF "    server: $1" "$f" || continue
	new=/etc/kubernetes/.sealer-kubeconfig
	(umask 077; sed "s|^    server: .*|    server: $1|" "$f" >"$new")
	mv -f "$new" "$f"
done`
	isOwnServer = `for f in admin super-admin; do f=/etc/kubernetes/$f.conf; [ ! -e "$f" ] || grep -qxF "    server: $1" "$f" || exit 1; done`
)

// ownServerStep is for clusters whose endpoint is outside of them: with any other the name in kubeconfigs leads control planes to themselves.
func ownServerStep(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if c.File.Endpoint.External == "" {
		return nil
	}
	server := "https://" + local(c)
	return []runtime.Step{{
		Name: "having the admin's kubeconfig ask this control plane",
		Done: func(ctx context.Context) (bool, error) {
			return succeeds(ctx, h.Runner, "sh", "-c", isOwnServer, "sh", server)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return run(ctx, h, log, "sh", "-c", ownServer, "sh", server)
		},
	}}
}
