// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
)

// custom takes an object of a kind that is not known here.
func (w *walk) custom(node *yaml.Node) {
	taken := w.parts("", node)
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch key, value := text(node.Content[i]), node.Content[i+1]; key {
		case taken:
		case "status": // what was, not what is asked for
		case "metadata":
			if found := field(value, "annotations"); found != nil {
				w.annotations(found)
			}
		default:
			w.pair(key, value)
		}
	}
}

// value looks into a node. Lists and maps behind an alias are not entered: they
// are seen where their anchor stands.
func (w *walk) value(key string, node *yaml.Node) {
	switch node.Kind {
	case yaml.SequenceNode:
		for _, child := range node.Content {
			if scalar(child) != nil {
				w.pair(strings.TrimSuffix(key, "s"), child)
				continue
			}
			w.value(key, child)
		}
	case yaml.MappingNode:
		switch {
		case isObject(node):
			w.object(node, "")
			return
		case isContainerLike(node):
			w.typed(node, reflect.TypeFor[corev1.Container]())
			return
		}
		taken := w.parts(key, node)
		if name, value := text(field(node, "name")), scalar(field(node, "value")); name != "" && value != nil {
			w.variable(name, field(node, "value"))
			return
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			if name := text(node.Content[i]); name != taken {
				w.pair(name, node.Content[i+1])
			}
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
}

// isContainerLike tells a container in a custom resource by what else it has.
func isContainerLike(node *yaml.Node) bool {
	if scalar(field(node, "image")) == nil || field(node, "tag") != nil || field(node, "registry") != nil {
		return false
	}
	for _, key := range []string{"imagePullPolicy", "command", "args", "env", "envFrom", "volumeMounts", "securityContext"} {
		if field(node, key) != nil {
			return true
		}
	}
	return false
}

// pair takes a key by its name.
func (w *walk) pair(key string, value *yaml.Node) {
	switch key {
	case "labels", "matchLabels", "selector", "nodeSelector", "managedFields":
		return // the keys there are the user's own words
	case "annotations":
		w.annotations(value)
		return
	case "containers", "initContainers", "ephemeralContainers":
		w.typed(value, reflect.TypeFor[[]corev1.Container]())
		return
	case "command", "args", "extraArgs":
		if value.Kind == yaml.SequenceNode {
			w.arguments(value)
			return
		}
	}
	found := scalar(value)
	if found == nil {
		w.value(key, value)
		return
	}
	text := strings.TrimSpace(found.Value)
	lower := strings.ToLower(key)
	isImage := strings.HasSuffix(lower, "image")
	switch {
	case key == "image":
		sure := likely
		if isSurelyImage(text) || looksLikeImage(text) && hasTag(text) || strings.ContainsRune(text, maskRune) {
			sure = certain
		}
		w.reference(value, found, sure, key)
	case isImage && (isSurelyImage(text) || strings.ContainsRune(text, maskRune)):
		w.reference(value, found, certain, key)
	case isImage && lacksTag(text) && lower != "baseimage":
		w.untagged(value, key, text)
	case isImage && looksLikeImage(text):
		w.reference(value, found, possible, key)
	case isManifestText(found.Value):
		images, problems := w.embedded(value)
		for _, image := range images {
			image.Candidate = true
			w.images = append(w.images, image)
		}
		w.problems = append(w.problems, problems...)
	default:
		w.text(value, found.Value, key)
	}
}

func hasTag(ref string) bool {
	return strings.ContainsAny(ref[strings.LastIndexByte(ref, '/')+1:], ":@")
}

// annotations takes those that are called an image and are one: those of
// operators and injectors, such as sidecar.istio.io/proxyImage.
func (w *walk) annotations(node *yaml.Node) {
	node = w.behind(node)
	if node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := text(node.Content[i]), node.Content[i+1]
		if found := scalar(value); found != nil && strings.HasSuffix(strings.ToLower(key), "image") && isSurelyImage(found.Value) {
			w.reference(value, found, possible, "annotation "+key)
		}
	}
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parts reads an image that is written as a map: an image volume's reference
// (https://kubernetes.io/docs/concepts/storage/volumes/#image), or registry,
// repository, tag and digest, as many custom resources have it. key is the
// map's own name. It returns the key that is part of an image, and none itself;
// "" where there is none, which no map has.
func (w *walk) parts(key string, node *yaml.Node) string {
	if found := scalar(field(node, "reference")); found != nil && key == "image" {
		w.reference(field(node, "reference"), found, certain, "image volume")
		return "reference"
	}
	first := func(names ...string) string {
		for _, name := range names {
			if value := text(field(node, name)); value != "" {
				return value
			}
		}
		return ""
	}
	from, sure := "repository", possible
	tag, digest, registry := first("tag", "imageTag"), first("digest", "sha"), first("registry", "imageRegistry")
	switch {
	case isImageWord(key):
		sure, tag = certain, cmp.Or(tag, first("version"))
	case first("repository") != "":
	case first("baseImage") != "":
		from, tag = "baseImage", first("tag", "version")
	case first("image") != "":
		from, tag = "image", first("tag", "imageTag", "version")
	default:
		return ""
	}
	if sure == certain && first(from) == "" {
		from = "image"
	}
	if sure == certain && first(from) == "" && tag+digest+registry != "" {
		from = "name"
	}
	at := field(node, from)
	name := text(at)
	if name == "" || strings.Contains(name, "://") || hasTag(name) {
		return ""
	}
	if registry != "" {
		name = strings.TrimSuffix(registry, "/") + "/" + name
	}
	if tag != "" {
		name += ":" + tag
	}
	if hexDigest.MatchString(digest) {
		digest = "sha256:" + digest
	}
	if digest != "" {
		name += "@" + digest
	}
	if tag == "" && digest == "" && from == "image" {
		return "" // it stands for itself
	}
	w.joined(at, name, tag == "" && digest == "", sure)
	return from
}

// isImageWord tells whether a map's name promises an image.
func isImageWord(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "image") || strings.HasSuffix(key, "img")
}

// joined adds the image that the parts make.
func (w *walk) joined(at *yaml.Node, name string, untagged bool, sure certainty) {
	switch {
	case untagged && sure == certain:
		w.problem(w.line(at), fmt.Sprintf("the image %q has no tag and no digest here: write it into imageList", shorten(name)))
	case untagged:
	case strings.ContainsRune(name, maskRune):
		w.problem(w.line(at), "the image depends on a template's values: write it into imageList")
	default:
		w.add(w.line(at), name, sure, "repository and tag")
	}
}
