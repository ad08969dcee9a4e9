// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// stage is a stage in the middle of its conversion. Its files are solid with layers merged on top, so that a base and
// what is copied beside it stay apart, and each is cached by itself.
type stage struct {
	in       *kubefile.Stage
	scope    *kubefile.StageScope
	platform ocispec.Platform

	base    *Base     // nil: scratch
	linked  bool      // the base is one of our own, which COPY may leave packed
	bottom  llb.State // the base alone
	solid   llb.State
	changed bool        // solid is more than bottom
	layers  []llb.State // on top of solid
	beside  []Placement
	history []string // the instruction that made each layer since the base

	labels   map[string]string
	author   string
	env      []kubefile.KeyValue // of ENV lines, in order
	basePATH string
	dir      string   // of WORKDIR, absolute; empty: the root
	user     string   // of USER; empty: root
	shell    []string // of SHELL; nil: the default

	inherited   clusterimage.Extension // of the base
	apps        []clusterimage.Application
	found       []App // of this Kubefile
	launch      clusterimage.Launch
	entrypoints int                    // of this Kubefile, among launch.Cmds
	kubeVersion int                    // line of KUBEVERSION
	later       []kubefile.Instruction // APPCMDS and APPENV, which may stand before their APP
	warnings    []kubefile.Warning
}

func (s *stage) startFrom(c *converter, base Base) error {
	s.base = &base
	s.bottom, s.solid = base.State, base.State
	s.scope = c.o.Scope.Stage(base.Config.Config.Env)
	s.basePATH = pathOf(base.Config.Config.Env)
	s.dir = base.Config.Config.WorkingDir
	label, ok := base.Config.Config.Labels[clusterimage.LabelExtension]
	if !ok {
		return nil
	}
	s.linked = true
	ext, err := clusterimage.ParseExtension([]byte(label))
	if err != nil {
		return err
	}
	s.inherited, s.apps, s.launch = ext, ext.Applications, ext.Launch
	return nil
}

// child begins a stage that is based on this one. The layers stay where they are.
func (s *stage) child(in *kubefile.Stage) *stage {
	n := *s
	n.in = in
	n.scope = s.scope.Child()
	n.layers = slices.Clone(s.layers)
	n.history = slices.Clone(s.history)
	n.beside = slices.Clone(s.beside)
	n.labels = maps.Clone(s.labels)
	n.env = slices.Clone(s.env)
	n.apps = slices.Clone(s.apps)
	n.found = slices.Clone(s.found)
	n.launch.Cmds = slices.Clone(s.launch.Cmds)
	n.warnings = slices.Clone(s.warnings)
	n.later = nil
	return &n
}

// state is all files.
func (s *stage) state() llb.State {
	if len(s.layers) == 0 {
		return s.solid
	}
	inputs := s.layers
	if s.base != nil || s.changed {
		inputs = append([]llb.State{s.solid}, s.layers...)
	}
	if len(inputs) == 1 {
		return inputs[0]
	}
	return llb.Merge(inputs, llb.WithCustomName("merging layers"))
}

// replace sets all files to what an operation on them made.
func (s *stage) replace(st llb.State) {
	s.solid, s.changed, s.layers = st, true, nil
}

// place notes that files go below dest, beside what is there.
func (s *stage) place(dest string) {
	dir := path.Dir(dest) // of a folder, which ends with /, that is the folder itself
	below := slices.Clone(s.layers)
	if s.changed {
		below = append(below, s.solid)
	}
	if dir != "/" && len(below) > 0 {
		s.beside = append(s.beside, Placement{Dir: dir, Below: below})
	}
}

// added is what is new since the base.
func (s *stage) added() llb.State {
	if s.base == nil {
		return s.state()
	}
	if s.changed {
		return llb.Diff(s.bottom, s.state(), llb.WithCustomName("[internal] what is new since "+s.base.Name))
	}
	switch len(s.layers) {
	case 0:
		return llb.Scratch()
	case 1:
		return s.layers[0]
	}
	return llb.Merge(s.layers, llb.WithCustomName("[internal] what is new since "+s.base.Name))
}

func (s *stage) setEnv(key, value string) {
	for i := range s.env {
		if s.env[i].Key == key {
			s.env[i].Value = value
			return
		}
	}
	s.env = append(s.env, kubefile.KeyValue{Key: key, Value: value})
}

func (s *stage) result(c *converter) *Result {
	r := &Result{
		State: s.state(), Added: s.added(), Base: s.base, Labels: s.labels, Beside: s.beside, Apps: s.found, KubeVersion: s.kubeVersion,
		Extension: s.inherited, Warnings: append(s.scope.Warnings(), s.warnings...),
	}
	if s.base != nil {
		r.Config = s.base.Config
		r.Extension.Base = &clusterimage.Base{Name: s.base.Name, Digest: s.base.Digest}
	}
	r.Extension.Applications, r.Extension.Launch = s.apps, s.launch
	r.Config.Platform = platforms.Normalize(c.o.Target)
	r.Config.History = s.layerHistory(c.o.Epoch)
	r.Config.Created, r.Config.RootFS = nil, ocispec.RootFS{Type: "layers"}
	r.Config.Config.Labels = maps.Clone(r.Config.Config.Labels)
	if r.Config.Config.Labels == nil {
		r.Config.Config.Labels = map[string]string{}
	}
	maps.Copy(r.Config.Config.Labels, s.labels)
	if s.author != "" {
		r.Config.Author = s.author
	}
	r.Config.Config.Env = s.scope.Env()
	r.Config.Config.WorkingDir = s.dir
	if s.user != "" {
		r.Config.Config.User = s.user
	}
	if cmd := Command(r.Extension); cmd != nil {
		r.Config.Config.Entrypoint, r.Config.Config.Cmd = nil, cmd
	}
	r.Extension.Env = maps.Clone(r.Extension.Env)
	for _, v := range s.env {
		if r.Extension.Env == nil {
			r.Extension.Env = map[string]string{}
		}
		r.Extension.Env[v.Key] = v.Value
	}
	return r
}

// layerHistory has one entry for each layer. Without it the exporter would write what the cache knows of a layer, which
// is the line that made it first, in whatever Kubefile that was.
func (s *stage) layerHistory(epoch time.Time) []ocispec.History {
	var out []ocispec.History
	if s.base != nil {
		out = slices.Clone(s.base.Config.History)
		have := 0
		for _, h := range out {
			if !h.EmptyLayer {
				have++
			}
		}
		for range len(s.base.Config.RootFS.DiffIDs) - have {
			out = append(out, History(epoch, "FROM "+s.base.Name))
		}
	}
	for _, text := range s.history {
		out = append(out, History(epoch, text))
	}
	return out
}

// History is the config's entry of one layer.
func History(epoch time.Time, text string) ocispec.History {
	return ocispec.History{Created: &epoch, CreatedBy: text, Comment: "sealer"}
}

func pathOf(env []string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return ""
}
