// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"

	"github.com/sealerio/sealer/internal/atomicfile"
)

const (
	templateSuffix = ".tmpl"
	maxTemplate    = 16 << 20
	applications   = "application/apps/" // a folder for each below it
)

// Values are what templates may use: {{ .name }}.
type Values map[string]any

// Rendering is what all templates may use, and what those of an application, below application/apps/NAME, may use beside
// it; that goes over it.
type Rendering struct {
	Values       Values            `json:"values"`
	Applications map[string]Values `json:"applications"`
}

// ReadRendering reads {"values":{…},"applications":{"NAME":{…}}}. Whole numbers stay whole: 1000000 does not become 1e+06.
func ReadRendering(r io.Reader) (Rendering, error) {
	var in Rendering
	if err := readJSON(r, "the values", &in); err != nil {
		return Rendering{}, err
	}
	for _, values := range append(slices.Collect(maps.Values(in.Applications)), in.Values) {
		for k, v := range values {
			values[k] = plainNumbers(v)
		}
	}
	return in, nil
}

// of are the values for a template, whose path is relative to the rootfs.
func (r Rendering) of(name string) Values {
	all := Values{}
	maps.Copy(all, r.Values)
	if rest, ok := strings.CutPrefix(filepath.ToSlash(name), applications); ok {
		app, _, _ := strings.Cut(rest, "/")
		maps.Copy(all, r.Applications[app])
	}
	return all
}

// plainNumbers turns json.Number, which templates cannot compare, into int64 or float64.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return v.String()
	case map[string]any:
		for k, e := range v {
			v[k] = plainNumbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plainNumbers(e)
		}
	}
	return v
}

// Render fills in every x.tmpl below etc, scripts, manifests, charts and application of a mounted rootfs, and writes it to
// x, with the template's mode. The templates stay: rendering again with other values is fine. All
// templates are executed before the first file is written; the error names file, line and key of everything that fails:
// a *MissingValueError for each value that is not given.
//
// Templates are Go's, with the functions of sprig less those that look at the environment or the network. A value that is not
// given is an error; {{ with index . "x" }} asks for one that may be missing.
func Render(dir string, in Rendering) ([]string, error) {
	var files, done []string
	for _, top := range []string{"etc", "scripts", "manifests", "charts", "application"} {
		err := filepath.WalkDir(filepath.Join(dir, top), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, templateSuffix) && filepath.Base(path) != templateSuffix {
				files = append(files, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("looking for templates: %w", err)
		}
	}
	var errs []error
	rendered := make([][]byte, len(files))
	for i, file := range files {
		var err error
		name, relErr := filepath.Rel(dir, file)
		if rendered[i], err = renderFile(name, file, in.of(name)); errors.Join(err, relErr) != nil {
			errs = append(errs, fmt.Errorf("rendering %q: %w", name, errors.Join(err, relErr)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return done, fmt.Errorf("rendering %q: %w", file, err)
		}
		target := strings.TrimSuffix(file, templateSuffix)
		if err := atomicfile.Write(target, rendered[i], info.Mode().Perm()); err != nil {
			return done, err
		}
		done = append(done, target)
	}
	return done, nil
}

func renderFile(name, file string, values Values) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxTemplate {
		err = fmt.Errorf("it is larger than %d bytes", maxTemplate)
	}
	if err != nil {
		return nil, err
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	funcs := sprig.TxtFuncMap()
	for _, f := range []string{"env", "expandenv", "getHostByName"} {
		delete(funcs, f)
	}
	t, err := template.New(name).Funcs(funcs).Option("missingkey=error").Parse(string(src))
	if err == nil {
		err = missingValues(t, string(src), values)
	}
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, map[string]any(values)); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
