// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"path"
	"slices"
)

// Marks are the traces by which an installation of one kind is known on a host.
type Marks struct {
	// Name is the distribution's, as in Metadata.ClusterRuntime; empty for what is none of ours.
	Name  string
	Title string // for messages: "Kubernetes by kubeadm"
	// Started are paths that are there once it ran as part of a cluster.
	Started []string
	// Programs are paths of what is installed to run it.
	Programs []string
	Units    []string // of systemd, with their suffix
	socket   string   // of a containerd that facts are to tell of; see OwnRuntime
}

// paths are all those that facts have to look for.
func (m Marks) paths() []string { return slices.Concat(m.Started, m.Programs) }

// found is what of the installation stands on the host, in words; empty where nothing does.
func (m Marks) found(f Facts) string {
	for _, p := range m.Started {
		if f.Has(p) {
			return m.Title + " (" + p + ")"
		}
	}
	trace := ""
	for _, u := range m.Units {
		if unit, ok := f.Units[u]; ok && trace == "" {
			trace = u
			if unit.Active {
				return m.Title + " (" + u + ")"
			}
		}
	}
	for _, p := range m.Programs {
		if f.Has(p) && trace == "" {
			trace = p
		}
	}
	switch {
	case trace == "":
		return ""
	case len(m.Started) == 0:
		return m.Title + " (" + trace + ")"
	}
	return "part of " + m.Title + " (" + trace + ")"
}

// podNetworks is where container runtimes look for the configuration of a pod network.
const podNetworks = "/etc/cni/net.d"

// otherMarks are of what no distribution of ours brings, and must not meet.
func otherMarks() []Marks {
	return []Marks{
		{Title: "rke2", Started: []string{"/var/lib/rancher/rke2"}, Units: []string{"rke2-server.service", "rke2-agent.service"}},
		{Title: dockerTitle, Programs: []string{"/usr/bin/dockerd"}, Units: []string{"docker.service"}},
		{Title: "CRI-O", Programs: []string{"/usr/bin/crio"}, Units: []string{"crio.service"}},
	}
}

// containerdMarks are no foreign thing where a distribution of ours has brought it.
func containerdMarks() Marks {
	return Marks{Title: "containerd", Programs: []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}, Units: []string{"containerd.service"}}
}

// Marks are those of all distributions, and of what else must not be on a host, in a fixed order.
func (ds Distributions) Marks() []Marks {
	var all []Marks
	for _, name := range ds.names() {
		all = append(all, ds[name].Marks())
	}
	for _, m := range otherMarks() {
		if _, known := ds[m.Name]; !known {
			all = append(all, m)
		}
	}
	return append(all, containerdMarks())
}

// foreign are the installations on a host that are not of the distribution ours (empty: sealer was never there), in words.
func foreign(f Facts, marks []Marks, ours string) []string {
	var found []string
	for _, m := range marks {
		if ours != "" && (m.Name == ours || m.Title == containerdMarks().Title) {
			continue
		}
		if what := m.found(f); what != "" {
			found = append(found, what)
		}
	}
	if ours != "" {
		return found
	}
	for _, p := range f.Paths {
		if path.Dir(p) == podNetworks {
			found = append(found, "a pod network ("+p+")")
		}
	}
	return found
}
