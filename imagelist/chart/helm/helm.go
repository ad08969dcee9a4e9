// SPDX-License-Identifier: Apache-2.0

// Package helm renders Helm charts with Helm's own engine, without a cluster,
// a network or a program. What stops a chart is found file by file, so that the
// rest of it can still be read. It is apart from its callers because Helm is heavy:
// what links it takes 15 ms longer to start and is 14 MB larger.
package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"

	"github.com/sealerio/sealer/imagelist/chart"
)

// maxNesting is how deep charts in charts are unpacked.
const maxNesting = 8

// Renderer renders in this process. A chart can take any time and any memory that its templates like, and nothing
// stops them: chart.Program gives them a process of their own.
type Renderer struct{}

// Render renders a chart, as chart.Renderer has it. It looks at ctx before it starts, and then no more.
func (Renderer) Render(ctx context.Context, files []chart.File, o chart.Options) (chart.Result, error) {
	if err := ctx.Err(); err != nil {
		return chart.Result{}, err
	}
	rendered, problems := render(files, o)
	return chart.Result{Rendered: rendered, Problems: problems}, nil
}

// render does what chart.Renderer promises. Values are not checked against the chart's schema, which may be somewhere
// in a network.
func render(files []chart.File, o chart.Options) ([]chart.Rendered, []chart.Problem) {
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
	o        chart.Options
	problems []chart.Problem
}

func (r *renderer) problem(file string, err error) {
	r.problems = append(r.problems, chart.Problem{File: file, Message: err.Error()})
}

// load puts the files together; nil where they are no chart.
func (r *renderer) load(files []chart.File) *v2.Chart {
	budget := int64(chart.MaxSize)
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
func expand(files []chart.File, budget *int64, depth int) ([]*archive.BufferedFile, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("charts lie in charts more than %d deep", maxNesting)
	}
	var out []*archive.BufferedFile
	for _, f := range files {
		if *budget -= int64(len(f.Data)); *budget < 0 {
			return nil, fmt.Errorf("the chart holds more than %d bytes", chart.MaxSize)
		}
		if path.Ext(f.Name) != ".tgz" || path.Base(path.Dir(f.Name)) != "charts" {
			out = append(out, &archive.BufferedFile{Name: f.Name, Data: bytes.TrimPrefix(f.Data, []byte("\ufeff"))})
			continue
		}
		inner, err := chart.Unpack(f.Data)
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

func capabilities(o chart.Options) (*common.Capabilities, error) {
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
func (r *renderer) dependencies(c *v2.Chart, file string) {
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
func (r *renderer) render(c *v2.Chart, values common.Values) []chart.Rendered {
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
		if !slices.ContainsFunc(r.problems, func(p chart.Problem) bool { return p.File == at.File && p.Line == at.Line }) {
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
	var all []chart.Rendered
	for _, name := range slices.Sorted(maps.Keys(out)) {
		_, inside, _ := strings.Cut(name, "/")
		if text := out[name]; path.Base(name) != "NOTES.txt" && strings.TrimSpace(text) != "" {
			all = append(all, chart.Rendered{Name: inside, Text: text})
		}
	}
	return all
}

func templates(c *v2.Chart) int {
	n := len(c.Templates)
	for _, one := range c.Dependencies() {
		n += templates(one)
	}
	return n
}

// remove empties a template, and says whether there was something to empty.
func remove(c *v2.Chart, name string) bool {
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
