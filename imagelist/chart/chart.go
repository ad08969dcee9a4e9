// SPDX-License-Identifier: Apache-2.0

// Package chart reads Helm charts and has them rendered. Helm's engine is in chart/helm: this package does not link it.
package chart

import (
	"bytes"
	"context"
	"fmt"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"k8s.io/apimachinery/pkg/util/version"
)

// MaxSize is how much a chart with all its dependencies may hold, unpacked, in
// bytes; Helm's own bound is that for each archive.
const MaxSize = 100 << 20

// File is a file of a chart.
type File struct {
	Name string `json:"name"` // relative to the chart's folder, with slashes
	Data []byte `json:"data,omitempty"`
}

// Options are what a chart is rendered with.
type Options struct {
	KubeVersion string   `json:"kubeVersion,omitempty"` // such as v1.36.3; "" is the one that Helm knows
	APIVersions []string `json:"apiVersions,omitempty"` // beyond those of Kubernetes itself
	Values      []File   `json:"values,omitempty"`      // files over the chart's own values, later ones win
}

// Result is what became of a chart.
type Result struct {
	Rendered []Rendered `json:"rendered,omitempty"` // sorted by name
	Problems []Problem  `json:"problems,omitempty"`
}

// Rendered is what became of a template.
type Rendered struct {
	Name string `json:"name"` // templates/x.yaml, charts/y/templates/z.yaml
	Text string `json:"text"`
}

// Problem is something that keeps a chart, or a part of it, from being installed.
type Problem struct {
	File    string `json:"file"`           // relative to the chart's folder, or a name of Options.Values
	Line    int    `json:"line,omitempty"` // counted from 1; 0 where it is not known
	Message string `json:"message"`
}

// Renderer renders all templates of a chart but those of disabled dependencies: as helm template does, with the
// chart's values and those of o. What does not render is a Problem; an error is not the chart's.
type Renderer interface {
	Render(ctx context.Context, files []File, o Options) (Result, error)
}

// Check says whether a version is one that Options takes.
func Check(kubeVersion string) error {
	if _, err := version.ParseGeneric(kubeVersion); err != nil {
		return fmt.Errorf("%q is no version of Kubernetes: %w", kubeVersion, err)
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
