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
	cmds     []string
	basePATH string
}

func (s *stage) startFrom(c *converter, base Base) {
	s.base = &base
	s.bottom, s.solid = base.State, base.State
	s.scope = c.o.Scope.Stage(base.Config.Config.Env)
	s.basePATH = pathOf(base.Config.Config.Env)
	_, s.linked = base.Config.Config.Labels[clusterimage.LabelExtension]
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
	n.cmds = slices.Clone(s.cmds)
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

func (s *stage) result(c *converter) (*Result, error) {
	r := &Result{State: s.state(), Added: s.added(), Base: s.base, Labels: s.labels, Warnings: s.scope.Warnings(), Beside: s.beside}
	if s.base != nil {
		r.Config = s.base.Config
		if label, ok := r.Config.Config.Labels[clusterimage.LabelExtension]; ok {
			ext, err := clusterimage.ParseExtension([]byte(label))
			if err != nil {
				return nil, c.at(s.in.From.Lines().First, err)
			}
			r.Extension = ext
		}
		r.Extension.Base = &clusterimage.Base{Name: s.base.Name, Digest: s.base.Digest}
	}
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
	r.Extension.Launch.Cmds = append(slices.Clone(r.Extension.Launch.Cmds), s.cmds...)
	r.Config.Config.Cmd = launchCommand(r.Extension.Launch.Cmds)
	r.Extension.Env = maps.Clone(r.Extension.Env)
	for _, v := range s.env {
		if r.Extension.Env == nil {
			r.Extension.Env = map[string]string{}
		}
		r.Extension.Env[v.Key] = v.Value
	}
	return r, nil
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

// launchCommand is the launch commands as an OCI config has them, for tools that know no ClusterImage.
func launchCommand(cmds []string) []string {
	if len(cmds) == 0 {
		return nil
	}
	return []string{"/bin/sh", "-ec", strings.Join(cmds, "\n")}
}

// commandLine is a CMD as one line for the shell.
func commandLine(c *kubefile.Cmd) string {
	if c.Shell {
		return strings.Join(c.Args, " ")
	}
	words := make([]string, len(c.Args))
	for i, w := range c.Args {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

// quote gives one word of a POSIX shell command.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func pathOf(env []string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return ""
}
