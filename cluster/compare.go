// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// Op is what a Change does.
type Op string

// The operations.
const (
	OpAdd    Op = "add"
	OpChange Op = "change"
	OpRemove Op = "remove"
)

// What a Change is about.
const (
	AboutCluster      = "cluster"
	AboutHost         = "host"
	AboutInstallation = "installation"
	AboutImage        = "image"
	AboutVersion      = "version"
	AboutRegistry     = "registry"
	AboutLabel        = "label"
	AboutTaint        = "taint"
	AboutEnvironment  = "environment"
	AboutConfig       = "Config"
	AboutSetting      = "setting"
	AboutAliases      = "host aliases"
	AboutPlugin       = "plugin"
	AboutApplication  = "application"
	AboutEndpoint     = "endpoint"
	AboutStep         = "step"
)

// Change is one difference between what a cluster is and what it is to be.
type Change struct {
	Op    Op     `json:"op"`
	About string `json:"about"`
	Host  string `json:"host,omitempty"` // empty where it is not one host's
	Name  string `json:"name,omitempty"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	Note  string `json:"note,omitempty"`
}

// String is the line of a plan: "~ 10.0.0.2: label zone: a → b".
func (c Change) String() string {
	s := map[Op]string{OpAdd: "+ ", OpChange: "~ ", OpRemove: "- "}[c.Op]
	if c.Host != "" {
		s += c.Host + ": "
	}
	s += c.words()
	switch {
	case c.From != "" && c.To != "":
		s += fmt.Sprintf(": %s → %s", c.From, c.To)
	case c.To != "" && c.About != AboutHost:
		s += ": " + c.To
	case c.From != "" && c.About != AboutHost:
		s += ": " + c.From
	}
	if c.Note != "" {
		s += " (" + c.Note + ")"
	}
	return s
}

func (c Change) words() string {
	switch c.About {
	case AboutHost:
		return cmp.Or(c.To, c.From)
	case AboutStep:
		return c.Name
	case "":
		return c.Name
	}
	return strings.TrimSpace(c.About + " " + c.Name)
}

// Drift is the difference as a sentence, as Status tells it.
func (c Change) Drift() string {
	of := ""
	if c.Host != "" {
		of = c.Host + ": "
	}
	what := strings.TrimSpace(c.About + " " + c.Name)
	switch {
	case c.About == AboutHost && c.Op == OpAdd:
		return of + "it is in the Clusterfile, and nothing of the cluster is on it"
	case c.About == AboutHost:
		return of + "it is a host of the cluster, and the Clusterfile does not name it"
	case c.About == AboutInstallation:
		return of + c.Note
	case c.About == AboutEndpoint && c.Note != "":
		return fmt.Sprintf("the endpoint is on its way from %s to %s", c.From, c.To)
	case c.About == AboutApplication && c.Note != "" && c.From == "":
		return of + "the " + what + ": " + c.Note
	case c.Op == OpAdd:
		return of + "the " + what + " is missing"
	case c.Op == OpRemove:
		return of + "the " + what + " is there, and not in the Clusterfile"
	case c.From == "" && c.To == "":
		return of + "the " + what + " is another"
	}
	return fmt.Sprintf("%sthe %s is %s, not %s", of, what, c.From, c.To)
}

// comparison is the two sides of a cluster: what it is to be, and what was found. Apply and Status compare by it.
type comparison struct {
	want  *clusterfile.File
	was   *clusterfile.File // what the cluster was made from, as its control planes keep it; nil: not known
	going []clusterfile.Host
	hosts []*runtime.Host // as found, with those that are lost
	nodes []kube.Node
	asked bool // the cluster has said which nodes there are
	// records are the applications that the cluster keeps; missing is what is gone of them, found the images of those that the Clusterfile
	// names, both by name. prune: those that were run by hand go, too.
	records []*application.Record
	missing map[string]application.Notes
	found   map[string]foundImage
	prune   bool
	// image, digest and version are to run. An empty digest: only the name of the image is known.
	image, digest, version string
}

// host is what was found of a machine; nil: nothing.
func (c comparison) host(m clusterfile.Host) *runtime.Host {
	for _, h := range c.hosts {
		if h.Spec.Address == m.Address {
			return h
		}
	}
	return nil
}

// member: the host holds something of the cluster.
func (c comparison) member(m clusterfile.Host) *runtime.Host {
	if h := c.host(m); h != nil && h.Lost == nil && h.Facts.State != nil {
		return h
	}
	return nil
}

// joins are the hosts that the cluster is to have and has not.
func (c comparison) joins() []Change {
	var list []Change
	for _, m := range c.want.Machines() {
		if h := c.host(m); h != nil && h.Lost == nil && h.Facts.State == nil {
			list = append(list, Change{Op: OpAdd, About: AboutHost, Host: m.String(), To: role(m)})
		}
	}
	return list
}

// leaves are the hosts that the cluster has and is not to have, workers first.
func (c comparison) leaves() []Change {
	var list []Change
	for _, m := range slices.SortedStableFunc(slices.Values(c.going), func(a, b clusterfile.Host) int { return -cmp.Compare(a.Role, b.Role) }) {
		note := "its pods leave, and it is put back as it was before"
		if h := c.host(m); h == nil || h.Lost != nil {
			note = "it cannot be reached, and is taken out as it is; " + cleanedLater(c.want.Name, m)
		}
		list = append(list, Change{Op: OpRemove, About: AboutHost, Host: m.String(), From: role(m), Note: note})
	}
	return list
}

// role is the word for people.
func role(m clusterfile.Host) string {
	if m.Role == clusterfile.ControlPlane {
		return "control plane"
	}
	return string(m.Role)
}

// unfinished are hosts of which an installation has not come to its end.
func (c comparison) unfinished() []Change {
	var list []Change
	for _, m := range c.want.Machines() {
		if h := c.member(m); h != nil && !h.Facts.State.WasComplete() {
			list = append(list, Change{Op: OpChange, About: AboutInstallation, Host: h.String(), Note: "its installation has not come to its end"})
		}
	}
	return list
}

// images are the hosts that hold another image than the one that is to run, or whose kubelet is of another version.
func (c comparison) images() []Change {
	var list []Change
	for _, m := range slices.Concat(c.want.Machines(), c.going) {
		h := c.member(m)
		if h == nil || !h.Facts.State.Complete && h.Facts.State.PreviousDigest == "" {
			continue
		}
		s := h.Facts.State
		leaving := slices.ContainsFunc(c.going, func(g clusterfile.Host) bool { return g.Address == m.Address })
		switch {
		case leaving && m.Role == clusterfile.Worker: // it goes as it is
		case c.digest != "" && s.ImageDigest != c.digest, c.digest == "" && c.image != "" && kube.ImageName(s.Image) != kube.ImageName(c.image):
			list = append(list, Change{Op: OpChange, About: AboutImage, Host: h.String(), From: s.Image, To: c.image, Note: versions(s.KubeVersion, c.version)})
		case s.PreviousDigest != "":
			list = append(list, Change{Op: OpChange, About: AboutImage, Host: h.String(), From: s.PreviousImage, To: s.Image, Note: "the upgrade has not come to its end"})
		}
	}
	return list
}

// versions are two of them, where both are known and differ.
func versions(from, to string) string {
	if from == "" || to == "" || from == to {
		return ""
	}
	return from + " → " + to
}

// kubelets are the nodes that report another version than that of the image on their hosts.
func (c comparison) kubelets() []Change {
	var list []Change
	for _, m := range c.want.Machines() {
		h := c.member(m)
		if h == nil || !h.Facts.State.Complete || h.Facts.State.PreviousDigest != "" {
			continue
		}
		n := c.node(h)
		if n == nil {
			continue
		}
		have, want := n.Status.NodeInfo.KubeletVersion, h.Facts.State.KubeVersion
		if have != "" && want != "" && upstream(have) != upstream(want) {
			list = append(list, Change{Op: OpChange, About: AboutVersion, Host: h.String(), Name: "of the kubelet", From: have, To: want})
		}
	}
	return list
}

// upstream is v1.36.3 of v1.36.3+k3s1.
func upstream(version string) string {
	v, _, _ := strings.Cut(version, "+")
	return v
}

// node is the node of a host; nil where there is none, or the cluster could not be asked.
func (c comparison) node(h *runtime.Host) *kube.Node {
	for i, n := range c.nodes {
		if n.Metadata.Name == h.Facts.NodeName() {
			return &c.nodes[i]
		}
	}
	return nil
}

// registries are the control planes that serve under another address than they are to.
func (c comparison) registries() []Change {
	var list []Change
	if c.was != nil && !c.want.Registry.Same(c.was.Registry) {
		change := switched(c.was.Registry, c.want.Registry)
		if change.About == "" {
			change = Change{Op: OpChange, About: AboutRegistry, Note: "its login, CA or names"}
		}
		list = append(list, change)
	}
	want := runtime.Registry{Domain: c.want.Registry.Domain, Port: c.want.Registry.Port}.Endpoint()
	for _, m := range c.want.ControlPlanes() {
		h := c.member(m)
		if h == nil {
			continue
		}
		have, _, _ := strings.Cut(h.Facts.State.Steps[stepRegistryInit], " ")
		if have != "" && c.want.Registry.External != nil {
			list = append(list, Change{Op: OpRemove, About: AboutRegistry, Host: h.String(), From: have, Note: "when all hosts have their images from elsewhere"})
			continue
		}
		if have != "" && have != want {
			list = append(list, Change{Op: OpChange, About: AboutRegistry, Host: h.String(), From: have, To: want})
		}
	}
	return list
}

// marking is what labels and taints of nodes are to be changed. What others have put on nodes stays: only what the
// Clusterfile said before, and says no more, is taken off.
func (c comparison) marking() []Change {
	if !c.asked {
		return nil
	}
	var list []Change
	for _, m := range c.want.Machines() {
		h := c.member(m)
		if h == nil || !h.Facts.State.Complete {
			continue
		}
		n := c.node(h)
		if n == nil {
			continue
		}
		add := func(op Op, about, name, from, to string) {
			list = append(list, Change{Op: op, About: about, Host: h.String(), Name: name, From: from, To: to})
		}
		want, was := labelsOf(m), labelsOf(c.before(m))
		for _, k := range slices.Sorted(maps.Keys(want)) {
			switch have, there := n.Metadata.Labels[k]; {
			case !there:
				add(OpAdd, AboutLabel, k, "", want[k])
			case have != want[k]:
				add(OpChange, AboutLabel, k, quoted(have), quoted(want[k]))
			}
		}
		for _, k := range stale(*n, want, was) {
			add(OpRemove, AboutLabel, k, n.Metadata.Labels[k], "")
		}
		for _, t := range m.Taints {
			if hasTaint(*n, t) != t.Remove {
				continue
			}
			op := OpAdd
			if t.Remove {
				op, t.Remove = OpRemove, false
			}
			add(op, AboutTaint, t.String(), "", "")
		}
		for _, t := range staleTaints(*n, m, c.before(m)) {
			add(OpRemove, AboutTaint, t.String(), "", "")
		}
	}
	return list
}

// quoted shows an empty value.
func quoted(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// before is what was said of the host when the cluster was last changed.
func (c comparison) before(m clusterfile.Host) clusterfile.Host { return hostOf(c.was, m.Address) }

// hostOf is a host of a Clusterfile, with what plugins say of it; a host of no words where it is not there.
func hostOf(f *clusterfile.File, address string) clusterfile.Host {
	if f != nil {
		for _, m := range f.Machines() {
			if m.Address == address {
				return m
			}
		}
	}
	return clusterfile.Host{Address: address}
}

// labelsOf are the labels of a host's node that the Clusterfile asks for.
func labelsOf(m clusterfile.Host) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, m.Labels)
	for _, role := range m.Roles {
		labels["node-role.kubernetes.io/"+role] = ""
	}
	return labels
}

// stale are the labels of a node that were asked for before, and are not now.
func stale(n kube.Node, want, was map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(was)) {
		_, wanted := want[k]
		if have, there := n.Metadata.Labels[k]; there && !wanted && have == was[k] {
			list = append(list, k)
		}
	}
	return list
}

// staleTaints are those of a node that were asked for before, and are not now.
func staleTaints(n kube.Node, want, was clusterfile.Host) []clusterfile.Taint {
	var list []clusterfile.Taint
	for _, t := range was.Taints {
		same := func(w clusterfile.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect }
		if !t.Remove && hasTaint(n, t) && !slices.ContainsFunc(want.Taints, same) {
			list = append(list, t)
		}
	}
	return list
}
