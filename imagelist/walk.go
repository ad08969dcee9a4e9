// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// walk looks for images in one document.
type walk struct {
	scan     *scan
	before   int                 // lines of the file before the document
	entered  map[*yaml.Node]bool // anchors that an alias led to: each once, so that aliases of aliases cost nothing
	images   []Image
	problems []Problem
}

// root takes what a document holds, if it is a Kubernetes object.
func (w *walk) root(node *yaml.Node) {
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	objects := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		objects = node.Content
	}
	for _, object := range objects {
		w.images, w.problems = nil, nil
		s := w.scan
		if isObject(object) {
			w.object(object, "")
			s.images = append(s.images, w.images...)
			s.problems = append(s.problems, w.problems...)
			continue
		}
		w.value("", object)
		n := len(w.problems)
		for _, image := range w.images {
			if !image.Candidate || image.Origins[0].Field == "image" {
				n++
			}
		}
		switch {
		case s.values:
			s.images = append(s.images, w.images...)
		case n > 0:
			s.problems = append(s.problems, s.source.problemAt(w.before+object.Line, fmt.Sprintf(
				"no Kubernetes object (apiVersion or kind is missing): what it calls image, %d times, is not packed; write it into imageList", n)))
		}
	}
}

func isObject(node *yaml.Node) bool {
	return text(field(node, "apiVersion")) != "" && text(field(node, "kind")) != ""
}

// field returns the value of a key, nil where there is none.
func field(node *yaml.Node, name string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if text(node.Content[i]) == name {
			return node.Content[i+1]
		}
	}
	return nil
}

// scalar returns a scalar or the one that an alias stands for, else nil.
func scalar(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Kind != yaml.ScalarNode {
		return nil
	}
	return node
}

// text returns the value of a scalar, empty where the node is none.
func text(node *yaml.Node) string {
	if node = scalar(node); node != nil && node.Tag != "!!null" {
		return node.Value
	}
	return ""
}

// behind returns the list or map that an alias stands for, once; any other node as it is.
func (w *walk) behind(node *yaml.Node) *yaml.Node {
	if node.Kind != yaml.AliasNode || node.Alias == nil || node.Alias.Kind == yaml.ScalarNode {
		return node
	}
	if w.entered[node.Alias] {
		return node
	}
	if w.entered == nil {
		w.entered = map[*yaml.Node]bool{}
	}
	w.entered[node.Alias] = true
	return node.Alias
}

// certainty says what is made of a text that is an image, or is none.
type certainty int

const (
	// possible: it is a candidate, and no problem where it is no reference.
	possible certainty = iota
	// likely: a candidate, and a problem where it is no reference.
	likely
	// certain: Kubernetes pulls it.
	certain
)

// reference takes the value of a key. at is where it stands, found what it
// says: they differ where at is an alias.
func (w *walk) reference(at, found *yaml.Node, sure certainty, what string) {
	value := strings.TrimSpace(found.Value)
	switch {
	case found.Tag == "!!null" || value == "" && found.Tag == "!!str":
		if sure == certain {
			w.problem(w.line(at), "the image is empty: if something fills it in later, write that image into imageList")
		}
	case found.Tag != "!!str":
		if sure != possible {
			w.problem(w.line(at), fmt.Sprintf("the image %s is no string", shorten(value)))
		}
	case strings.ContainsRune(value, maskRune):
		if sure != possible {
			w.problem(w.line(at), "the image depends on a template's values: write it into imageList")
		}
	case value == "auto" && sure == certain:
		// https://istio.io/latest/docs/setup/additional-setup/gateway/
		w.problem(w.line(at), `the image "auto" is filled in by an injector: write its image into imageList`)
	default:
		w.add(w.line(at), value, sure, what)
	}
}

func (w *walk) add(line int, ref string, sure certainty, what string) {
	name, err := Normalize(ref)
	if err != nil {
		if sure != possible {
			w.problem(line, err.Error())
		}
		return
	}
	w.images = append(w.images, Image{Name: name, Candidate: sure != certain, Origins: []Origin{{File: w.scan.source.file, Line: line, Field: what}}})
}

func (w *walk) problem(line int, message string) {
	w.problems = append(w.problems, w.scan.source.problemAt(line, message))
}

func (w *walk) line(node *yaml.Node) int { return w.scan.source.clamp(w.before + node.Line) }
