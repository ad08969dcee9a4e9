// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/sealerio/sealer/imagelist"
)

// sampleImage is small, and runs until it is told to stop.
const sampleImage = "registry.k8s.io/pause:3.10.2"

//go:embed application.tmpl
var applicationText string

var notName = regexp.MustCompile(`[^a-z0-9-]+`)

// application plans the context of an application: a manifest that is launched by its name, and lists.
func (p *plan) application(context.Context) error {
	if p.o.Runtime != "" || p.o.From != "" || p.o.Version != "" {
		return errors.New("an application has no runtime, no version and no programs of its own")
	}
	abs, err := filepath.Abs(p.o.Dir)
	if err != nil {
		return fmt.Errorf("finding the folder %q: %w", p.o.Dir, err)
	}
	name := strings.Trim(notName.ReplaceAllString(strings.ToLower(filepath.Base(abs)), "-"), "-")
	image := cmp.Or(p.o.Image, sampleImage)
	if _, err := imagelist.Normalize(image); err != nil {
		return fmt.Errorf("image %q: %w", image, err)
	}
	data := map[string]string{"Name": cmp.Or(name, "app"), "Image": image, "Base": cmp.Or(p.o.Base, "scratch"), "Dir": p.o.Dir}
	t, err := template.New("").Option("missingkey=error").Parse(applicationText)
	if err != nil {
		return fmt.Errorf("reading the template of an application: %w", err)
	}
	for _, file := range []string{"Kubefile", "imageList", "README.md", "manifests/" + data["Name"] + ".yaml.tmpl"} {
		part := file
		if strings.HasPrefix(file, "manifests/") {
			part = "manifest"
		}
		var text strings.Builder
		if err := t.ExecuteTemplate(&text, part, data); err != nil {
			return fmt.Errorf("writing %q: %w", file, err)
		}
		p.add(file, strings.TrimLeft(text.String(), "\n"))
	}
	p.result.Images = image
	p.result.Build = fmt.Sprintf("sealer build -t %s:v1 %s", data["Name"], p.o.Dir)
	return nil
}
