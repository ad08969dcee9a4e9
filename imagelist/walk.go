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
	before   int // lines of the file before the document
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
		w.value(object, false)
		s := w.scan
		if isObject(object) {
			s.images = append(s.images, w.images...)
			s.problems = append(s.problems, w.problems...)
			continue
		}
		if n := len(w.images) + len(w.problems); n > 0 {
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

// value looks into a node. Lists and maps behind an alias are not entered: they
// are seen where their anchor stands, so that aliases of aliases cost nothing.
func (w *walk) value(node *yaml.Node, isContainer bool) {
	switch node.Kind {
	case yaml.SequenceNode:
		for _, child := range node.Content {
			w.value(child, isContainer)
		}
	case yaml.MappingNode:
		if text(field(node, "kind")) == "CustomResourceDefinition" {
			return // its image keys are a schema's
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			w.pair(text(node.Content[i]), node.Content[i+1], isContainer)
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
}

func (w *walk) pair(key string, value *yaml.Node, isContainer bool) {
	switch key {
	case "labels", "annotations", "matchLabels", "selector", "nodeSelector":
		return // the keys there are the user's own words
	case "image":
		if found := scalar(value); found != nil {
			w.reference(value, found, isContainer)
			return
		}
		w.parts(value)
	case "containers", "initContainers", "ephemeralContainers":
		w.value(value, true)
		return
	default:
		if found := scalar(value); found != nil && strings.HasSuffix(strings.ToLower(key), "image") && isSurelyImage(found.Value) {
			w.reference(value, found, false)
			return
		}
	}
	w.value(value, false)
}

// parts reads an image that is written as a map: an image volume's reference
// (https://kubernetes.io/docs/concepts/storage/volumes/#image), or repository,
// tag and digest, as many custom resources have it.
func (w *walk) parts(node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		return
	}
	if found := scalar(field(node, "reference")); found != nil {
		w.reference(field(node, "reference"), found, true)
		return
	}
	repository := text(field(node, "repository"))
	if repository == "" {
		return
	}
	name := repository
	if registry := text(field(node, "registry")); registry != "" {
		name = strings.TrimSuffix(registry, "/") + "/" + name
	}
	tag, digest := text(field(node, "tag")), text(field(node, "digest"))
	if tag != "" {
		name += ":" + tag
	}
	if digest != "" {
		name += "@" + digest
	}
	line := w.line(field(node, "repository"))
	if tag == "" && digest == "" && !isSurelyImage(name) {
		w.problem(line, fmt.Sprintf("the image %q has no tag and no digest here: write it into imageList", shorten(name)))
		return
	}
	w.add(line, name)
}

// reference takes the value of a key. at is where it stands, found what it
// says: they differ where at is an alias.
func (w *walk) reference(at, found *yaml.Node, isContainer bool) {
	switch {
	case found.Tag == "!!null" || strings.TrimSpace(found.Value) == "" && found.Tag == "!!str":
		if isContainer {
			w.problem(w.line(at), "the image is empty: if something fills it in later, write that image into imageList")
		}
	case found.Tag != "!!str":
		w.problem(w.line(at), fmt.Sprintf("the image %s is no string", shorten(found.Value)))
	case strings.ContainsRune(found.Value, maskRune):
		w.problem(w.line(at), "the image depends on a template's values: write it into imageList")
	default:
		w.add(w.line(at), strings.TrimSpace(found.Value))
	}
}

func (w *walk) add(line int, ref string) {
	name, err := Normalize(ref)
	if err != nil {
		w.problem(line, err.Error())
		return
	}
	w.images = append(w.images, Image{Name: name, Origins: []Origin{{File: w.scan.source.file, Line: line}}})
}

func (w *walk) problem(line int, message string) {
	w.problems = append(w.problems, w.scan.source.problemAt(line, message))
}

func (w *walk) line(node *yaml.Node) int { return w.scan.source.clamp(w.before + node.Line) }

// isSurelyImage says whether a string names a registry, and a tag or a digest:
// enough to tell an image from other things that are called one, as
// machineImage: ubuntu-24.04.
func isSurelyImage(value string) bool {
	value = strings.TrimSpace(value)
	domain, rest, ok := strings.Cut(value, "/")
	if !ok || !strings.ContainsAny(domain, ".:") || strings.Contains(value, "://") {
		return false
	}
	if !strings.ContainsAny(rest, ":@") {
		return false
	}
	_, err := Normalize(value)
	return err == nil
}
