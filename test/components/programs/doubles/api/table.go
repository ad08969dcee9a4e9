// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
)

func wantsTable(q request) bool { return strings.Contains(q.Header.Get("Accept"), "as=Table") }

// column of a table; wide ones are shown with -o wide only.
type column struct {
	name  string
	wide  bool
	value func(*object) any
}

func at(path ...string) func(*object) any {
	return func(o *object) any {
		v, found, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
		if !found {
			return "<none>"
		}
		return v
	}
}

func columns(kind string) []column {
	name := column{name: "Name", value: func(o *object) any { return o.GetName() }}
	age := column{name: "Age", value: func(o *object) any { return duration.HumanDuration(time.Since(o.GetCreationTimestamp().Time)) }}
	switch kind {
	case "Node":
		return []column{name, {name: "Status", value: nodeStatus}, {name: "Roles", value: nodeRoles}, age,
			{name: "Version", value: at("status", "nodeInfo", "kubeletVersion")},
			{name: "Internal-IP", wide: true, value: nodeAddress},
			{name: "OS-Image", wide: true, value: at("status", "nodeInfo", "osImage")},
			{name: "Kernel-Version", wide: true, value: at("status", "nodeInfo", "kernelVersion")},
			{name: "Container-Runtime", wide: true, value: at("status", "nodeInfo", "containerRuntimeVersion")}}
	case "Pod":
		return []column{name, {name: "Ready", value: podReady}, {name: "Status", value: podStatus}, {name: "Restarts", value: func(*object) any { return 0 }}, age,
			{name: "IP", wide: true, value: at("status", "podIP")}, {name: "Node", wide: true, value: at("spec", "nodeName")}}
	case "Deployment":
		return []column{name, {name: "Ready", value: func(o *object) any {
			return fmt.Sprintf("%d/%d", number(o, "status", "readyReplicas"), number(o, "spec", "replicas"))
		}}, {name: "Up-to-date", value: func(o *object) any { return number(o, "status", "updatedReplicas") }},
			{name: "Available", value: func(o *object) any { return number(o, "status", "availableReplicas") }}, age}
	case "DaemonSet":
		return []column{name, {name: "Desired", value: func(o *object) any { return number(o, "status", "desiredNumberScheduled") }},
			{name: "Current", value: func(o *object) any { return number(o, "status", "currentNumberScheduled") }},
			{name: "Ready", value: func(o *object) any { return number(o, "status", "numberReady") }}, age}
	case "Namespace":
		return []column{name, {name: "Status", value: at("status", "phase")}, age}
	}
	return []column{name, age}
}

func number(o *object, path ...string) int64 {
	n, _, _ := unstructured.NestedInt64(o.Object, path...)
	return n
}

func table(r resource, items []object) *metav1.Table {
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}}
	all := columns(r.kind)
	for _, c := range all {
		d := metav1.TableColumnDefinition{Name: c.name, Type: "string"}
		if c.wide {
			d.Priority = 1
		}
		if c.name == "Name" {
			d.Format = "name"
		}
		t.ColumnDefinitions = append(t.ColumnDefinitions, d)
	}
	for _, o := range items {
		row := metav1.TableRow{}
		for _, c := range all {
			row.Cells = append(row.Cells, c.value(&o))
		}
		row.Object = runtime.RawExtension{Object: &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"},
			ObjectMeta: metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels(), CreationTimestamp: o.GetCreationTimestamp(), ResourceVersion: o.GetResourceVersion(), UID: o.GetUID()},
		}}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// conditionOf is the status of a condition: True, False, Unknown, or empty.
func conditionOf(o *object, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return fmt.Sprint(m["status"])
		}
	}
	return ""
}

func nodeStatus(o *object) any {
	text := "NotReady"
	if conditionOf(o, "Ready") == "True" {
		text = "Ready"
	}
	if off, _, _ := unstructured.NestedBool(o.Object, "spec", "unschedulable"); off {
		text += ",SchedulingDisabled"
	}
	return text
}

func nodeRoles(o *object) any {
	var roles []string
	for label := range o.GetLabels() {
		if role, ok := strings.CutPrefix(label, "node-role.kubernetes.io/"); ok {
			roles = append(roles, role)
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	slices.Sort(roles)
	return strings.Join(roles, ",")
}

func nodeAddress(o *object) any {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
	for _, a := range list {
		if m, ok := a.(map[string]any); ok && m["type"] == "InternalIP" {
			return m["address"]
		}
	}
	return "<none>"
}

func podReady(o *object) any {
	all, _, _ := unstructured.NestedSlice(o.Object, "spec", "containers")
	ready := 0
	if conditionOf(o, "Ready") == "True" {
		ready = len(all)
	}
	return fmt.Sprintf("%d/%d", ready, len(all))
}

func podStatus(o *object) any {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "containerStatuses")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok {
			if reason, found, _ := unstructured.NestedString(m, "state", "waiting", "reason"); found {
				return reason
			}
		}
	}
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	return phase
}
