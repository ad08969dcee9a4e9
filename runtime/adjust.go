// SPDX-License-Identifier: Apache-2.0

package runtime

// Adjuster is a Distribution that knows which of its settings a cluster that runs can take up.
type Adjuster interface {
	// Fixed is why a setting cannot be changed once the cluster runs; empty: it can. path is the kind of its document, then the
	// keys: "ClusterConfiguration", "networking", "podSubnet". Lists are settings as a whole.
	Fixed(path ...string) string
	// Adjust brings changed settings to a host that is part of the cluster, as far as Init and Join do not: paths are
	// those that have changed, as Fixed is given them, and clusterfile.EnvCertSANs alone. Control planes are adjusted one after the other, then workers.
	Adjust(c *Cluster, h *Host, paths [][]string) []Step
}
