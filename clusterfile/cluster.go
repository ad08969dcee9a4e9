// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var (
	// nameRule: the name is a folder, and part of names in the cluster (RFC 1123 label).
	nameRule   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	domainRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	envRule    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func (n *node) text(path ...any) string {
	for _, p := range path {
		if n = n.child(p); n == nil {
			return ""
		}
	}
	text, _ := n.scalar.(string)
	return text
}

func (n *node) texts(key string) []string {
	list := n.child(key)
	if list == nil || list.kind != listNode {
		return nil
	}
	texts := make([]string, len(list.values))
	for i, v := range list.values {
		texts[i], _ = v.scalar.(string)
	}
	return texts
}

// cluster reads a Cluster document.
func (s *source) cluster(f *File, doc *node) {
	f.Name = doc.text("metadata", "name")
	if f.Name == "" {
		f.Name = DefaultName
	}
	if !nameRule.MatchString(f.Name) {
		s.fail(doc.at("metadata", "name"), "the cluster's name %q must be lower-case letters, digits and dashes", f.Name)
	}
	spec := doc.child("spec")
	if spec == nil {
		return
	}
	f.Image = spec.text("image")
	f.Env = s.variables(spec)
	if cmd := spec.child("cmd"); cmd != nil && cmd.kind == listNode {
		f.Cmd = spec.texts("cmd")
	}
	if apps := spec.child("appNames"); apps != nil && apps.kind == listNode {
		f.Apps = names(spec.texts("appNames"))
	}
	switch t := spec.text("containerRuntime", "type"); {
	case t == "" || slices.Contains(containerRuntimes(), t):
	case t == "docker":
		s.fail(spec.at("containerRuntime", "type"), "the container runtime docker is not supported: kubelets do not speak to it since Kubernetes 1.24, and sealer does not "+
			"bring the program between them, cri-dockerd; containerd runs the same images, and k3s, which has that program, takes docker: true in a K3s document")
	default:
		s.fail(spec.at("containerRuntime", "type"), "the container runtime %q is not supported: only %s", t, strings.Join(containerRuntimes(), ", "))
	}
	s.aliases(f, spec)
	f.Registry = s.registry(spec)
	f.Endpoint = s.endpoint(spec)
	s.machines(f, spec)
}

// containerRuntimes are those that sealer brings.
func containerRuntimes() []string { return []string{"containerd"} }

func (s *source) environment(n *node) map[string]string {
	env := map[string]string{}
	for i, kv := range n.texts("env") {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !envRule.MatchString(name) {
			s.fail(n.at("env", i), "%q is not NAME=value", name)
			continue
		}
		env[name] = value
	}
	return env
}

// variables are those of an env of the cluster or of hosts, which are checked when the whole file is known.
func (s *source) variables(n *node) map[string]string {
	for i, kv := range n.texts("env") {
		if name, value, ok := strings.Cut(kv, "="); ok {
			s.vars = append(s.vars, variable{name, value, n.at("env", i)})
		}
	}
	return s.environment(n)
}

func (s *source) aliases(f *File, spec *node) {
	for _, n := range spec.list("hostAliases") {
		a := Alias{IP: n.text("ip"), Hostnames: n.texts("hostnames")}
		if _, err := netip.ParseAddr(a.IP); err != nil && a.IP != "" {
			s.fail(n.at("ip"), "%q is not an IP address", a.IP)
		}
		for j, h := range a.Hostnames {
			if !domainRule.MatchString(strings.ToLower(h)) {
				s.fail(n.at("hostnames", j), "%q is not a host name", h)
			}
		}
		f.Aliases = append(f.Aliases, a)
	}
}

func (s *source) ssh(n *node) SSH {
	c := n.child("ssh")
	if c == nil {
		return SSH{}
	}
	ssh := s.login(c)
	ssh.SudoPassword = s.secret(c, "sudoPasswd")
	if j := c.child("jump"); j != nil && j.kind == mappingNode {
		ssh.Jump = &Jump{Host: strings.TrimSuffix(strings.TrimPrefix(j.text("host"), "["), "]"), SSH: s.login(j)}
		if hasPort(j.text("host")) {
			s.fail(j.child("host"), "the jump host %q names a port: that goes into the field port beside it", j.text("host"))
		}
	}
	return ssh
}

// login reads the fields that a host and a jump host have in common.
func (s *source) login(n *node) SSH {
	ssh := SSH{
		User: n.text("user"), Password: s.secret(n, "passwd"),
		KeyFile: n.text("pk"), KeyPassword: s.secret(n, "pkPasswd"),
	}
	if p := n.child("port"); p != nil && p.kind == scalarNode {
		ssh.Port, _ = port(p.scalar)
	}
	return ssh
}

// secret reads a password, or where one is to be had from. One that stands there in clear is noted.
func (s *source) secret(n *node, key string) Secret {
	value := Secret(n.text(key))
	if _, reference := ParseReference(value); value != "" && !reference {
		s.clear = append(s.clear, Place{s.name, n.child(key).line, key})
	}
	return value
}

func (s *source) machines(f *File, spec *node) {
	base := s.ssh(spec)
	f.SSH = base
	groups := spec.list("hosts")
	if len(groups) == 0 {
		return // this machine
	}
	before, understood := len(s.errs), !spec.child("hosts").partial
	seen := map[string]bool{}
	for _, g := range groups {
		understood = understood && !g.partial
		template := Host{Env: s.variables(g), SSH: s.ssh(g).Over(base)}
		template.Role, template.Roles = s.roles(g)
		if labels := g.child("labels"); labels != nil && labels.kind == mappingNode {
			template.Labels = map[string]string{}
			for i, k := range labels.keys {
				template.Labels[k], _ = labels.values[i].scalar.(string)
				if err := checkLabel("label", k, template.Labels[k]); err != nil {
					s.fail(labels.keyNodes[i], "%w", err)
				}
			}
		}
		for i, text := range g.texts("taints") {
			t, err := ParseTaint(text)
			if err != nil {
				s.fail(g.at("taints", i), "%w", err)
				continue
			}
			template.Taints = append(template.Taints, t)
		}
		for i, text := range g.texts("ips") {
			addresses, err := ParseAddresses(text)
			if err != nil {
				s.fail(g.at("ips", i), "%w", err)
			}
			for _, a := range addresses {
				if seen[a] {
					s.fail(g.at("ips", i), "the host %s is there twice", a)
					continue
				}
				seen[a] = true
				h := template
				h.Address, h.Env, h.Labels = a, maps.Clone(h.Env), maps.Clone(h.Labels)
				f.Hosts = append(f.Hosts, h)
			}
		}
	}
	if !understood || len(s.errs) > before {
		return
	}
	s.hosts = spec.child("hosts")
	if len(f.ControlPlanes()) == 0 {
		s.fail(s.hosts, "no host has the role %s", ControlPlane)
	}
}

// roleWords are what the two roles are called, by sealer and by Kubernetes.
func roleWords() map[string]Role {
	return map[string]Role{"master": ControlPlane, "control-plane": ControlPlane, "node": Worker, "worker": Worker}
}

// roles reads the words of sealer and of Kubernetes.
func (s *source) roles(g *node) (Role, []string) {
	role, more := Role(""), []string(nil)
	for i, text := range g.texts("roles") {
		r, known := roleWords()[text]
		if !known {
			if !nameRule.MatchString(text) {
				s.fail(g.at("roles", i), "%q is not a role", text)
			} else if hint := near(text, slices.Collect(maps.Keys(roleWords()))); hint != "" {
				s.fail(g.at("roles", i), "unknown role %q%s", text, hint)
			} else {
				more = append(more, text)
			}
			continue
		}
		if role != "" && role != r {
			s.fail(g.at("roles", i), "a host is either %s or %s", ControlPlane, Worker)
		}
		role = r
	}
	if role == "" && len(more) > 0 && len(g.texts("roles")) == len(more) {
		s.fail(g.at("roles"), "the hosts need the role %s or %s", ControlPlane, Worker)
	}
	return role, more
}

// Validate checks what a caller has put together or changed, after ResolveHosts. It reports every mistake by its path.
func (f *File) Validate() error { return f.validate(false) }

// validate takes names for addresses as well, where there may be some still.
func (f *File) validate(names bool) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameRule.MatchString(f.Name) {
		fail("name: %q must be lower-case letters, digits and dashes", f.Name)
	}
	if err := f.Registry.validate(); err != nil {
		errs = append(errs, err)
	}
	for _, m := range f.Endpoint.mistakes() {
		fail("%s: %s", strings.TrimSuffix("controlPlaneEndpoint."+m.field, "."), m.what)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Env)) {
		if !envRule.MatchString(name) {
			fail("env: %q is not a name", name)
		}
	}
	seen := map[string]bool{}
	for i, h := range f.Hosts {
		if _, err := netip.ParseAddr(h.Address); err != nil && (!names || !isHostName(h.Address)) {
			fail("hosts[%d]: %q is not an IP address", i, h.Address)
		}
		if seen[h.Address] {
			fail("hosts[%d]: %s is there twice", i, h.Address)
		}
		seen[h.Address] = true
		if h.Role != ControlPlane && h.Role != Worker {
			fail("hosts[%d]: the role %q is neither %s nor %s", i, h.Role, ControlPlane, Worker)
		}
	}
	if len(f.Hosts) > 0 && len(f.ControlPlanes()) == 0 {
		fail("hosts: none has the role %s", ControlPlane)
	}
	return errors.Join(errs...)
}

// FromFlags makes the Clusterfile of --masters, --nodes and the SSH flags.
// Both lists are as ParseAddresses reads them; with neither, the cluster is this machine.
func FromFlags(controlPlanes, workers string, ssh SSH) (*File, error) {
	f := &File{
		Name: DefaultName, Env: map[string]string{}, Kubeadm: map[string]map[string]any{},
		Registry: defaultRegistry(),
	}
	for _, group := range []struct {
		list string
		role Role
	}{{controlPlanes, ControlPlane}, {workers, Worker}} {
		addresses, err := ParseAddresses(group.list)
		if err != nil {
			return nil, fmt.Errorf("reading the addresses of the %s hosts: %w", group.role, err)
		}
		for _, a := range addresses {
			f.Hosts = append(f.Hosts, Host{Address: a, Role: group.role, SSH: ssh})
		}
	}
	if err := f.validate(true); err != nil {
		return nil, err
	}
	return f, nil
}
