// SPDX-License-Identifier: Apache-2.0

// Package chart renders Helm charts with Helm's own engine, without a cluster,
// a network or a program. What stops a chart is found file by file, so that the
// rest of it can still be read.
package chart

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// MaxSize is how much a chart with all its dependencies may hold, unpacked, in
// bytes; Helm's own bound is that for each archive.
const MaxSize = 100 << 20

// maxNesting is how deep charts in charts are unpacked.
const maxNesting = 8

// File is a file of a chart.
type File struct {
	Name string // relative to the chart's folder, with slashes
	Data []byte
}

// Options are what a chart is rendered with.
type Options struct {
	KubeVersion string   // such as v1.36.3; "" is the one that Helm knows
	APIVersions []string // beyond those of Kubernetes itself
	Values      []File   // files over the chart's own values, later ones win
}

// Rendered is what became of a template.
type Rendered struct {
	Name string // templates/x.yaml, charts/y/templates/z.yaml
	Text string
}

// Problem is something that keeps a chart, or a part of it, from being installed.
type Problem struct {
	File    string // relative to the chart's folder, or a name of Options.Values
	Line    int    // counted from 1; 0 where it is not known
	Message string
}

// Check says whether version is one that Options takes.
func Check(version string) error {
	if _, err := common.ParseKubeVersion(version); err != nil {
		return fmt.Errorf("%q is no version of Kubernetes: %w", version, err)
	}
	return nil
}

// Unpack reads a packaged chart (.tgz).
func Unpack(data []byte) ([]File, error) {
	unpacked, err := archive.LoadArchiveFiles(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	files := make([]File, len(unpacked))
	for i, f := range unpacked {
		files[i] = File{Name: f.Name, Data: f.Data}
	}
	return files, nil
}

// Render renders all templates of a chart but those of disabled dependencies:
// as helm template does, with the chart's values and those of o. Values are not
// checked against the chart's schema, which may be somewhere in a network. The
// result is sorted by name; what does not render is a Problem.
func Render(files []File, o Options) ([]Rendered, []Problem) {
	r := &renderer{o: o}
	c := r.load(files)
	if c == nil || c.Metadata.Type == "library" {
		return nil, r.problems
	}
	values, ok := r.values()
	if !ok {
		return nil, r.problems
	}
	caps, err := capabilities(o)
	if err != nil {
		r.problem("Chart.yaml", err)
		return nil, r.problems
	}
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, caps.KubeVersion.String()) {
		r.problem("Chart.yaml", fmt.Errorf("the chart is for Kubernetes %s, not for %s", want, caps.KubeVersion.Version))
	}
	r.dependencies(c, "Chart.yaml")
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		r.problem("Chart.yaml", fmt.Errorf("working out its dependencies: %w", err))
		return nil, r.problems
	}
	release := common.ReleaseOptions{Name: c.Name(), Namespace: "default", Revision: 1, IsInstall: true}
	top, err := util.ToRenderValuesWithSchemaValidation(c, values, release, caps, true)
	if err != nil {
		r.problem("values.yaml", err)
		return nil, r.problems
	}
	return r.render(c, top), r.problems
}

type renderer struct {
	o        Options
	problems []Problem
}

func (r *renderer) problem(file string, err error) {
	r.problems = append(r.problems, Problem{File: file, Message: err.Error()})
}

// load puts the files together; nil where they are no chart.
func (r *renderer) load(files []File) *chart.Chart {
	budget := int64(MaxSize)
	all, err := expand(files, &budget, 0)
	if err != nil {
		r.problem("Chart.yaml", err)
		return nil
	}
	c, err := loader.LoadFiles(all)
	if err != nil {
		r.problem("Chart.yaml", err)
		return nil
	}
	return c
}

// expand unpacks the archives below charts/, so that all of them share a bound.
func expand(files []File, budget *int64, depth int) ([]*archive.BufferedFile, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("charts lie in charts more than %d deep", maxNesting)
	}
	var out []*archive.BufferedFile
	for _, f := range files {
		if *budget -= int64(len(f.Data)); *budget < 0 {
			return nil, fmt.Errorf("the chart holds more than %d bytes", MaxSize)
		}
		if path.Ext(f.Name) != ".tgz" || path.Base(path.Dir(f.Name)) != "charts" {
			out = append(out, &archive.BufferedFile{Name: f.Name, Data: bytes.TrimPrefix(f.Data, []byte("\ufeff"))})
			continue
		}
		inner, err := Unpack(f.Data)
		if err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", f.Name, err)
		}
		unpacked, err := expand(inner, budget, depth+1)
		if err != nil {
			return nil, err
		}
		for _, one := range unpacked {
			one.Name = path.Join(strings.TrimSuffix(f.Name, ".tgz"), one.Name)
			out = append(out, one)
		}
	}
	return out, nil
}

// values joins the files over the chart's own.
func (r *renderer) values() (map[string]any, bool) {
	values := map[string]any{}
	for _, f := range r.o.Values {
		one, err := loader.LoadValues(bytes.NewReader(f.Data))
		if err != nil {
			r.problem(f.Name, err)
			return nil, false
		}
		values = loader.MergeMaps(values, one)
	}
	return values, true
}

func capabilities(o Options) (*common.Capabilities, error) {
	caps := common.DefaultCapabilities.Copy()
	caps.APIVersions = append(slices.Clone(caps.APIVersions), o.APIVersions...)
	if o.KubeVersion == "" {
		return caps, nil
	}
	version, err := common.ParseKubeVersion(o.KubeVersion)
	if err != nil {
		return nil, fmt.Errorf("%q is no version of Kubernetes: %w", o.KubeVersion, err)
	}
	caps.KubeVersion = *version
	return caps, nil
}

// dependencies reports those that the chart names and does not hold: Helm would
// not install it.
func (r *renderer) dependencies(c *chart.Chart, file string) {
	var have []string
	for _, one := range c.Dependencies() {
		have = append(have, one.Name())
		r.dependencies(one, path.Join("charts", one.Name(), "Chart.yaml"))
	}
	for _, want := range c.Metadata.Dependencies {
		if !slices.Contains(have, want.Name) {
			r.problem(file, fmt.Errorf("the dependency %q is not in charts/: run helm dependency build", want.Name))
		}
	}
}

// render renders everything that can be. Helm stops at the first template with
// a mistake: that one is taken out, and the others are tried again.
func (r *renderer) render(c *chart.Chart, values common.Values) []Rendered {
	tolerant := false
	out := map[string]string{}
	for range templates(c) + 2 {
		e := engine.Engine{CustomTemplateFuncs: functions(tolerant)}
		rendered, err := e.Render(c, values) //nolint:staticcheck // there is no cluster, and so nothing to wait for
		if err == nil {
			out = rendered
			break
		}
		at := position(c, err)
		at.Message = "the template does not render: " + clean(err)
		if !slices.ContainsFunc(r.problems, func(p Problem) bool { return p.File == at.File && p.Line == at.Line }) {
			r.problems = append(r.problems, at)
		}
		if !tolerant { // a value that is required may have nothing to do with an image
			tolerant = true
			continue
		}
		if !remove(c, at.File) {
			break
		}
	}
	var all []Rendered
	for _, name := range slices.Sorted(maps.Keys(out)) {
		_, inside, _ := strings.Cut(name, "/")
		if text := out[name]; path.Base(name) != "NOTES.txt" && strings.TrimSpace(text) != "" {
			all = append(all, Rendered{Name: inside, Text: text})
		}
	}
	return all
}

func templates(c *chart.Chart) int {
	n := len(c.Templates)
	for _, one := range c.Dependencies() {
		n += templates(one)
	}
	return n
}

// remove empties a template, and says whether there was something to empty.
func remove(c *chart.Chart, name string) bool {
	for _, f := range c.Templates {
		if f.Name == name && len(f.Data) > 0 {
			f.Data = nil
			return true
		}
	}
	for _, one := range c.Dependencies() {
		if rest, ok := strings.CutPrefix(name, "charts/"+one.Name()+"/"); ok && remove(one, rest) {
			return true
		}
	}
	return false
}

// errTooMuch is what a template gets that asks for more than any manifest needs.
var errTooMuch = errors.New("that is more than a template may make here")
