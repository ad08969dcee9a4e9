// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterfile"
)

// endpointFlags say how workers and users find the API servers.
type endpointFlags struct {
	vip, vipInterface, endpoint, ipvsAddress string
	ipvs                                     bool
}

func (o *endpointFlags) addEndpoint(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.vip, "vip", "", "address that the control planes hand on among themselves, for their API servers: 10.0.0.100")
	f.StringVar(&o.vipInterface, "vip-interface", "", "where the control planes carry that address (default: the interface whose network it lies in)")
	f.StringVar(&o.endpoint, "endpoint", "", "HOST[:PORT] of a balancer of your own before the API servers")
	f.BoolVar(&o.ipvs, "ipvs", false, "have the kernels of workers balance connections to the API servers (IPVS), in place of a program; Kubernetes by kubeadm")
	f.StringVar(&o.ipvsAddress, "ipvs-address", "", "virtual address that each worker has for that, such as 10.103.97.2 (default: a link-local one)")
	cmd.MarkFlagsMutuallyExclusive("vip", "endpoint", "ipvs")
}

// overEndpoint puts the flags over the Clusterfile.
func (o *endpointFlags) overEndpoint(f *clusterfile.File) {
	switch {
	case o.vip != "":
		f.Endpoint = clusterfile.Endpoint{VIP: o.vip}
	case o.endpoint != "":
		f.Endpoint = clusterfile.Endpoint{External: o.endpoint}
	case o.ipvs:
		f.Endpoint = clusterfile.Endpoint{IPVS: true}
	}
	if o.ipvsAddress != "" {
		f.Endpoint.IPVSAddress = o.ipvsAddress
	}
	if o.vipInterface != "" {
		f.Endpoint.Interface = o.vipInterface
	}
	f.Endpoint = f.Endpoint.Spelled()
}
