// SPDX-License-Identifier: Apache-2.0

package k3s

import "github.com/sealerio/sealer/runtime"

// APIPort is 6443, unless https-listen-port says otherwise.
func (Distribution) APIPort(c *runtime.Cluster) int { return port(c) }

// StaticPods is the folder that k3s gives its kubelet (docs.k3s.io/cli/server).
func (Distribution) StaticPods() string { return dataDir + "/agent/pod-manifests" }

// VirtualAddressPrograms are those that run as pods of the kubelet.
func (Distribution) VirtualAddressPrograms() []string { return []string{"keepalived", "kube-vip"} }
