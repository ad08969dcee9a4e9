// SPDX-License-Identifier: Apache-2.0

// Package hosts makes real hosts for end-to-end tests: systemd containers with sshd and an address each, on a network
// that leads nowhere but to the other hosts and to the machine they run on.
//
// They are as close to bare machines as containers get: PID 1 is systemd, /var and /tmp lie on a real file system,
// /etc/hosts can be replaced, host keys and machine IDs are their own and stay over a restart, and there is no route
// out. They hold no container runtime and nothing of Kubernetes.
//
// A set of hosts has a name, and one process at a time uses it. What a killed process left of a set is cleaned by the
// next Up of the same name. Everything that Up starts or changes on the machine is gone after Down; only the host image
// and the engine's copy of it stay, as a cache.
package hosts
