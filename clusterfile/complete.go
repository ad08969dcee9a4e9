// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// wholeCluster is a Cluster document with every field that File has.
type wholeCluster struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Metadata   savedName `yaml:"metadata"`
	Spec       wholeSpec `yaml:"spec"`
}

type wholeSpec struct {
	Image    string         `yaml:"image,omitempty"`
	Env      []string       `yaml:"env,omitempty"`
	Cmd      *[]string      `yaml:"cmd,omitempty"` // an empty one replaces the image's
	Apps     []string       `yaml:"appNames,omitempty"`
	Endpoint *savedEndpoint `yaml:"controlPlaneEndpoint,omitempty"`
	Registry savedRegistry  `yaml:"registry"`
	Aliases  []wholeAlias   `yaml:"hostAliases,omitempty"`
	Hosts    []wholeHost    `yaml:"hosts,omitempty"`
}

type wholeAlias struct {
	IP        string   `yaml:"ip"`
	Hostnames []string `yaml:"hostnames"`
}

type wholeHost struct {
	IPs    []string          `yaml:"ips"`
	Roles  []string          `yaml:"roles"`
	Env    []string          `yaml:"env,omitempty"`
	Labels map[string]string `yaml:"labels,omitempty"`
	Taints []string          `yaml:"taints,omitempty"`
	SSH    wholeSSH          `yaml:"ssh,omitempty"`
}

type wholeSSH struct {
	User         string     `yaml:"user,omitempty"`
	Port         int        `yaml:"port,omitempty"`
	Password     string     `yaml:"passwd,omitempty"`
	Key          string     `yaml:"pk,omitempty"`
	KeyPassword  string     `yaml:"pkPasswd,omitempty"`
	SudoPassword string     `yaml:"sudoPasswd,omitempty"`
	Jump         *wholeJump `yaml:"jump,omitempty"`
}

type wholeJump struct {
	Host        string `yaml:"host"`
	User        string `yaml:"user,omitempty"`
	Port        int    `yaml:"port,omitempty"`
	Password    string `yaml:"passwd,omitempty"`
	Key         string `yaml:"pk,omitempty"`
	KeyPassword string `yaml:"pkPasswd,omitempty"`
}

// written is a secret as a file may hold it: the reference where it is one, else the question for it.
func written(s Secret) string {
	if s == "" {
		return ""
	}
	if r, ok := ParseReference(s); ok {
		return r.String()
	}
	return string(FromPrompt)
}

// writtenKeys are keys whose secrets are written as a file may hold them.
func writtenKeys(keys map[string]any) map[string]any {
	out := maps.Clone(keys)
	for name, value := range out {
		if s, ok := value.(Secret); ok {
			out[name] = written(s)
		}
	}
	return out
}

func whole(l SSH) wholeSSH {
	out := wholeSSH{l.User, l.Port, written(l.Password), l.KeyFile, written(l.KeyPassword), written(l.SudoPassword), nil}
	if j := l.Jump; j != nil {
		out.Jump = &wholeJump{j.Host, j.User, j.Port, written(j.Password), j.KeyFile, written(j.KeyPassword)}
	}
	return out
}

// Marshal is the file as the text of a Clusterfile, with everything that Parse reads of it. Secrets that are no
// references are left to be asked for.
func (f *File) Marshal() ([]byte, error) {
	cluster := wholeCluster{
		APIVersion: "sealer.io/v2", Kind: "Cluster", Metadata: savedName{f.Name},
		Spec: wholeSpec{
			Image: f.Image, Env: pairs(f.Env), Cmd: replacing(f.Cmd), Apps: nothing(f.Apps), Registry: f.Registry.saved(true), Endpoint: f.Endpoint.saved(),
		},
	}
	for _, a := range f.Aliases {
		cluster.Spec.Aliases = append(cluster.Spec.Aliases, wholeAlias(a))
	}
	for _, h := range f.Hosts {
		taints := make([]string, len(h.Taints))
		for i, t := range h.Taints {
			taints[i] = t.String()
		}
		cluster.Spec.Hosts = append(cluster.Spec.Hosts, wholeHost{
			[]string{h.Address}, append([]string{string(h.Role)}, h.Roles...), pairs(h.Env), h.Labels, taints, whole(h.SSH),
		})
	}
	docs := []any{cluster}
	if len(f.Applications) > 0 {
		docs = append(docs, f.applicationDocument())
	}
	for _, a := range f.ApplicationImages {
		docs = append(docs, a.document())
	}
	for _, c := range f.Configs {
		docs = append(docs, c.document())
	}
	for _, p := range f.Plugins {
		docs = append(docs, p.document())
	}
	for _, kind := range slices.Sorted(maps.Keys(f.Kubeadm)) {
		docs = append(docs, f.Kubeadm[kind])
	}
	if f.K0s != nil {
		docs = append(docs, writtenK0s(f.K0s))
	}
	if k := f.K3s; k != nil {
		d := object("apiVersion", "sealer.io/v2", "kind", "K3s", "server", writtenKeys(k.Server), "agent", writtenKeys(k.Agent))
		if len(k.IgnoreChecks) > 0 {
			d = append(d, yaml.MapItem{Key: "ignoreChecks", Value: k.IgnoreChecks})
		}
		docs = append(docs, d)
	}
	var out bytes.Buffer
	for i, d := range docs {
		if i > 0 {
			out.WriteString("---\n")
		}
		data, err := yaml.MarshalWithOptions(d, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
		if err != nil {
			return nil, fmt.Errorf("writing the Clusterfile of %q: %w", f.Name, err)
		}
		out.Write(data)
	}
	return out.Bytes(), nil
}

func pairs(env map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// object is a mapping in a fixed order.
func object(pairs ...any) yaml.MapSlice {
	var m yaml.MapSlice
	for i := 0; i+1 < len(pairs); i += 2 {
		m = append(m, yaml.MapItem{Key: pairs[i], Value: pairs[i+1]})
	}
	return m
}

func (f *File) applicationDocument() any {
	return object("apiVersion", "sealer.io/v2", "kind", "Application", "metadata", object("name", "applications"),
		"spec", object("configs", applicationConfigs(f.Applications, nil)))
}

func (a ApplicationImage) document() any {
	spec := object("image", a.Image)
	if len(a.Env) > 0 {
		spec = append(spec, yaml.MapItem{Key: "env", Value: pairs(a.Env)})
	}
	if len(a.Cmd) > 0 {
		spec = append(spec, yaml.MapItem{Key: "cmds", Value: a.Cmd})
	}
	if a.Apps != nil {
		spec = append(spec, yaml.MapItem{Key: "launchApps", Value: a.Apps})
	}
	if configs := applicationConfigs(a.Applications, a.Configs); len(configs) > 0 {
		spec = append(spec, yaml.MapItem{Key: "configs", Value: configs})
	}
	return object("apiVersion", "sealer.io/v2", "kind", "Application", "metadata", object("name", a.Name), "spec", spec)
}

// applicationConfigs are what is said of applications, each with its files.
func applicationConfigs(list []Application, files []Config) []any {
	var configs []any
	for _, a := range list {
		c := object("name", a.Name)
		if len(a.Env) > 0 {
			c = append(c, yaml.MapItem{Key: "env", Value: pairs(a.Env)})
		}
		if len(a.Cmds) > 0 {
			c = append(c, yaml.MapItem{Key: "launch", Value: object("cmds", a.Cmds)})
		}
		var own []any
		for _, f := range files {
			if f.App == a.Name {
				own = append(own, object("path", strings.TrimPrefix(f.Path, applicationDir(a.Name)), "strategy", string(f.Strategy), "data", f.Data))
			}
		}
		if len(own) > 0 {
			c = append(c, yaml.MapItem{Key: "files", Value: own})
		}
		configs = append(configs, c)
	}
	return configs
}

func (c Config) document() any {
	spec := object("path", c.Path, "strategy", string(c.Strategy))
	if len(c.Process) > 0 {
		words := make([]string, len(c.Process))
		for i, p := range c.Process {
			words[i] = string(p)
		}
		spec = append(spec, yaml.MapItem{Key: "process", Value: strings.Join(words, "|")})
	}
	spec = append(spec, yaml.MapItem{Key: "data", Value: c.Data})
	return object("apiVersion", "sealer.io/v1", "kind", "Config", "metadata", object("name", c.Name), "spec", spec)
}

func (p Plugin) document() any {
	spec := object("type", string(p.Type))
	if len(p.Phases) > 0 {
		words := make([]string, len(p.Phases))
		for i, phase := range p.Phases {
			words[i] = string(phase)
		}
		spec = append(spec, yaml.MapItem{Key: "action", Value: strings.Join(words, "|")})
	}
	if len(p.Scope) > 0 {
		words := make([]string, len(p.Scope))
		for i, role := range p.Scope {
			words[i] = string(role)
		}
		spec = append(spec, yaml.MapItem{Key: "scope", Value: strings.Join(words, "|")})
	}
	var data strings.Builder
	data.WriteString(p.Data)
	for _, address := range slices.Sorted(maps.Keys(p.PerHost)) {
		data.WriteString(address + " " + p.PerHost[address] + "\n")
	}
	spec = append(spec, yaml.MapItem{Key: "data", Value: data.String()})
	return object("apiVersion", "sealer.io/v1", "kind", "Plugin", "metadata", object("name", p.Name), "spec", spec)
}

// replacing is a list that is written even where it is empty, unless there is none.
func replacing(list []string) *[]string {
	if list == nil {
		return nil
	}
	return &list
}

// nothing is how appNames says that no application is launched.
func nothing(apps []string) []string {
	if apps != nil && len(apps) == 0 {
		return []string{""}
	}
	return apps
}
