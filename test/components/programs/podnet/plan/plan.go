// SPDX-License-Identifier: Apache-2.0

// Package plan works out what one node's network should be from what the cluster says of all nodes. It touches
// nothing.
package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Node is what matters here of a node.
type Node struct {
	Name      string
	Networks  []netip.Prefix // of its pods: one, or one for each IP family
	Addresses []netip.Addr
}

// Route leads to the pods of another node.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Network is what a node needs.
type Network struct {
	Own    []netip.Prefix // networks of the node's own pods
	All    []netip.Prefix // networks of all pods, sorted: between them addresses stay as they are
	Routes []Route        // sorted by network
}

// For works out the network of the named node. It is false as long as the cluster has given that node no networks.
func For(name string, nodes []Node) (Network, bool) {
	var n Network
	for _, node := range nodes {
		n.All = append(n.All, node.Networks...)
		if node.Name == name {
			n.Own = node.Networks
			continue
		}
		for _, network := range node.Networks {
			if via, ok := addressFor(node, network); ok {
				n.Routes = append(n.Routes, Route{To: network, Via: via})
			}
		}
	}
	slices.SortFunc(n.All, netip.Prefix.Compare)
	n.All = slices.Compact(n.All)
	slices.SortFunc(n.Routes, func(a, b Route) int {
		return cmp.Or(a.To.Compare(b.To), a.Via.Compare(b.Via))
	})
	return n, len(n.Own) > 0
}

// addressFor returns the node's first address of the network's IP family.
func addressFor(node Node, network netip.Prefix) (netip.Addr, bool) {
	i := slices.IndexFunc(node.Addresses, func(a netip.Addr) bool { return a.Is4() == network.Addr().Is4() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return node.Addresses[i], true
}

// Config returns the configuration for the CNI plugins: a bridge with the node's networks, and host ports.
func (n Network) Config() ([]byte, error) {
	type ipRange struct {
		Subnet string `json:"subnet"`
	}
	type route struct {
		To string `json:"dst"`
	}
	type ipam struct {
		Type   string      `json:"type"`
		Ranges [][]ipRange `json:"ranges"`
		Routes []route     `json:"routes"`
	}
	type plugin struct {
		Type         string          `json:"type"`
		Bridge       string          `json:"bridge,omitempty"`
		IsGateway    bool            `json:"isGateway,omitempty"`
		HairpinMode  bool            `json:"hairpinMode,omitempty"`
		IPAM         *ipam           `json:"ipam,omitempty"`
		Capabilities map[string]bool `json:"capabilities,omitempty"`
	}
	addresses := &ipam{Type: "host-local"}
	for _, network := range n.Own {
		addresses.Ranges = append(addresses.Ranges, []ipRange{{Subnet: network.String()}})
		everywhere := "0.0.0.0/0"
		if network.Addr().Is6() {
			everywhere = "::/0"
		}
		addresses.Routes = append(addresses.Routes, route{To: everywhere})
	}
	config, err := json.MarshalIndent(struct {
		Version string   `json:"cniVersion"`
		Name    string   `json:"name"`
		Plugins []plugin `json:"plugins"`
	}{
		Version: "1.0.0",
		Name:    "podnet",
		Plugins: []plugin{
			{Type: "bridge", Bridge: "cni0", IsGateway: true, HairpinMode: true, IPAM: addresses},
			{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("making the CNI configuration: %w", err)
	}
	return append(config, '\n'), nil
}
