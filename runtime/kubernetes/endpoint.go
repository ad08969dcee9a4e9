// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

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
	problems := serviceProblems(c)
	e, said := c.File.Kubeadm["ClusterConfiguration"]["controlPlaneEndpoint"].(string)
	if !said || e == "" || !c.File.Endpoint.Said() {
		return problems
	}
	return append(problems, runtime.Problem{
		Check: "endpoint", What: "the Clusterfile has a controlPlaneEndpoint in its Cluster and another one, " + e + ", in its ClusterConfiguration",
		Fix: "leave that of the ClusterConfiguration out",
	})
}

// serviceProblems: the virtual address of IPVS is none of a pod's or a service's.
func serviceProblems(c *runtime.Cluster) []runtime.Problem {
	if !c.File.Endpoint.IPVS {
		return nil
	}
	var problems []runtime.Problem
	address, n := c.ServiceAddress(), networks(c)
	for whose, list := range map[string]string{"pods": n.Pods, "services": n.Services} {
		for part := range strings.SplitSeq(list, ",") {
			if p, err := netip.ParsePrefix(strings.TrimSpace(part)); err == nil && p.Contains(address) {
				problems = append(problems, runtime.Problem{
					Check: "endpoint", What: fmt.Sprintf("the virtual address %s of IPVS lies in the network %s of the %s", address, p, whose),
					Fix: "choose another ipvsAddress, or none",
				})
			}
		}
	}
	return problems
}

// proxyConfig is kube-proxy's. In its mode ipvs it takes away all IPVS services that it does not know, but for those that it is told to leave.
func proxyConfig(c *runtime.Cluster) object {
	config := document(c, kubeProxyAPI, "KubeProxyConfiguration", object{})
	if !c.File.Endpoint.IPVS {
		return config
	}
	address := c.ServiceAddress()
	ours := netip.PrefixFrom(address, address.BitLen()).String()
	ipvs := child(config, "ipvs")
	list, _ := ipvs["excludeCIDRs"].([]any)
	if !slices.Contains(list, any(ours)) {
		ipvs["excludeCIDRs"] = append(slices.Clone(list), ours)
	}
	return config
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
