// SPDX-License-Identifier: Apache-2.0

package runtime

// Check is a kind of thing that Preflight looks at.
type Check struct {
	Name string // as in Problem.Check
	Why  string // what goes wrong where it is not as it should be
}

// Checks are all that Preflight looks at, whatever the distribution.
func Checks() []Check {
	return []Check{
		{"address", "nodes register with the address that the host was named by: it must stand on one of its links"},
		{"cgroup", "the kubelet from 1.35 on, and k0s, refuse cgroup v1 unless they are told otherwise"},
		{"clock", "certificates made on one host must be valid on the others: clocks may differ by 30 s, and by 5 minutes from this machine's"},
		{"clusterfile", "settings that exclude each other would be noticed only when hosts are half installed"},
		{"containerd", "a containerd that is to run a cluster's containers has to answer, and to be configured for that"},
		{"cpu", "a control plane with one CPU does not come up in time"},
		{"datastore", "a cluster of several control planes needs a datastore that they can share"},
		{"disk", "the image's blobs, what is unpacked of them, and room for logs and etcd must fit below /var/lib"},
		{"dns", "the cluster's DNS hands on what it does not know to the host's nameserver, and does not start without one"},
		{"docker", "a docker that is to run a cluster's containers has to answer, and takes images under names with a tag only"},
		{"endpoint", "workers and users find the API servers by an address that the control planes can carry, or that leads to them"},
		{"foreign", "another Kubernetes or container runtime would share ports, folders and packet filters with this one"},
		{"hostname", "the host name is the node's name: in lower case, and of one host alone"},
		{"image", "hosts of one cluster run one image; another one is for sealer upgrade"},
		{"images", "what is not packed can never be pulled on hosts without a network"},
		{"init", "services are kept by systemd, or by OpenRC for k3s and k0s"},
		{"ipvs", "where the API servers are balanced by IPVS the kernel of each worker must have it"},
		{"machine-id", "pod networks and the journal take hosts with the same machine id for one"},
		{"memory", "a control plane with too little memory loses its API server under load"},
		{"name", "names become names of objects in the cluster"},
		{"noexec", "programs are run from /usr/local/bin and from the rootfs below /var/lib"},
		{"platform", "the image must have a rootfs for the host's architecture"},
		{"port", "what listens on a port of Kubernetes keeps it from starting"},
		{"programs", "the distribution's own programs must be in the image"},
		{"read-only", "what is installed is written to /etc, /var/lib and /usr/local/bin"},
		{"role", "a host keeps the role that it was installed with"},
		{"root", "programs, units and the packet filter are root's"},
		{"runtime", "a host keeps the distribution that it was installed with"},
		{"selinux", "where SELinux enforces a policy that does not know the cluster's programs, pods are denied what they need"},
		{"settings", "settings that exclude each other, or that sealer makes itself, would be noticed too late"},
		{"ssh", "every host has to be reached, to know its key, and to take the login"},
		{"state", "a host of another cluster, or of a later sealer, is not touched"},
		{"systemd", "containerd and the kubelet are kept by systemd"},
		{"version", "distributions are installed in the versions that this sealer knows"},
	}
}
