// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxEmbedding is how deep files in files are looked into: a ConfigMap with a
// manifest with a script.
const maxEmbedding = 3

// data takes the files of a ConfigMap or a Secret. They are looked into on
// request only: what is in them is asked for by a program, if at all. What they
// seem to name is reported all the same.
func (w *walk) data(node *yaml.Node, kind, key string) {
	if meta := field(node, "metadata"); meta != nil {
		if found := field(meta, "annotations"); found != nil {
			w.annotations(found)
		}
	}
	files := field(node, key)
	if files == nil {
		return
	}
	files = w.behind(files)
	var images []Image
	var problems []Problem
	for i := 1; i < len(files.Content); i += 2 {
		if value := files.Content[i]; scalar(value) != nil {
			found, wrong := w.embedded(value)
			images, problems = append(images, found...), append(problems, wrong...)
		}
	}
	switch {
	case w.scan.configMaps:
		w.images, w.problems = append(w.images, images...), append(w.problems, problems...)
	case len(images) > 0:
		images = Merge(images)
		w.problem(w.line(node), fmt.Sprintf("the %s %q names %d images, %s first, which are not packed: pack them, too (--config-maps), or write them into imageList",
			kind, shorten(text(field(fieldOf(node, "metadata"), "name"))), len(images), images[0].Name))
	}
}

// fieldOf is field, with an empty node for none.
func fieldOf(node *yaml.Node, name string) *yaml.Node {
	if found := field(node, name); found != nil {
		return found
	}
	return &yaml.Node{}
}

// isManifestText tells a text that holds a Kubernetes object.
func isManifestText(text string) bool {
	return strings.Contains(text, "\n") && strings.Contains(text, "apiVersion:") && strings.Contains(text, "kind:")
}

// embedded looks into a text: YAML, or words.
func (w *walk) embedded(at *yaml.Node) ([]Image, []Problem) {
	content := scalar(at)
	if w.scan.depth >= maxEmbedding || content.Tag != "!!str" {
		return nil, nil
	}
	inner := &scan{source: newSource(w.scan.source.file, []byte(content.Value)), depth: w.scan.depth + 1, values: true, configMaps: w.scan.configMaps}
	for _, doc := range documents(inner.source.lines) {
		inner.document(doc, true)
	}
	if len(inner.errs) > 0 || len(inner.images) == 0 {
		for i, line := range inner.source.lines {
			for _, ref := range imagesIn(line) {
				if name, err := Normalize(ref); err == nil {
					inner.images = append(inner.images, Image{Name: name, Candidate: true, Origins: []Origin{{File: inner.source.file, Line: i + 1, Field: "text"}}})
				}
			}
		}
	}
	// The lines of a literal block are those of the file, one below the other.
	place := func(line int) int {
		if content.Style&yaml.LiteralStyle == 0 || content != at {
			return w.line(at)
		}
		return w.scan.source.clamp(w.before + at.Line + line)
	}
	for i := range inner.images {
		for j := range inner.images[i].Origins {
			inner.images[i].Origins[j].Line = place(inner.images[i].Origins[j].Line)
		}
	}
	var problems []Problem
	for _, p := range inner.problems {
		problems = append(problems, w.scan.source.problemAt(place(p.Line), p.Message))
	}
	return inner.images, problems
}
