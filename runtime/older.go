// SPDX-License-Identifier: Apache-2.0

package runtime

// Older tells of the rootfs of an older tool's image (sealer 0.9–0.11, sealos). None of its scripts is run.
type Older struct {
	Tool string
	// Programs are the names of the files in its bin/, its cri/, and the archives in cri/ and tgz/.
	Programs map[string]bool
	// Prepared says that the scripts of sealer's own base image are in it: somebody has built upon it.
	Prepared bool
}

// Adopter is a Distribution that can install what an older tool's rootfs holds.
type Adopter interface {
	// Adopt puts files of its own in place of the tool's into a mounted rootfs, before templates are rendered.
	Adopt(c *Cluster, h *Host) []Step
}
