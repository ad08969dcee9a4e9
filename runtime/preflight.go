// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sealerio/sealer/clusterfile"
)

// Problem is one thing that stands in the way, with what to do about it.
type Problem struct {
	Host  string // empty where it is not one host's
	Check string // short name: port, disk, clock …
	What  string // a sentence
	Fix   string
}

func (p Problem) String() string {
	s := p.What
	if p.Host != "" {
		s = p.Host + ": " + s
	}
	return s + " [" + p.Check + "]"
}

// PreflightError is all that was found wrong on all hosts, before anything was touched.
type PreflightError struct{ Problems []Problem }

func (e *PreflightError) Error() string {
	lines := []string{fmt.Sprintf("checking the hosts: %d problems, nothing was changed", len(e.Problems))}
	if len(e.Problems) == 1 {
		lines[0] = "checking the hosts: 1 problem, nothing was changed"
	}
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.String())
	}
	return strings.Join(lines, "\n")
}

// Hint lists the remedies, each once.
func (e *PreflightError) Hint() string {
	var fixes []string
	for _, p := range e.Problems {
		if p.Fix != "" && !slices.Contains(fixes, p.Fix) {
			fixes = append(fixes, p.Fix)
		}
	}
	return strings.Join(fixes, "\n      ")
}

// maxSkew between two hosts: certificates made on one must be valid on the other. maxOwnSkew is that between the hosts and this machine,
// on which kubeconfigs are used and certificates looked at: kubeadm dates its own back by as much.
const (
	maxSkew    = 30 * time.Second
	maxOwnSkew = 5 * time.Minute
)

// hostnameRule is an RFC 1123 subdomain, what a node may be called.
var hostnameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// Preflight looks for everything that would make an installation fail, on all
// hosts, and reports it at once as a *PreflightError. d is the distribution among all that
// the image asks for.
func Preflight(c *Cluster, d Distribution, all Distributions, clusterID string) error {
	return preflight(c, d, all, clusterID, false, nil)
}

// PreflightUpgrade is Preflight of a cluster that is to run another image than it was installed from; more are the
// problems that were found besides.
func PreflightUpgrade(c *Cluster, d Distribution, all Distributions, clusterID string, more []Problem) error {
	return preflight(c, d, all, clusterID, true, more)
}

func preflight(c *Cluster, d Distribution, all Distributions, clusterID string, upgrade bool, problems []Problem) error {
	problems = slices.Clone(problems)
	for _, h := range c.Hosts {
		k := &checker{cluster: c, host: h, distribution: d, marks: all.Marks(), clusterID: clusterID, upgrade: upgrade}
		if UsesDocker(d, c, h) {
			k.marks = withoutDocker(k.marks)
		}
		if usesContainerd(d, c, h) {
			k.marks = withoutContainerd(k.marks)
		}
		k.machine()
		k.owner()
		k.resources()
		problems = append(problems, k.problems...)
	}
	problems = append(problems, checkTogether(c.Hosts)...)
	problems = append(problems, endpointProblems(c, d)...)
	problems = append(problems, d.Check(c)...)
	if len(problems) == 0 {
		return nil
	}
	order := map[string]int{}
	for i, h := range c.Hosts {
		order[h.String()] = i + 1
	}
	sort.SliceStable(problems, func(i, j int) bool { return order[problems[i].Host] < order[problems[j].Host] })
	return &PreflightError{problems}
}

type checker struct {
	cluster      *Cluster
	host         *Host
	distribution Distribution
	marks        []Marks
	clusterID    string
	upgrade      bool // the host's image is another one, and may be
	problems     []Problem
}

func (k *checker) add(check, fix, format string, args ...any) {
	k.problems = append(k.problems, Problem{k.host.String(), check, fmt.Sprintf(format, args...), fix})
}

func (k *checker) machine() {
	f := k.host.Facts
	if !f.Root {
		k.add("root", "log in as root, or as a user who may become root by sudo", "commands do not run as root")
	}
	if k.host.Platform == "" {
		k.add("platform", "use an image that was built for this platform (sealer build --platform)", "the image has no rootfs for linux/%s", f.Arch)
	}
	if !hostnameRule.MatchString(f.NodeName()) || len(f.Hostname) > 63 || f.NodeName() == "localhost" {
		k.add("hostname", "give each host a name of its own: hostnamectl set-hostname NAME", "the host name %q cannot be the name of a node", f.Hostname)
	}
	if f.MachineID == "" && f.Init != OpenRC { // systemd makes one; elsewhere kubelets do without
		k.add("machine-id", "run systemd-machine-id-setup on the host", "/etc/machine-id is empty")
	}
	for _, dir := range f.ReadOnly {
		k.add("read-only", "mount it for writing: mount -o remount,rw; where the kernel has made it read-only because of errors, dmesg tells",
			"%s is mounted read-only", dir)
	}
	for _, dir := range f.NoExec {
		if dir != "/etc" {
			k.add("noexec", "mount it without noexec: mount -o remount,exec", "programs in %s cannot be run: it is mounted noexec", dir)
		}
	}
	switch {
	case k.host.IP() == "":
		k.add("address", "give the host an address that other machines reach", "no interface has a global address")
	case !k.host.HasAddress():
		k.add("address", "name hosts by an address of their own: nodes register with it", "%s is on none of its interfaces", k.host.IP())
	}
}

// SELinuxProblems is of hosts whose SELinux enforces: a policy for what is installed is not part of an image, and pods would fail in ways that
// tell nobody why. accept says how the Clusterfile accepts it. Hosts on which the cluster runs have shown that it can.
func SELinuxProblems(h *Host, accept string) []Problem {
	if !h.Facts.SELinux || h.Facts.State.WasComplete() {
		return nil
	}
	return []Problem{{h.String(), "selinux", "SELinux enforces its policy, which knows nothing of what is installed",
		"make it permissive: setenforce 0, and SELINUX=permissive in /etc/selinux/config; or, where the host has a policy for it, accept it with " + accept}}
}

// InitProblems is for distributions whose services systemd or OpenRC may run.
func InitProblems(h *Host) []Problem {
	if h.Facts.Init == "systemd" || h.Facts.Init == OpenRC {
		return nil
	}
	return []Problem{{h.String(), "init", fmt.Sprintf("process 1 is %q, neither systemd nor OpenRC", h.Facts.Init), "use hosts that boot with systemd or OpenRC"}}
}

// SystemdProblems is for distributions that need systemd on a host.
func SystemdProblems(h *Host) []Problem {
	if h.Facts.Init == "systemd" {
		return nil
	}
	return []Problem{{h.String(), "systemd", fmt.Sprintf("process 1 is %q, not systemd", h.Facts.Init), "use hosts that boot with systemd"}}
}

// owner: whose host is this?
func (k *checker) owner() {
	s := k.host.Facts.State
	ours := ""
	if s != nil {
		ours = s.Runtime
	}
	const fixForeign = "remove what is installed there, or use other hosts; sealer never takes over a host that it did not install"
	for _, what := range foreign(k.host.Facts, k.marks, ours) {
		k.add("foreign", fixForeign, "%s is installed on it, and not by sealer", what)
	}
	if s == nil {
		if k.upgrade {
			k.add("state", "name the hosts of a cluster that sealer run has made", "it is no host of the cluster: sealer has installed nothing on it")
		}
		return
	}
	const fixOther = "use other hosts, or delete that cluster first: sealer delete --all"
	switch {
	case s.SchemaVersion != StateVersion:
		k.add("state", "use the version of sealer that installed it, or a later one", "its state has the version %q, this sealer reads %q", s.SchemaVersion, StateVersion)
	case s.Cluster != k.cluster.File.Name:
		k.add("state", fixOther, "it belongs to the cluster %q", s.Cluster)
	case k.clusterID != "" && s.ClusterID != k.clusterID:
		k.add("state", fixOther, "it belongs to another cluster named %q", s.Cluster)
	case s.Role != string(k.host.Spec.Role):
		k.add("role", fixOther, "it was installed as %s, not as %s", s.Role, k.host.Spec.Role)
	case s.Runtime != k.distribution.Name():
		k.add("runtime", fixOther, "it runs %s, the image has %s", s.Runtime, k.distribution.Name())
	case !k.upgrade && s.ImageDigest != k.cluster.Digest && (s.Complete || s.KubeVersion != k.cluster.KubeVersion()):
		k.add("image", "run the image that the cluster was made from, or delete the cluster first: sealer delete --all", "it was installed from the image %s (%s)", s.Image, s.ImageDigest)
	}
}

func (k *checker) resources() {
	f := k.host.Facts
	if f.State != nil {
		return // what is in use is in use by us
	}
	if f.DiskFree < k.host.DiskNeed {
		k.add("disk", "make room in the file system that holds /var/lib", "%s is free below /var/lib, the image needs %s", size(f.DiskFree), size(k.host.DiskNeed))
	}
	if k.host.Spec.Role == clusterfile.ControlPlane && !k.cluster.Registry.External {
		k.problems = append(k.problems, PortProblems(k.host, k.cluster.Registry.Port)...)
	}
}

// PortProblems tells which of the ports are in use on a host where sealer is not yet.
func PortProblems(h *Host, ports ...int) []Problem {
	if h.Facts.State != nil {
		return nil
	}
	var problems []Problem
	for _, port := range ports {
		i := slices.IndexFunc(h.Facts.Listening, func(l Listener) bool { return l.Port == port })
		if i < 0 {
			continue
		}
		by := ""
		if p := h.Facts.Listening[i].Process; p != "" {
			by = " by " + p
		}
		problems = append(problems, Problem{h.String(), "port", fmt.Sprintf("the port %d is in use%s", port, by), "stop what listens on the ports, or use other hosts"})
	}
	return problems
}

// checkTogether finds what two hosts may not have in common, and what they must.
func checkTogether(hosts []*Host) []Problem {
	var problems []Problem
	for _, c := range []struct {
		check, what, fix string
		of               func(*Host) string
	}{
		{"hostname", "the host name %s is also that of %s", "give each host a name of its own: hostnamectl set-hostname NAME", func(h *Host) string { return h.Facts.NodeName() }},
		{"machine-id", "the machine id %s is also that of %s", "on cloned hosts: rm /etc/machine-id, systemd-machine-id-setup, reboot", func(h *Host) string { return h.Facts.MachineID }},
	} {
		first := map[string]*Host{}
		for _, h := range hosts {
			value := c.of(h)
			if other := first[value]; value != "" && other != nil {
				problems = append(problems, Problem{h.String(), c.check, fmt.Sprintf(c.what, value, other), c.fix})
				continue
			}
			first[value] = h
		}
	}
	slow, fast := hosts[0], hosts[0]
	for _, h := range hosts {
		if h.Facts.Skew < slow.Facts.Skew {
			slow = h
		}
		if h.Facts.Skew > fast.Facts.Skew {
			fast = h
		}
	}
	if d := fast.Facts.Skew - slow.Facts.Skew; d > maxSkew {
		problems = append(problems, Problem{fast.String(), "clock",
			fmt.Sprintf("its clock is %s ahead of that of %s; %s is the limit", d.Round(time.Second), slow, maxSkew),
			"set the clocks, with chrony or systemd-timesyncd"})
	}
	// The one that is closest decides: another one that is off, too, has been told of.
	own := slow.Facts.Skew
	if fast.Facts.Skew.Abs() < own.Abs() {
		own = fast.Facts.Skew
	}
	if way := "behind"; own.Abs() > maxOwnSkew {
		if own < 0 {
			way = "ahead of"
		}
		problems = append(problems, Problem{"", "clock",
			fmt.Sprintf("the clock of this machine is %s %s those of the hosts; %s is the limit: certificates made there would not be valid here", own.Abs().Round(time.Second), way, maxOwnSkew),
			"set the clock of this machine, or those of the hosts"})
	}
	return problems
}

// DNSProblems is for distributions whose cluster DNS hands on what it does not know to the nameservers of its host: without
// one it does not start.
func DNSProblems(h *Host) []Problem {
	if len(h.Facts.Nameservers) > 0 || h.Facts.State != nil {
		return nil
	}
	return []Problem{{
		h.String(), "dns", "it has no nameserver, without which the cluster's DNS does not start",
		"name one in /etc/resolv.conf; where there is none an address that nobody has will do: nameserver 192.0.2.1",
	}}
}

func size(n int64) string {
	const gi = 1 << 30
	if n < gi {
		return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gi)
}
