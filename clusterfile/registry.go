// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Registry says where hosts have the packed images from: a registry that the cluster's control planes serve, or External.
type Registry struct {
	// Domain and Port are what the cluster's own registry is called.
	Domain string
	Port   int
	// Username and Password are asked of its clients. Where they are empty, sealer makes them.
	Username string `json:",omitempty"`
	Password Secret `json:"-"`
	// CA signs its certificates, CAKey is the CA's key, both PEM, or references until ResolveSecrets. Where they are empty, sealer makes them.
	CA    string `json:",omitempty"`
	CAKey Secret `json:"-"`
	// Names are further host names and IP addresses in its certificates.
	Names []string `json:",omitempty"`
	// External is a registry of the user's own, in the place of the cluster's; nil: there is none.
	External *ExternalRegistry `json:",omitempty"`
}

// ExternalRegistry is a registry that the user runs. It is always asked over TLS.
type ExternalRegistry struct {
	Domain string // host name or IP address
	Port   int
	// Path is a prefix of the repositories, such as a project of Harbor; may be empty.
	Path string `json:",omitempty"`
	// Username and Password may push, and pull. Both empty: everybody may.
	Username string `json:",omitempty"`
	Password Secret `json:"-"`
	// CA has signed its certificate, in PEM, or a reference until ResolveSecrets. Empty: one that hosts trust anyway.
	CA string `json:",omitempty"`
}

// Host is the registry as references name it: without the port of HTTPS.
func (e *ExternalRegistry) Host() string {
	if e.Port != defaultExternalPort {
		return e.Endpoint()
	}
	if strings.Contains(e.Domain, ":") {
		return "[" + e.Domain + "]"
	}
	return e.Domain
}

// Endpoint is host:port.
func (e *ExternalRegistry) Endpoint() string { return net.JoinHostPort(e.Domain, strconv.Itoa(e.Port)) }

const defaultExternalPort = 443

// pathRule is distribution's for repositories.
var pathRule = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

func defaultRegistry() Registry {
	return Registry{Domain: DefaultRegistryDomain, Port: DefaultRegistryPort}
}

// said tells whether anything of it was chosen.
func (r Registry) said() bool { return !reflect.DeepEqual(r, defaultRegistry()) }

// Same tells whether both are one but for the Domain and Port of the cluster's own, secrets included.
func (r Registry) Same(other Registry) bool {
	other.Domain, other.Port = r.Domain, r.Port
	if len(r.Names) == 0 && len(other.Names) == 0 {
		other.Names = r.Names
	}
	return reflect.DeepEqual(r, other)
}

func (s *source) registry(spec *node) Registry {
	r := defaultRegistry()
	both := spec.child("registry")
	if both == nil {
		return r
	}
	local, external := both.child("localRegistry"), both.child("externalRegistry")
	if local != nil && local.kind == mappingNode {
		s.localRegistry(&r, local)
	}
	if external != nil && external.kind == mappingNode {
		if local != nil && local.kind == mappingNode {
			s.fail(both.keyNode("externalRegistry"), "hosts have their images from the localRegistry or from the externalRegistry: choose one")
		}
		r.External = s.externalRegistry(external)
	}
	return r
}

func (s *source) localRegistry(r *Registry, n *node) {
	if d := n.text("domain"); d != "" {
		r.Domain = d
	}
	if p := n.child("port"); p != nil && p.kind == scalarNode {
		r.Port, _ = port(p.scalar)
	}
	if ha := n.child("ha"); ha != nil && ha.scalar == false {
		s.fail(ha, "every control plane serves the packed images: ha cannot be false")
	}
	r.Username, r.Password = n.text("username"), s.secret(n, "password")
	if cert := n.child("cert"); cert != nil && cert.kind == mappingNode {
		r.CA, r.CAKey = cert.text("ca"), s.secret(cert, "caKey")
		if names := cert.child("subjectAltName"); names != nil {
			r.Names = append(names.texts("dnsNames"), names.texts("ips")...)
		}
	}
	for _, err := range r.mistakes() {
		s.fail(n.at(strings.Split(err.field, ".")[0]), "%s", err.what)
	}
}

func (s *source) externalRegistry(n *node) *ExternalRegistry {
	e := &ExternalRegistry{
		Domain: strings.Trim(n.text("domain"), "[]"), Port: defaultExternalPort, Path: strings.Trim(n.text("path"), "/"),
		Username: n.text("username"), Password: s.secret(n, "password"), CA: n.text("ca"),
	}
	if p := n.child("port"); p != nil && p.kind == scalarNode {
		e.Port, _ = port(p.scalar)
	}
	for _, err := range e.mistakes() {
		if err.field != "domain" || e.Domain != "" {
			s.fail(n.at(err.field), "%s", err.what)
		}
	}
	return e
}

// mistake is what is wrong with a field.
type mistake struct{ field, what string }

func (r Registry) mistakes() []mistake {
	var list []mistake
	add := func(field, format string, args ...any) {
		list = append(list, mistake{field, fmt.Sprintf(format, args...)})
	}
	if !domainRule.MatchString(r.Domain) || !strings.Contains(r.Domain, ".") {
		add("domain", "%q is not a domain name with a dot in it", r.Domain)
	}
	if r.Port < 1 || r.Port > 65535 {
		add("port", "%d is not a port", r.Port)
	}
	if (r.Username == "") != (r.Password == "") {
		add("username", "the registry's username and password go together")
	}
	if strings.ContainsAny(r.Username, ":\n") {
		add("username", "the registry's username cannot have a colon")
	}
	if len(r.Password) > maxPassword {
		add("password", "the registry's password is longer than %d bytes", maxPassword)
	}
	if (r.CA == "") != (r.CAKey == "") {
		add("cert.ca", "the CA of the registry's certificates and its caKey go together: each control plane has a certificate of its own, which it signs")
	}
	if !isPEM(r.CA) {
		add("cert.ca", "the CA of the registry's certificates is no certificate in PEM: write file:PATH")
	}
	for _, name := range r.Names {
		if _, err := netip.ParseAddr(name); err != nil && !domainRule.MatchString(name) {
			add("cert.subjectAltName", "%q is neither a host name nor an IP address", name)
		}
	}
	return list
}

// maxPassword is how much of a password bcrypt looks at (golang.org/x/crypto/bcrypt).
const maxPassword = 72

func (e *ExternalRegistry) mistakes() []mistake {
	var list []mistake
	add := func(field, format string, args ...any) {
		list = append(list, mistake{field, fmt.Sprintf(format, args...)})
	}
	if _, err := netip.ParseAddr(e.Domain); err != nil && !domainRule.MatchString(e.Domain) {
		add("domain", "%q is neither a host name nor an IP address", e.Domain)
	}
	if e.Port < 1 || e.Port > 65535 {
		add("port", "%d is not a port", e.Port)
	}
	if e.Path != "" && !pathRule.MatchString(e.Path) {
		add("path", "%q cannot be the beginning of a repository", e.Path)
	}
	if (e.Username == "") != (e.Password == "") {
		add("username", "the registry's username and password go together")
	}
	if !isPEM(e.CA) {
		add("ca", "the CA of the registry is no certificate in PEM: write file:PATH")
	}
	return list
}

// isPEM: it is a certificate, says where one is to be had from, or is not there.
func isPEM(text string) bool {
	if text == "" {
		return true
	}
	if _, reference := ParseReference(Secret(text)); reference {
		return true
	}
	block, _ := pem.Decode([]byte(text))
	return block != nil && block.Type == "CERTIFICATE"
}

func (r Registry) validate() error {
	var errs []error
	for _, m := range r.mistakes() {
		errs = append(errs, errors.New("registry."+m.field+": "+m.what))
	}
	if r.External != nil {
		for _, m := range r.External.mistakes() {
			errs = append(errs, errors.New("registry.externalRegistry."+m.field+": "+m.what))
		}
	}
	return errors.Join(errs...)
}

// references are what may have to be had from elsewhere: the first line of it, and for texts all of it.
func (r *Registry) references() (secrets []*Secret, texts []*string) {
	secrets, texts = []*Secret{&r.Password}, []*string{&r.CA}
	if r.External != nil {
		external := *r.External
		r.External = &external
		secrets, texts = append(secrets, &external.Password), append(texts, &external.CA)
	}
	return secrets, texts
}

// savedRegistry is a Registry in a Clusterfile.
type savedRegistry struct {
	Local    *savedLocal    `yaml:"localRegistry,omitempty"`
	External *savedExternal `yaml:"externalRegistry,omitempty"`
}

type savedLocal struct {
	Domain   string     `yaml:"domain"`
	Port     int        `yaml:"port"`
	Username string     `yaml:"username,omitempty"`
	Password string     `yaml:"password,omitempty"`
	Cert     *savedCert `yaml:"cert,omitempty"`
}

type savedCert struct {
	CA    string     `yaml:"ca,omitempty"`
	CAKey string     `yaml:"caKey,omitempty"`
	Names *savedSANs `yaml:"subjectAltName,omitempty"`
}

type savedSANs struct {
	DNSNames []string `yaml:"dnsNames,omitempty"`
	IPs      []string `yaml:"ips,omitempty"`
}

type savedExternal struct {
	Domain   string `yaml:"domain"`
	Port     int    `yaml:"port"`
	Path     string `yaml:"path,omitempty"`
	Username string `yaml:"username,omitempty"`
	Password string `yaml:"password,omitempty"`
	CA       string `yaml:"ca,omitempty"`
}

// saved has everything but values of secrets; without them, where that is asked for, nothing that goes with them either.
func (r Registry) saved(secrets bool) savedRegistry {
	if e := r.External; e != nil {
		out := &savedExternal{Domain: e.Domain, Port: e.Port, Path: e.Path, CA: e.CA}
		if secrets {
			out.Username, out.Password = e.Username, written(e.Password)
		}
		return savedRegistry{External: out}
	}
	out := &savedLocal{Domain: r.Domain, Port: r.Port}
	if !secrets {
		return savedRegistry{Local: out}
	}
	out.Username, out.Password = r.Username, written(r.Password)
	if r.CA != "" || len(r.Names) > 0 {
		out.Cert = &savedCert{CA: r.CA, CAKey: written(r.CAKey)}
	}
	if len(r.Names) > 0 {
		out.Cert.Names = &savedSANs{}
		for _, name := range r.Names {
			if _, err := netip.ParseAddr(name); err == nil {
				out.Cert.Names.IPs = append(out.Cert.Names.IPs, name)
			} else {
				out.Cert.Names.DNSNames = append(out.Cert.Names.DNSNames, name)
			}
		}
	}
	return savedRegistry{Local: out}
}
