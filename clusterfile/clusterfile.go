// SPDX-License-Identifier: Apache-2.0

// Package clusterfile is the desired state of a cluster: the Clusterfile's
// documents, read strictly, and the same made from command line flags.
package clusterfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// DefaultName is the cluster's name where none is given, as in sealer.
const DefaultName = "my-cluster"

// The registry's address where none is given, as in sealer.
const (
	DefaultRegistryDomain = "sea.hub"
	DefaultRegistryPort   = 5000
)

// File is a whole Clusterfile. Parse and FromFlags make one that holds together;
// after changing it by hand, call Validate.
type File struct {
	Name    string // of the cluster
	Image   string // reference of the ClusterImage; may be empty where the caller knows it
	Env     map[string]string
	Cmd     []string // replaces what the image launches where it is not nil
	Apps    []string // replaces the image's LAUNCH where it is not nil; they go before Cmd
	Hosts   []Host   // none: the cluster is this machine
	SSH     SSH      `json:"-"` // what all hosts have in common; it stands in each of Hosts, too
	Aliases []Alias
	// Registry is where hosts have the packed images from.
	Registry Registry
	// Endpoint is where workers and users find the API servers.
	Endpoint Endpoint `json:",omitzero"`
	// Configs are files put into the rootfs before it is used, in order.
	Configs []Config
	// Applications change what the image's applications do.
	Applications []Application
	// ApplicationImages run on the cluster beside its own image; Apply sees to it.
	ApplicationImages []ApplicationImage `json:",omitempty"`
	// Plugins are done at their phases, in the order of their names.
	Plugins []Plugin
	// PluginLines are where plugins say something of hosts.
	PluginLines []PluginLine `json:"-"`
	// ClearText are the places where the file has a secret in clear.
	ClearText []Place
	// Kubeadm holds the documents of kubeadm's APIs by kind, merged over our defaults later.
	Kubeadm map[string]map[string]any
	// K0s is the ClusterConfig of k0s, merged over our defaults later; nil where there is none.
	K0s map[string]any
	// K3s is what k3s is to be told beyond what sealer says itself; nil where the file has no document of this kind.
	K3s *K3s `json:",omitempty"`
}

// Host is one machine of the cluster.
type Host struct {
	Address string // IP address, a host name until ResolveHosts; empty: this machine, without SSH
	Role    Role
	Roles   []string // more roles: they become the label node-role.kubernetes.io/ROLE
	Env     map[string]string
	Labels  map[string]string
	Taints  []Taint
	SSH     SSH
	// Hostname is what the host is to be called before anything is installed; empty: as it is.
	Hostname string
}

// Local says that the host is this machine.
func (h Host) Local() bool { return h.Address == "" }

func (h Host) String() string {
	if h.Local() {
		return "localhost"
	}
	return h.Address
}

// Role is what a host does in the cluster.
type Role string

// The two roles. A control plane host runs no ordinary pods unless its taint is removed.
const (
	ControlPlane Role = "control-plane"
	Worker       Role = "worker"
)

// SSH says how to log in. The zero value is root, port 22, the user's keys.
type SSH struct {
	User         string
	Port         int
	Password     Secret
	KeyFile      string
	KeyPassword  Secret
	SudoPassword Secret // where User is not root; default Password
	Jump         *Jump  // through which the host is reached; nil: directly
}

// Jump is a host through which others are reached.
type Jump struct {
	Host string // name or address
	SSH
}

// Over fills what s leaves open with what base says.
func (s SSH) Over(base SSH) SSH {
	if s.User == "" {
		s.User = base.User
	}
	if s.Port == 0 {
		s.Port = base.Port
	}
	if s.Password == "" {
		s.Password = base.Password
	}
	if s.KeyFile == "" {
		s.KeyFile, s.KeyPassword = base.KeyFile, base.KeyPassword
	}
	if s.SudoPassword == "" {
		s.SudoPassword = base.SudoPassword
	}
	if s.Jump == nil {
		s.Jump = base.Jump
	}
	return s
}

// Taint is a node's taint, or with Remove the wish that it is not there.
type Taint struct {
	Key, Value, Effect string
	Remove             bool
}

func taintEffects() []string { return []string{"NoSchedule", "PreferNoSchedule", "NoExecute"} }

// ParseTaint reads kubectl's form: key[=value]:effect, with a "-" at the end to remove it.
func ParseTaint(s string) (Taint, error) {
	text, remove := strings.CutSuffix(s, "-")
	keyValue, effect, ok := strings.Cut(text, ":")
	key, value, _ := strings.Cut(keyValue, "=")
	switch {
	case !ok || key == "":
		return Taint{}, fmt.Errorf("%q is not a taint: write key=value:effect", s)
	case !slices.Contains(taintEffects(), effect):
		return Taint{}, fmt.Errorf("%q: the effect %q is not one of %s%s", s, effect, strings.Join(taintEffects(), ", "), near(effect, taintEffects()))
	}
	if err := checkLabel("taint", key, value); err != nil {
		return Taint{}, err
	}
	return Taint{Key: key, Value: value, Effect: effect, Remove: remove}, nil
}

func (t Taint) String() string {
	s := t.Key
	if t.Value != "" {
		s += "=" + t.Value
	}
	s += ":" + t.Effect
	if t.Remove {
		s += "-"
	}
	return s
}

// Alias is a line for /etc/hosts.
type Alias struct {
	IP        string
	Hostnames []string
}

// ControlPlanes are the control plane hosts, the first one first.
func (f *File) ControlPlanes() []Host { return f.role(ControlPlane) }

// Workers are the worker hosts.
func (f *File) Workers() []Host { return f.role(Worker) }

func (f *File) role(r Role) []Host {
	return slices.DeleteFunc(slices.Clone(f.Machines()), func(h Host) bool { return h.Role != r })
}

// Machines are the hosts, control planes first; this machine where none are given.
func (f *File) Machines() []Host {
	if len(f.Hosts) == 0 {
		return []Host{{Role: ControlPlane}}
	}
	hosts := make([]Host, len(f.Hosts))
	for i, h := range f.Hosts {
		hosts[i] = f.applyPlugins(h)
	}
	slices.SortStableFunc(hosts, func(a, b Host) int {
		return strings.Compare(string(a.Role), string(b.Role)) // control-plane < worker
	})
	return hosts
}

// HostEnv is the cluster's environment with the host's own over it.
func (f *File) HostEnv(h Host) map[string]string {
	env := maps.Clone(f.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, h.Env)
	return env
}
