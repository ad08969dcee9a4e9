// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// RefusedError is a Clusterfile that asks a cluster that runs for what it cannot do.
type RefusedError struct {
	Cluster string
	Reasons []string
}

func (e *RefusedError) Error() string {
	lines := []string{fmt.Sprintf("the cluster %q runs, and this cannot be changed any more; nothing was touched:", e.Cluster)}
	for _, r := range e.Reasons {
		lines = append(lines, "  "+r)
	}
	return strings.Join(lines, "\n")
}

// Hint says what can be done.
func (e *RefusedError) Hint() string {
	return "put the old values back into the Clusterfile, or make a cluster anew: sealer delete --all, sealer run"
}

// networkEnv are variables of the environment that every distribution takes for the cluster's networks.
func networkEnv() []string { return []string{"PodCIDR", "SvcCIDR"} }

// settings is what the Clusterfile says otherwise than it did when the cluster was last changed. Values that may be secret
// are not shown.
func (c comparison) settings(d runtime.Distribution) (list []Change, paths [][]string, refused []string) {
	if c.was == nil {
		return nil, nil, nil
	}
	for _, e := range c.environments() {
		list = append(list, e)
		if slices.Contains(networkEnv(), e.Name) {
			refused = append(refused, "env "+e.Name+": addresses were given out by it")
		}
		if e.Name == clusterfile.EnvCertSANs {
			paths = append(paths, []string{clusterfile.EnvCertSANs})
		}
	}
	if !same(c.want.Aliases, c.was.Aliases) {
		list = append(list, Change{Op: OpChange, About: AboutAliases})
	}
	list = append(list, c.configs()...)
	documents, changed, more := c.documents(d)
	list, paths = append(list, documents...), append(paths, changed...)
	refused = append(refused, more...)
	list = append(list, c.plugins()...)
	for _, m := range c.want.Machines() {
		was := c.before(m)
		if h := c.member(m); h != nil && was.Role != "" && was.Hostname != m.Hostname && m.Hostname != "" {
			list = append(list, Change{Op: OpChange, About: AboutSetting, Host: h.String(), Name: "hostname"})
			refused = append(refused, h.String()+": its name: a node keeps the one that it has joined with")
		}
	}
	return append(list, c.applications()...), paths, refused
}

// environments of the cluster and of hosts. Values may be secret.
func (c comparison) environments() []Change {
	list := entries(AboutEnvironment, "", c.was.Env, c.want.Env)
	for _, m := range c.want.Machines() {
		if was := c.before(m); was.Role != "" {
			list = append(list, entries(AboutEnvironment, m.String(), was.Env, m.Env)...)
		}
	}
	return list
}

// entries are those of a mapping that are other ones.
func entries[V any](about, host string, was, want map[string]V) []Change {
	var list []Change
	all := map[string]bool{}
	for k := range was {
		all[k] = true
	}
	for k := range want {
		all[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		a, before := was[k]
		b, now := want[k]
		switch {
		case !before:
			list = append(list, Change{Op: OpAdd, About: about, Host: host, Name: k})
		case !now:
			list = append(list, Change{Op: OpRemove, About: about, Host: host, Name: k})
		case !same(a, b):
			list = append(list, Change{Op: OpChange, About: about, Host: host, Name: k})
		}
	}
	return list
}

func (c comparison) configs() []Change {
	byName := func(list []clusterfile.Config) map[string]clusterfile.Config {
		all := map[string]clusterfile.Config{}
		for _, f := range list {
			all[f.Name+" ("+f.Path+")"] = f
		}
		return all
	}
	list := entries(AboutConfig, "", byName(c.was.Configs), byName(c.want.Configs))
	for i := range list {
		if list[i].Op == OpRemove {
			list[i].Note = "the image's own file is back in the rootfs; copies elsewhere on hosts stay"
		}
	}
	return list
}

func (c comparison) plugins() []Change {
	shells := func(f *clusterfile.File) map[string]clusterfile.Plugin {
		all := map[string]clusterfile.Plugin{}
		for _, p := range f.Plugins {
			if p.Type == clusterfile.Shell {
				all[p.Name] = p
			}
		}
		return all
	}
	list := entries(AboutPlugin, "", shells(c.was), shells(c.want))
	for i := range list {
		if list[i].Op == OpRemove {
			list[i].Note = "what it has done stays"
		}
	}
	return list
}

// applications are the commands and applications that are started, and what is said of them.
func (c comparison) applications() []Change {
	var list []Change
	if !sameList(c.want.Cmd, c.was.Cmd) {
		list = append(list, Change{Op: OpChange, About: AboutSetting, Name: "cmd"})
	}
	if !sameList(c.want.Apps, c.was.Apps) {
		list = append(list, Change{Op: OpChange, About: AboutSetting, Name: "appNames", From: strings.Join(c.was.Apps, ", "), To: strings.Join(c.want.Apps, ", ")})
	}
	byName := func(f *clusterfile.File) map[string]clusterfile.Application {
		all := map[string]clusterfile.Application{}
		for _, a := range f.Applications {
			all[a.Name] = a
		}
		return all
	}
	return append(list, entries(AboutApplication, "", byName(c.was), byName(c.want))...)
}

// documents are the settings of distributions, key by key, and what is in the way of changing them.
func (c comparison) documents(d runtime.Distribution) (list []Change, paths [][]string, refused []string) {
	adjuster, _ := d.(runtime.Adjuster)
	was, want := documentsOf(c.was), documentsOf(c.want)
	var walk func(path []string, a, b any)
	walk = func(path []string, a, b any) {
		from, mapping := a.(map[string]any)
		to, mapping2 := b.(map[string]any)
		if (mapping || a == nil) && (mapping2 || b == nil) && (mapping || mapping2) {
			all := map[string]bool{}
			for k := range from {
				all[k] = true
			}
			for k := range to {
				all[k] = true
			}
			for _, k := range slices.Sorted(maps.Keys(all)) {
				walk(append(slices.Clone(path), k), from[k], to[k])
			}
			return
		}
		last := path[len(path)-1]
		if same(a, b) || last == "apiVersion" || last == "kind" {
			return
		}
		name := strings.Join(path, ".")
		switch {
		case adjuster == nil:
			refused = append(refused, fmt.Sprintf("%s: %s takes no other settings", name, d.Name()))
		case adjuster.Fixed(path...) != "":
			refused = append(refused, name+": "+adjuster.Fixed(path...))
		}
		paths = append(paths, path)
		change := Change{Op: OpChange, About: AboutSetting, Name: name, From: shown(last, a), To: shown(last, b)}
		switch {
		case a == nil:
			change.Op = OpAdd
		case b == nil:
			change.Op = OpRemove
		}
		if path[0] == "JoinConfiguration" {
			change.Note = "for hosts that join"
		}
		list = append(list, change)
	}
	for _, kind := range slices.Sorted(maps.Keys(merged(was, want))) {
		walk([]string{kind}, was[kind], want[kind])
	}
	return list, paths, refused
}

func merged(a, b map[string]any) map[string]any {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// documentsOf are the distributions' documents of a Clusterfile by their kinds.
func documentsOf(f *clusterfile.File) map[string]any {
	docs := map[string]any{}
	for kind, doc := range f.Kubeadm {
		docs[kind] = doc
	}
	if f.K0s != nil {
		docs["ClusterConfig"] = f.K0s
	}
	if f.K3s != nil {
		docs["K3s"] = map[string]any{"server": f.K3s.Server, "agent": f.K3s.Agent}
		if len(f.K3s.IgnoreChecks) > 0 {
			docs["K3s"].(map[string]any)["ignoreChecks"] = f.K3s.IgnoreChecks
		}
	}
	return docs
}

// maxShown is how long a value may be that is shown, in bytes.
const maxShown = 60

// shown is a value for people; nothing where it is a secret, or long.
func shown(key string, v any) string {
	if v == nil || tells(key, v) {
		return ""
	}
	data, err := json.Marshal(v)
	if text := strings.Trim(string(data), `"`); err == nil && len(text) <= maxShown {
		return cmp.Or(text, `""`)
	}
	return ""
}

// same compares values of Clusterfiles, some of which have been to JSON and back: no list is as good as an empty one.
func same(a, b any) bool {
	if sa, ok := a.(host.Secret); ok {
		sb, ok := b.(host.Secret)
		return ok && sa == sb
	}
	if reflect.DeepEqual(a, b) {
		return true
	}
	ja, err1 := json.Marshal(a)
	jb, err2 := json.Marshal(b)
	plain := func(s []byte) string {
		return strings.NewReplacer("[]", "null", "{}", "null").Replace(string(s))
	}
	return err1 == nil && err2 == nil && plain(ja) == plain(jb)
}

// tells: the value is a secret, or has one in it.
func tells(key string, v any) bool {
	switch v := v.(type) {
	case host.Secret:
		return true
	case []any:
		return slices.ContainsFunc(v, func(one any) bool { return tells(key, one) })
	case map[string]any:
		for key, one := range v {
			if tells(key, one) {
				return true
			}
		}
	}
	return telling(key)
}

// telling: by its name the key has a secret, also where its document has no type for such.
func telling(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc([]string{"secret", "passw", "token", "credential", "datasource", "authpass"}, func(word string) bool { return strings.Contains(key, word) })
}

// sameList: no list says nothing, and an empty one that there is to be none.
func sameList(a, b []string) bool { return slices.Equal(a, b) && (a == nil) == (b == nil) }
