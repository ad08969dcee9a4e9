// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// object takes a Kubernetes object: by its type where Kubernetes has one with
// containers, else by its words. kind is what an item of a typed list leaves out.
func (w *walk) object(node *yaml.Node, kind string) {
	group, _, _ := strings.Cut(text(field(node, "apiVersion")), "/")
	if own := text(field(node, "kind")); own != "" {
		kind = own
	}
	item, isList := strings.CutSuffix(kind, "List")
	switch {
	case kind == "CustomResourceDefinition": // its image keys are a schema's
	case kind == "Kustomization" && group == "kustomize.config.k8s.io": // speaks of the images of other files
	case isList && field(node, "items") != nil:
		if items := w.behind(field(node, "items")); items.Kind == yaml.SequenceNode {
			for _, one := range items.Content {
				w.object(w.behind(one), item)
			}
		}
	case kind == "ConfigMap" && group == "v1":
		w.data(node, "ConfigMap", "data")
	case kind == "Secret" && group == "v1":
		w.data(node, "Secret", "stringData")
	default:
		if t := kubernetesType(group, kind); t != nil {
			w.typed(node, t)
			return
		}
		w.custom(node)
	}
}

// kubernetesType is the Go type of the kinds with containers; nil for all others.
// The types of old versions have the same containers in the same places.
func kubernetesType(group, kind string) reflect.Type {
	var value any
	switch group + "/" + kind {
	case "v1/Pod":
		value = corev1.Pod{}
	case "v1/PodTemplate":
		value = corev1.PodTemplate{}
	case "v1/ReplicationController":
		value = corev1.ReplicationController{}
	case "apps/Deployment", "extensions/Deployment":
		value = appsv1.Deployment{}
	case "apps/ReplicaSet", "extensions/ReplicaSet":
		value = appsv1.ReplicaSet{}
	case "apps/DaemonSet", "extensions/DaemonSet":
		value = appsv1.DaemonSet{}
	case "apps/StatefulSet":
		value = appsv1.StatefulSet{}
	case "apps/ControllerRevision":
		value = appsv1.ControllerRevision{}
	case "batch/Job":
		value = batchv1.Job{}
	case "batch/CronJob":
		value = batchv1.CronJob{}
	default:
		return nil
	}
	return reflect.TypeOf(value)
}

// typed follows a Kubernetes type. What the type does not have, a field of a
// newer Kubernetes or an anchor, is taken by its words.
func (w *walk) typed(node *yaml.Node, t reflect.Type) {
	node = w.behind(node)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, child := range node.Content {
			w.typed(child, t.Elem())
		}
	case node.Kind == yaml.MappingNode && t.Kind() == reflect.Slice: // a mistake: one thing where a list belongs
		w.typed(node, t.Elem())
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Struct: // the other way round
		for _, child := range node.Content {
			w.typed(child, t)
		}
	case node.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		for i := 1; i < len(node.Content); i += 2 {
			w.typed(node.Content[i], t.Elem())
		}
	case node.Kind == yaml.MappingNode && t.PkgPath() == "k8s.io/apimachinery/pkg/runtime": // RawExtension
		w.value("", node)
	case node.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(node.Content); i += 2 {
			w.typedPair(text(node.Content[i]), node.Content[i+1], t)
		}
	}
}

func (w *walk) typedPair(key string, value *yaml.Node, t reflect.Type) {
	switch {
	case key == "<<":
		w.merged(value, t)
	case key == "status" || key == "managedFields": // what was, not what is asked for
	case key == "annotations":
		w.annotations(value)
	case key == "image" && isContainer(t):
		if found := scalar(value); found != nil {
			w.reference(value, found, certain, key)
		} else {
			w.value(key, value)
		}
	case key == "reference" && t == reflect.TypeFor[corev1.ImageVolumeSource]():
		if found := scalar(value); found != nil {
			w.reference(value, found, certain, "image volume")
		}
	case (key == "command" || key == "args") && (isContainer(t) || t == reflect.TypeFor[corev1.ExecAction]()):
		w.arguments(value)
	case key == "env" && isContainer(t):
		w.variables(value)
	default:
		if child, ok := typeOf(t, key); ok {
			w.typed(value, child)
			return
		}
		w.pair(key, value)
	}
}

// merged follows a merge key, https://yaml.org/type/merge.html.
func (w *walk) merged(value *yaml.Node, t reflect.Type) {
	value = w.behind(value)
	if value.Kind != yaml.SequenceNode {
		w.typed(value, t)
		return
	}
	for _, one := range value.Content {
		w.typed(one, t)
	}
}

func isContainer(t reflect.Type) bool {
	return t == reflect.TypeFor[corev1.Container]() || t == reflect.TypeFor[corev1.EphemeralContainer]()
}

// typeOf is the type of a field by its name in JSON.
func typeOf(t reflect.Type, name string) (reflect.Type, bool) {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return f.Type, true
		}
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			if found, ok := typeOf(f.Type, name); ok {
				return found, true
			}
		}
	}
	return nil, false
}

// variables takes the values of env.
func (w *walk) variables(node *yaml.Node) {
	node = w.behind(node)
	if node.Kind == yaml.MappingNode { // a mistake: names and values where a list belongs
		for i := 0; i+1 < len(node.Content); i += 2 {
			if scalar(node.Content[i+1]) != nil {
				w.variable(text(node.Content[i]), node.Content[i+1])
			}
		}
		return
	}
	for _, one := range node.Content {
		one = w.behind(one)
		if name, value := field(one, "name"), field(one, "value"); name != nil && scalar(value) != nil {
			w.variable(text(name), value)
		}
	}
}

// variable takes one: RELATED_IMAGE_… as operators have them
// (https://docs.openshift.com/container-platform/latest/operators/operator_sdk/osdk-generating-csvs.html),
// others that speak of images, and any that holds what can be nothing else.
func (w *walk) variable(name string, at *yaml.Node) {
	found := scalar(at)
	value, what := strings.TrimSpace(found.Value), "env "+name
	switch {
	case strings.HasPrefix(name, "RELATED_IMAGE_"):
		w.reference(at, found, likely, what)
	case strings.ContainsRune(value, maskRune):
		if speaksOfImages(name) {
			w.reference(at, found, likely, what)
		}
	case speaksOfImages(name) && looksLikeImage(value) && !lacksTag(value):
		w.reference(at, found, possible, what)
	case speaksOfImages(name) && lacksTag(value):
		w.untagged(at, what, value)
	default:
		w.text(at, value, what)
	}
}

// untagged reports what is an image but for its tag.
func (w *walk) untagged(at *yaml.Node, what, value string) {
	w.problem(w.line(at), what+" names "+shorten(value)+" without a tag and a digest: write the image that it stands for into imageList")
}

// text takes what surely is an image in a text.
func (w *walk) text(at *yaml.Node, value, what string) {
	for _, ref := range imagesIn(value) {
		w.add(w.line(at), ref, possible, what)
	}
}

// arguments takes a command line: --some-image=…, --some-image …, and any word
// that can be nothing else.
func (w *walk) arguments(node *yaml.Node) {
	node = w.behind(node)
	if node.Kind != yaml.SequenceNode {
		w.value("args", node)
		return
	}
	flag := ""
	for _, one := range node.Content {
		found := scalar(one)
		if found == nil {
			flag = ""
			continue
		}
		name, value, ok := strings.Cut(found.Value, "=")
		switch {
		case ok && isFlag(name):
			w.argument(one, name, value)
			flag = ""
		case isFlag(found.Value):
			flag = found.Value
		default:
			w.argument(one, flag, found.Value)
			flag = ""
		}
	}
}

func isFlag(text string) bool {
	return strings.HasPrefix(text, "-") && !strings.ContainsAny(text, " \t\n/")
}

func (w *walk) argument(at *yaml.Node, flag, value string) {
	value = strings.Trim(strings.TrimSpace(value), `"'`)
	what := strings.TrimSpace("argument " + flag)
	switch {
	case !speaksOfImages(flag):
		w.text(at, value, what)
	case strings.ContainsRune(value, maskRune):
		w.problem(w.line(at), "the image depends on a template's values: write it into imageList")
	case lacksTag(value):
		w.untagged(at, what, value)
	case looksLikeImage(value):
		w.add(w.line(at), value, possible, what)
	default:
		w.text(at, value, what)
	}
}
