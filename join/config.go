// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// metadataName is the file that picks the distribution at run time.
const metadataName = "Metadata"

// config joins the parts' configs. Of what is said once, such as a title, the
// first counts.
func (m *merger) config(parts []part) ocispec.Image {
	out := parts[0].Config
	out.Config.Labels = map[string]string{}
	out.Config.Env = nil
	env := newVariables(m, "")
	for _, p := range parts {
		for k, v := range p.Config.Config.Labels {
			if k == clusterimage.LabelKubeVersion {
				out.Config.Labels[k] = joinConstraints(out.Config.Labels[k], v)
				continue
			}
			if _, ok := out.Config.Labels[k]; !ok || v != "" && out.Config.Labels[k] == "" {
				out.Config.Labels[k] = v
			}
		}
		for _, e := range p.Config.Config.Env {
			k, v, _ := strings.Cut(e, "=")
			env.set(k, v, p.name)
		}
		if p.Config.Created != nil && (out.Created == nil || p.Config.Created.After(*out.Created)) {
			out.Created = p.Config.Created
		}
	}
	for _, k := range env.order {
		out.Config.Env = append(out.Config.Env, k+"="+env.values[k].value)
	}
	out.Config.Labels[clusterimage.LabelExtension] = string(m.extension(parts).Marshal())
	return out
}

// variables are joined by name; the later value wins where that is allowed.
type variables struct {
	m      *merger
	of     string // the application that they belong to
	order  []string
	values map[string]ownedValue
}

type ownedValue struct{ value, owner string }

func newVariables(m *merger, of string) *variables {
	return &variables{m: m, of: of, values: map[string]ownedValue{}}
}

func (v *variables) set(key, value, owner string) {
	have, ok := v.values[key]
	if !ok {
		v.order = append(v.order, key)
	}
	if ok && have.value != value {
		v.m.conflict("env", v.of+key, fmt.Sprintf("%s has %q", have.owner, have.value), fmt.Sprintf("%s has %q", owner, value))
	}
	v.values[key] = ownedValue{value, owner}
}

// extension joins what the images launch.
func (m *merger) extension(parts []part) clusterimage.Extension {
	out := clusterimage.Extension{Type: clusterimage.AppInstaller}
	env := newVariables(m, "")
	apps := map[string]string{} // name to owner
	tree := ""
	for _, p := range parts {
		e := p.Extension
		if e.Type != clusterimage.AppInstaller {
			out.Type = cmp.Or(e.Type, clusterimage.KubeInstaller)
		}
		out.Base = cmp.Or(out.Base, e.Base)
		for k, v := range e.Env {
			env.set(k, v, p.name)
		}
		for _, app := range e.Applications {
			m.application(&out, app, apps, p.name)
		}
		if e.RegistryTree != nil {
			if tree != "" {
				m.finally("registry", "folder of container images", tree+" has one", p.name+" has one")
			}
			tree, out.RegistryTree = p.name, e.RegistryTree
		}
		out.Launch = joinLaunch(out.Launch, e.Launch)
	}
	if len(env.values) > 0 {
		out.Env = map[string]string{}
		for k, v := range env.values {
			out.Env[k] = v.value
		}
	}
	return out
}

func (m *merger) application(out *clusterimage.Extension, app clusterimage.Application, owners map[string]string, owner string) {
	i := slices.IndexFunc(out.Applications, func(a clusterimage.Application) bool { return a.Name == app.Name })
	if i < 0 {
		out.Applications = append(out.Applications, app)
		owners[app.Name] = owner
		return
	}
	if !reflect.DeepEqual(out.Applications[i], app) {
		m.conflict("application", app.Name, owners[app.Name]+" has one of that name", owner+" has another")
		out.Applications[i] = app
		owners[app.Name] = owner
	}
}

// joinLaunch puts what one image runs behind what another runs. An application
// that both start is started once. Where both start applications, the commands
// that either runs before its own run before all of them.
func joinLaunch(a, b clusterimage.Launch) clusterimage.Launch {
	beforeA, behindA := split(a)
	beforeB, behindB := split(b)
	out := clusterimage.Launch{AppNames: slices.Clone(a.AppNames)}
	for _, name := range b.AppNames {
		if !slices.Contains(out.AppNames, name) {
			out.AppNames = append(out.AppNames, name)
		}
	}
	switch {
	case len(a.AppNames) == 0:
		out.Cmds = slices.Concat(a.Cmds, b.Cmds)
		out.After = len(a.Cmds) + len(beforeB)
	case len(b.AppNames) == 0:
		out.Cmds = slices.Concat(a.Cmds, b.Cmds)
		out.After = len(beforeA)
	default:
		out.Cmds = slices.Concat(beforeA, beforeB, behindA, behindB)
		out.After = len(beforeA) + len(beforeB)
	}
	if len(out.AppNames) == 0 {
		out.After = 0
	}
	return out
}

// split gives the commands before the applications, and those behind them.
func split(l clusterimage.Launch) (before, behind []string) {
	n := min(max(l.After, 0), len(l.Cmds))
	return l.Cmds[:n], l.Cmds[n:]
}

// alternatives stands between constraints of versions of which one is enough.
const alternatives = "||"

// joinConstraints makes one constraint of two that both hold.
func joinConstraints(a, b string) string {
	if a == "" || a == b {
		return b
	}
	if b == "" {
		return a
	}
	var out []string
	for one := range strings.SplitSeq(a, alternatives) {
		for other := range strings.SplitSeq(b, alternatives) {
			out = append(out, strings.TrimSpace(one)+", "+strings.TrimSpace(other))
		}
	}
	return strings.Join(out, " "+alternatives+" ")
}

// joinFiles makes the files that a merged image has one of, out of those of its
// parts, and the labels that say the same. Those that are right already are left out.
func (m *merger) joinFiles(parts []part, files []tree, config *ocispec.Image) (map[string][]byte, error) {
	out := map[string][]byte{}
	meta, err := m.metadata(parts, files)
	if err != nil {
		return nil, err
	}
	if meta != nil {
		out[metadataName] = meta.Marshal()
		if meta.KubeVersion != "" {
			if err := clusterimage.CheckKubeVersion(config.Config.Labels[clusterimage.LabelKubeVersion], meta.KubeVersion); err != nil {
				m.finally("runtime", "version of Kubernetes", "one image has "+meta.KubeVersion, "another is not for it: "+err.Error())
			}
		}
		for label, value := range map[string]string{
			clusterimage.LabelClusterRuntime:        meta.ClusterRuntime,
			clusterimage.LabelClusterRuntimeVersion: meta.ClusterRuntimeVersion,
			clusterimage.LabelContainerRuntime:      meta.ContainerRuntime,
		} {
			if value != "" {
				config.Config.Labels[label] = value
			}
		}
	}
	for _, name := range imageLists() {
		if data := joinLists(name, files); data != nil {
			out[name] = data
		}
	}
	// What the stack shows is the last part's that has the file.
	for name, data := range out {
		for _, t := range slices.Backward(files) {
			if f, ok := t[name]; ok {
				if bytes.Equal(f.data, data) {
					delete(out, name)
				}
				break
			}
		}
	}
	return out, nil
}

// metadata joins the parts' Metadata; nil where none has one.
func (m *merger) metadata(parts []part, files []tree) (*clusterimage.Metadata, error) {
	var out *clusterimage.Metadata
	owner := ""
	for i, t := range files {
		f, ok := t[metadataName]
		if !ok {
			continue
		}
		meta, err := clusterimage.ParseMetadata(f.data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", parts[i].name, err)
		}
		if out == nil {
			out, owner = &meta, parts[i].name
			continue
		}
		for _, field := range []struct {
			name        string
			first, next *string
		}{
			{"distribution", &out.ClusterRuntime, &meta.ClusterRuntime},
			{"version of Kubernetes", &out.KubeVersion, &meta.KubeVersion},
			{"version of the distribution", &out.ClusterRuntimeVersion, &meta.ClusterRuntimeVersion},
			{"container runtime", &out.ContainerRuntime, &meta.ContainerRuntime},
		} {
			if *field.first != "" && *field.next != "" && *field.first != *field.next {
				m.finally("runtime", field.name, owner+" has "+*field.first, parts[i].name+" has "+*field.next)
			}
			if *field.first == "" && *field.next != "" {
				*field.first, owner = *field.next, parts[i].name
			}
		}
	}
	return out, nil
}

// joinLists puts the lines of image lists behind one another, each once; nil
// where fewer than two parts have the list.
func joinLists(name string, files []tree) []byte {
	var lines []string
	seen := map[string]bool{}
	lists := 0
	for _, t := range files {
		f, ok := t[name]
		if !ok {
			continue
		}
		lists++
		for line := range strings.Lines(string(f.data)) {
			line = strings.TrimRight(line, "\r\n")
			if !seen[line] {
				lines = append(lines, line)
				seen[line] = line != ""
			}
		}
	}
	if lists < 2 {
		return nil
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}
