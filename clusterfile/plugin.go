// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Plugin is work done beside what sealer does, by sealer's kinds and phases.
type Plugin struct {
	Name   string
	Type   PluginType
	Phases []Phase // when; always some for Shell
	Scope  []Role  // on which hosts; empty: all
	Data   string  // Shell: the script
	// PerHost is what the other types say of hosts, by address.
	PerHost map[string]string
}

// PluginType is what a Plugin does.
type PluginType string

// The types. All but Shell say one thing of one host, or the two last ones of several, on each line: the address, white space, and the rest.
const (
	Shell    PluginType = "SHELL"    // runs a script
	Hostname PluginType = "HOSTNAME" // 10.0.0.2 name: the host is called so before anything is installed
	Label    PluginType = "LABEL"    // 10.0.0.2 key=value,key=value
	TaintPlg PluginType = "TAINT"    // 10.0.0.2 key=value:NoSchedule,key:NoSchedule-
)

func pluginTypes() []string {
	return []string{string(Shell), string(Hostname), string(Label), string(TaintPlg)}
}

// scopes are the roles of hosts, and the word for all of them.
func scopes() []string { return append(slices.Sorted(maps.Keys(roleWords())), "cluster") }

// Phase is a moment in a cluster's life.
type Phase string

// The phases that a cluster goes through as a whole. Plugins of these are done on the first control plane.
const (
	PreInstall    Phase = "pre-install"
	PostInstall   Phase = "post-install"
	PreUninstall  Phase = "pre-uninstall"
	PostUninstall Phase = "post-uninstall"
	PreScaleUp    Phase = "pre-scaleup"
	PostScaleUp   Phase = "post-scaleup"
	OnUpgrade     Phase = "upgrade"
	OnRollback    Phase = "rollback"
)

// The phases that each host goes through.
const (
	PreInitHost   Phase = "pre-init-host"
	PostInitHost  Phase = "post-init-host"
	PreCleanHost  Phase = "pre-clean-host"
	PostCleanHost Phase = "post-clean-host"
	OnUpgradeHost Phase = "upgrade-host"
)

func phases() []string {
	return []string{
		string(PreInstall), string(PostInstall), string(PreUninstall), string(PostUninstall), string(PreScaleUp), string(PostScaleUp),
		string(OnUpgrade), string(OnRollback), string(PreInitHost), string(PostInitHost), string(PreCleanHost), string(PostCleanHost), string(OnUpgradeHost),
	}
}

// oldPhases are the names that older Clusterfiles have for phases.
func oldPhases() map[string]Phase {
	return map[string]Phase{
		"Originally": PreInitHost, "PreInit": PreInitHost, "PreInstall": PreInstall, "PostInstall": PostInstall,
		"PreJoin": PreInitHost, "PostJoin": PostInitHost, "PreGuest": PreInstall, "PostClean": PostCleanHost, "PreClean": PreCleanHost,
	}
}

// At tells whether a plugin is done at a phase on a host of a role.
func (p Plugin) At(phase Phase, role Role) bool {
	return p.Type == Shell && slices.Contains(p.Phases, phase) && (len(p.Scope) == 0 || slices.Contains(p.Scope, role))
}

// PluginsAt are the Shell plugins of a phase for a host of a role, by their names.
func (f *File) PluginsAt(phase Phase, role Role) []Plugin {
	list := slices.DeleteFunc(slices.Clone(f.Plugins), func(p Plugin) bool { return !p.At(phase, role) })
	slices.SortStableFunc(list, func(a, b Plugin) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *source) plugin(f *File, doc *node) {
	spec := doc.at("spec")
	p := Plugin{Name: doc.text("metadata", "name"), Type: PluginType(spec.text("type")), Data: spec.text("data")}
	if metadata := doc.child("metadata"); !metadata.empty() && p.Name == "" || strings.ContainsAny(p.Name, "/ \n") {
		s.fail(doc.at("metadata", "name"), "%q is not the name of a plugin", p.Name)
	}
	if slices.ContainsFunc(f.Plugins, func(other Plugin) bool { return other.Name == p.Name && p.Name != "" }) {
		s.fail(doc.at("metadata", "name"), "the plugin %q is there twice", p.Name)
	}
	typed := slices.Contains(pluginTypes(), string(p.Type))
	if !typed && p.Type != "" {
		s.fail(spec.at("type"), "unknown type of plugin %q%s: it is one of %s", p.Type, near(string(p.Type), pluginTypes()), strings.Join(pluginTypes(), ", "))
	}
	if p.Data != "" && strings.TrimSpace(p.Data) == "" {
		s.fail(spec.at("data"), "the plugin has no data")
	}
	p.Phases = s.phases(spec, p.Type)
	for _, word := range words(spec.text("scope")) {
		if !slices.Contains(scopes(), word) {
			s.fail(spec.at("scope"), "unknown scope %q%s", word, near(word, scopes()))
		} else if role, one := roleWords()[word]; one {
			p.Scope = append(p.Scope, role)
		}
	}
	if typed && p.Type != Shell {
		p.PerHost = s.perHost(spec, p)
		p.Data = ""
	}
	f.Plugins = append(f.Plugins, p)
}

// wordBreaks are what sealer's Clusterfiles have between words.
const wordBreaks = "|, \t\n"

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(wordBreaks, r) })
}

func (s *source) phases(spec *node, t PluginType) []Phase {
	fits := map[PluginType][]Phase{Hostname: {PreInitHost}, Label: {PostInstall, PostInitHost}, TaintPlg: {PostInstall, PostInitHost}}
	var list []Phase
	for _, word := range words(spec.text("action")) {
		phase := Phase(word)
		if now, old := oldPhases()[word]; old {
			s.fail(spec.at("action"), "the phase %q is called %s", word, now)
			continue
		}
		if !slices.Contains(phases(), word) {
			s.fail(spec.at("action"), "unknown phase %q%s: it is one of %s", word, near(word, phases()), strings.Join(phases(), ", "))
			continue
		}
		if allowed := fits[t]; allowed != nil && !slices.Contains(allowed, phase) {
			s.fail(spec.at("action"), "a plugin of type %s cannot be done at %s", t, phase)
			continue
		}
		list = append(list, phase)
	}
	if t == Shell && len(words(spec.text("action"))) == 0 {
		s.fail(spec, "the plugin has no action: it is one of %s", strings.Join(phases(), ", "))
	}
	return list
}

// perHost reads lines of addresses and what is said of them.
func (s *source) perHost(spec *node, p Plugin) map[string]string {
	said := map[string]string{}
	i := -1
	for line := range strings.Lines(spec.text("data")) {
		i++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := s.lineOf(spec.at("data"), i, line)
		list, rest := line, ""
		if end := strings.IndexFunc(line, unicode.IsSpace); end > 0 {
			list, rest = line[:end], strings.TrimSpace(line[end:])
		}
		hosts, err := ParseAddresses(list)
		switch {
		case err != nil:
			s.fail(at, "%w", err)
		case rest == "":
			s.fail(at, "nothing is said of %s", list)
		case p.Type == Hostname && len(hosts) > 1:
			s.fail(at, "%s are %d hosts: each has a name of its own", list, len(hosts))
		default:
			if err := checkSaid(p.Type, rest); err != nil {
				s.fail(at, "%w", err)
			}
		}
		for _, h := range hosts {
			if said[h] != "" {
				s.fail(at, "the host %s is there twice", h)
			}
			if said[h] = rest; rest == "" {
				continue
			}
			s.said = append(s.said, saidLine{PluginLine{Place{s.name, at.line, "data"}, p.Name, h}, at})
		}
	}
	return said
}

func checkSaid(t PluginType, text string) error {
	switch t {
	case Hostname:
		if !domainRule.MatchString(text) || len(text) > 63 {
			return fmt.Errorf("%q is not a host name in lower case", text)
		}
	case Label:
		for _, pair := range words(text) {
			key, value, ok := strings.Cut(pair, "=")
			if !ok || key == "" {
				return fmt.Errorf("%q is not a label: write key=value", pair)
			}
			if err := checkLabel("label", key, value); err != nil {
				return err
			}
		}
	case TaintPlg:
		for _, word := range words(text) {
			if _, err := ParseTaint(word); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyPlugins gives a host what plugins of the types Hostname, Label and Taint say of it.
func (f *File) applyPlugins(h Host) Host {
	for _, p := range f.Plugins {
		text, ok := p.PerHost[h.Address]
		if !ok {
			continue
		}
		switch p.Type {
		case Hostname:
			h.Hostname = text
		case Label:
			h.Labels = maps.Clone(h.Labels)
			if h.Labels == nil {
				h.Labels = map[string]string{}
			}
			for _, pair := range words(text) {
				key, value, _ := strings.Cut(pair, "=")
				h.Labels[key] = value
			}
		case TaintPlg:
			h.Taints = slices.Clone(h.Taints)
			for _, word := range words(text) {
				if t, err := ParseTaint(word); err == nil {
					h.Taints = append(h.Taints, t)
				}
			}
		}
	}
	return h
}

// together finds what is wrong between documents.
func (s *source) together(f *File) {
	for _, v := range s.vars {
		if err := f.CheckEnv(v.name, v.value); err != nil {
			s.fail(v.at, "%w", err)
		}
	}
	for _, said := range s.said {
		f.PluginLines = append(f.PluginLines, said.PluginLine)
		if s.hosts != nil && !f.has(said.Host) {
			s.fail(said.at, "the plugin %q says something of %s, which is none of the hosts", said.Plugin, said.Host)
		}
	}
}

func (f *File) has(address string) bool {
	return slices.ContainsFunc(f.Hosts, func(h Host) bool { return h.Address == address })
}

// PluginLine is where a plugin says something of a host.
type PluginLine struct {
	Place  Place
	Plugin string
	Host   string // as it is called there: an address, or a name
}

// StrayLines are those of PluginLines that are about none of the hosts, once ResolveHosts has found these: hosts may be others
// than those that the file was written for.
func (f *File) StrayLines() []PluginLine {
	return slices.DeleteFunc(slices.Clone(f.PluginLines), func(l PluginLine) bool {
		renamed := !slices.ContainsFunc(f.Plugins, func(p Plugin) bool { return p.Name == l.Plugin && p.PerHost[l.Host] != "" })
		return renamed || f.has(l.Host)
	})
}
