// SPDX-License-Identifier: Apache-2.0

package node

// EndpointUnitText is the unit with IPVS, which only a kernel that has it installs.
func EndpointUnitText(n *Node, program string) string { return n.endpointUnit(program, true, true) }
