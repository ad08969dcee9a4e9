// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/imagelist/kustomization"
)

// tree is what lies in a folder of manifests.
type tree struct {
	manifests      []string
	kustomizations []string // files
	charts         []string // folders and .tgz
}

// tree takes a folder of manifests, charts and kustomizations.
func (d *discovery) tree(ctx context.Context, root, app string) {
	t := d.survey(root)
	built := d.kustomizations(t.kustomizations, app)
	var values []string
	for _, one := range t.charts {
		values = append(values, d.chart(ctx, one, app, root == chartsFolder)...)
	}
	for _, name := range t.manifests {
		if !built[name] && !slices.Contains(values, name) {
			d.manifest(name, app)
		}
	}
}

const (
	chartsFolder = "charts"
	chartFile    = "Chart.yaml"
)

// charts takes the folder charts: what else lies there is values.
func (d *discovery) charts(ctx context.Context) {
	for _, one := range d.survey(chartsFolder).charts {
		d.chart(ctx, one, "", true)
	}
}

// survey lists what lies below root.
func (d *discovery) survey(root string) tree {
	var t tree
	err := fs.WalkDir(d.fsys, root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == root:
			return fs.SkipAll
		case err != nil:
			d.fail(err)
			return nil
		case entry.Type()&fs.ModeSymlink != 0:
			if d.link(name) {
				t.file(name)
			}
		case !entry.IsDir():
			t.file(name)
		default:
			if info, err := fs.Stat(d.fsys, path.Join(name, chartFile)); err == nil && !info.IsDir() {
				t.charts = append(t.charts, name)
				return fs.SkipDir
			}
		}
		return nil
	})
	d.fail(err)
	return t
}

func (t *tree) file(name string) {
	switch {
	case kustomization.IsFile(path.Base(name)):
		t.kustomizations = append(t.kustomizations, name)
	case path.Ext(name) == ".tgz":
		t.charts = append(t.charts, name)
	case isManifest(name):
		t.manifests = append(t.manifests, name)
	}
}

// link says whether a symbolic link leads to a file; those to folders are not followed.
func (d *discovery) link(name string) bool {
	info, err := fs.Stat(d.fsys, name)
	switch {
	case err == nil && info.IsDir():
		d.problem(name, "the symbolic link leads to a folder, which is not looked into")
	case err == nil:
		return true
	case isManifest(name):
		d.problem(name, "the symbolic link leads nowhere")
	}
	return false
}

// root takes the Kubernetes objects that lie at the root: a LAUNCH or CMD line
// applies them there. Other files there are not meant for Kubernetes, and their
// mistakes are none.
func (d *discovery) root() {
	entries, err := fs.ReadDir(d.fsys, ".")
	if err != nil {
		d.fail(err)
		return
	}
	for _, entry := range entries {
		name := entry.Name()
		if info, err := fs.Stat(d.fsys, name); err != nil || !info.Mode().IsRegular() || info.Size() > MaxFile || !isManifest(name) || kustomization.IsFile(name) {
			continue
		}
		src, err := d.read(name)
		if err != nil {
			d.fail(err)
			continue
		}
		images, problems, _ := ParseManifests(name, src, d.again)
		if len(images) > 0 {
			d.take("", images, problems)
		}
	}
}

// again hands the options on.
func (d *discovery) again(c *config) { *c = d.config }

func (d *discovery) manifest(name, app string) {
	src, err := d.read(name)
	if err != nil {
		d.fail(err)
		return
	}
	images, problems, err := ParseManifests(name, src, d.again)
	d.fail(err)
	d.take(app, images, problems)
}

// kustomizations builds those that are no base of another, and returns the
// files that count as they were built.
func (d *discovery) kustomizations(files []string, app string) map[string]bool {
	var bases []string
	for _, file := range files {
		if src, err := d.read(file); err == nil {
			bases = append(bases, kustomization.Bases(file, src)...)
		}
	}
	built := map[string]bool{}
	for _, file := range files {
		if slices.Contains(bases, path.Dir(file)) {
			continue
		}
		result := kustomization.Build(d.fsys, file)
		for _, p := range result.Problems {
			d.result.Problems = append(d.result.Problems, Problem{File: p.File, Line: p.Line, Message: p.Message})
		}
		for _, r := range result.Rendered {
			d.rendered(r.File, r.Text, app)
		}
		for name := range result.Read {
			built[name] = true
		}
	}
	return built
}

// rendered takes what was made of a file.
func (d *discovery) rendered(name, text, app string) {
	if len(text) > MaxFile {
		d.result.Problems = append(d.result.Problems, Problem{File: name, Message: tooLarge(name, int64(len(text))).Error()})
		return
	}
	images, problems, err := ParseManifests(name, []byte(text), d.again)
	var errs Errors
	errors.As(err, &errs)
	for _, one := range errs {
		problems = append(problems, Problem{File: name, Text: one.Text, Message: "what is rendered is no YAML: " + one.Err.Error()})
	}
	for i := range images {
		for j := range images[i].Origins {
			images[i].Origins[j].Line = 0
		}
	}
	for i := range problems {
		problems[i].Line = 0
	}
	d.take(app, images, problems)
}

// maxOtherArchive is how large a .tgz outside of charts/ may be to be looked
// into for a chart, in bytes: a package of Helm's holds text.
const maxOtherArchive = 4 << 20

// chart renders a chart and returns the names of its values' files.
func (d *discovery) chart(ctx context.Context, name, app string, mustBe bool) []string {
	files, ok := d.chartFiles(name, mustBe)
	if !ok {
		return nil
	}
	o := chart.Options{KubeVersion: d.kubeVersion, APIVersions: d.apiVersions}
	var names []string
	for _, file := range valuesOf(name) {
		src, err := d.read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			d.fail(err)
			continue
		}
		names = append(names, file)
		o.Values = append(o.Values, chart.File{Name: file, Data: src})
	}
	if d.renderer == nil {
		d.problem(name, "charts are not rendered here")
		return names
	}
	result, err := d.renderer.Render(ctx, files, o)
	if err != nil {
		d.fail(fmt.Errorf("rendering the chart %q: %w", name, err))
		return names
	}
	for _, p := range result.Problems {
		if !slices.Contains(names, p.File) {
			p.File = path.Join(name, p.File)
		}
		if p.Line > 0 {
			p.Message += "; give the values that it lacks in " + valuesOf(name)[0] + ", or write its images into imageList"
		}
		d.result.Problems = append(d.result.Problems, Problem{File: p.File, Line: p.Line, Text: lineOf(files, strings.TrimPrefix(p.File, name+"/"), p.Line), Message: p.Message})
	}
	for _, r := range result.Rendered {
		d.rendered(path.Join(name, r.Name), r.Text, app)
	}
	return names
}

// valuesOf are the files that may lie beside a chart; a package's name may end in its version.
func valuesOf(name string) []string {
	base := strings.TrimSuffix(name, ".tgz")
	names := []string{base + ".values.yaml"}
	if i := strings.LastIndexByte(base, '-'); base != name && i > strings.LastIndexByte(base, '/') {
		for i > 0 && (i+1 >= len(base) || base[i+1] < '0' || base[i+1] > '9') && strings.LastIndexByte(base[:i], '-') > strings.LastIndexByte(base, '/') {
			i = strings.LastIndexByte(base[:i], '-') // shop-1.0.0-rc.1
		}
		names = append([]string{base[:i] + ".values.yaml"}, names...)
	}
	return names
}

func lineOf(files []chart.File, name string, line int) string {
	for _, f := range files {
		if f.Name == name && line > 0 {
			if lines := strings.Split(string(f.Data), "\n"); line <= len(lines) {
				return strings.TrimSuffix(lines[line-1], "\r")
			}
		}
	}
	return ""
}

// chartFiles reads a chart, as a folder or a package. Another archive is no mistake where a chart must not be.
func (d *discovery) chartFiles(name string, mustBe bool) ([]chart.File, bool) {
	info, err := fs.Stat(d.fsys, name)
	if err != nil {
		d.fail(err)
		return nil, false
	}
	if info.IsDir() {
		files, err := chart.Read(d.fsys, name)
		d.fail(err)
		return files, err == nil
	}
	if !mustBe && info.Size() > maxOtherArchive {
		return nil, false
	}
	src, err := d.read(name)
	if err != nil {
		d.fail(err)
		return nil, false
	}
	if !chart.IsPackage(src) {
		if mustBe {
			d.problem(name, "the archive holds no chart")
		}
		return nil, false
	}
	files, err := chart.Unpack(src)
	if err != nil {
		d.problem(name, "the chart cannot be unpacked: "+err.Error())
		return nil, false
	}
	return files, true
}
