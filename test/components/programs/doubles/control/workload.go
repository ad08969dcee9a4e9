// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const hashLabel = "pod-template-hash"

func template(o *object) (map[string]any, string) {
	t, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
	text, _ := json.Marshal(t)
	sum := sha256.Sum256(text)
	return t, hex.EncodeToString(sum[:])[:10]
}

func owner(o *object) []any {
	return []any{map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "name": o.GetName(), "uid": string(o.GetUID()), "controller": true, "blockOwnerDeletion": true}}
}

// pod makes one of a template's pods.
func (c *Controller) pod(ctx context.Context, o *object, t map[string]any, hash, node string) error {
	meta, _, _ := unstructured.NestedMap(t, "metadata")
	labels, _, _ := unstructured.NestedStringMap(meta, "labels")
	all := map[string]any{hashLabel: hash}
	for k, v := range labels {
		all[k] = v
	}
	spec, _, _ := unstructured.NestedMap(t, "spec")
	if node != "" {
		spec["nodeName"] = node
	}
	_, err := c.Client.Create(ctx, "/api/v1/namespaces/"+o.GetNamespace()+"/pods", map[string]any{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"generateName": o.GetName() + "-", "namespace": o.GetNamespace(), "labels": all, "ownerReferences": owner(o)}, "spec": spec})
	return err
}

// of are the pods that an object owns.
func of(o *object, pods []object) []object {
	var out []object
	for _, p := range pods {
		if slices.ContainsFunc(p.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == o.GetUID() }) {
			out = append(out, p)
		}
	}
	return out
}

func ready(pods []object) int {
	n := 0
	for i := range pods {
		if condition(&pods[i], "Ready") == "True" {
			n++
		}
	}
	return n
}

// deploy keeps a replica set of the newest template for each deployment, and takes the others away when it is ready.
func (c *Controller) deploy(ctx context.Context, s *state) error {
	for i := range s.deployments {
		d := &s.deployments[i]
		t, hash := template(d)
		var current *object
		var old []object
		for j := range s.replicas {
			if r := &s.replicas[j]; len(r.GetOwnerReferences()) > 0 && r.GetOwnerReferences()[0].UID == d.GetUID() {
				if r.GetLabels()[hashLabel] == hash {
					current = r
				} else {
					old = append(old, *r)
				}
			}
		}
		want, _, _ := unstructured.NestedInt64(d.Object, "spec", "replicas")
		if current == nil {
			made, err := c.Client.Create(ctx, "/apis/apps/v1/namespaces/"+d.GetNamespace()+"/replicasets", map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet",
				"metadata": map[string]any{"name": d.GetName() + "-" + hash, "namespace": d.GetNamespace(), "labels": map[string]any{hashLabel: hash}, "ownerReferences": owner(d)},
				"spec":     map[string]any{"replicas": want, "selector": d.Object["spec"].(map[string]any)["selector"], "template": t}})
			if err != nil {
				return err
			}
			current = made
		}
		pods := of(current, s.pods)
		for n := len(pods); n < int(want); n++ {
			if err := c.pod(ctx, current, t, hash, ""); err != nil {
				return err
			}
		}
		for n := int(want); n < len(pods); n++ {
			if err := c.Client.Delete(ctx, podPath(&pods[n])); err != nil {
				return err
			}
		}
		left := 0
		for j := range old {
			if ready(pods) < int(want) {
				left += len(of(&old[j], s.pods))
			} else if err := c.Client.Delete(ctx, replicaPath(&old[j])); err != nil {
				return err
			}
		}
		if err := c.deployed(ctx, d, want, len(pods), ready(pods), left); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) deployed(ctx context.Context, d *object, want int64, pods, ready, old int) error {
	available := "False"
	if ready >= int(want) {
		available = "True"
	}
	return c.status(ctx, d, "/apis/apps/v1/namespaces/"+d.GetNamespace()+"/deployments/"+d.GetName(), map[string]any{
		"observedGeneration": d.GetGeneration(), "replicas": int64(pods + old), "updatedReplicas": int64(min(pods, int(want))), "readyReplicas": int64(ready),
		"availableReplicas": int64(ready), "unavailableReplicas": max(0, want-int64(ready)),
		"conditions": []any{map[string]any{"type": "Available", "status": available, "reason": "MinimumReplicas" + map[string]string{"True": "Available", "False": "Unavailable"}[available]},
			map[string]any{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}},
	})
}

// status is written only where it says something new.
func (c *Controller) status(ctx context.Context, o *object, path string, status map[string]any) error {
	was, _ := json.Marshal(o.Object["status"])
	is, _ := json.Marshal(status)
	if string(was) == string(is) {
		return nil
	}
	return c.Client.Merge(ctx, path+"/status", map[string]any{"status": status})
}

// daemonSets keeps a pod of each on every node that it selects and tolerates.
func (c *Controller) daemonSets(ctx context.Context, s *state) error {
	for i := range s.daemons {
		d := &s.daemons[i]
		t, hash := template(d)
		spec, _, _ := unstructured.NestedMap(t, "spec")
		pods := of(d, s.pods)
		on := map[string]bool{}
		updated := 0
		for j := range pods {
			if pods[j].GetLabels()[hashLabel] != hash {
				if err := c.Client.Delete(ctx, podPath(&pods[j])); err != nil {
					return err
				}
			} else {
				updated++
			}
			node, _, _ := unstructured.NestedString(pods[j].Object, "spec", "nodeName")
			on[node] = true
		}
		want := 0
		for j := range s.nodes {
			n := &s.nodes[j]
			if !selects(spec, n) || !tolerates(spec, n, "node.kubernetes.io/") {
				continue
			}
			want++
			if !on[n.GetName()] {
				if err := c.pod(ctx, d, t, hash, n.GetName()); err != nil {
					return err
				}
			}
		}
		good := ready(pods)
		if err := c.status(ctx, d, "/apis/apps/v1/namespaces/"+d.GetNamespace()+"/daemonsets/"+d.GetName(), map[string]any{
			"observedGeneration": d.GetGeneration(), "desiredNumberScheduled": int64(want), "currentNumberScheduled": int64(len(pods)), "numberMisscheduled": int64(0),
			"updatedNumberScheduled": int64(updated), "numberReady": int64(good), "numberAvailable": int64(good)}); err != nil {
			return err
		}
	}
	return nil
}

// jobsRound runs one pod for each job.
func (c *Controller) jobsRound(ctx context.Context, s *state) error {
	for i := range s.jobs {
		j := &s.jobs[i]
		pods := of(j, s.pods)
		if len(pods) == 0 && condition(j, "Complete") == "" {
			t, hash := template(j)
			if err := c.pod(ctx, j, t, hash, ""); err != nil {
				return err
			}
		}
		for _, p := range pods {
			if phase, _, _ := unstructured.NestedString(p.Object, "status", "phase"); phase == "Succeeded" {
				if err := c.status(ctx, j, "/apis/batch/v1/namespaces/"+j.GetNamespace()+"/jobs/"+j.GetName(), map[string]any{"succeeded": int64(1),
					"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// schedule gives each pod that has no node the one with the fewest pods, of those that are Ready and take it.
func (c *Controller) schedule(ctx context.Context, s *state) error {
	load := map[string]int{}
	for _, p := range s.pods {
		node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName")
		load[node]++
	}
	for i := range s.pods {
		p := &s.pods[i]
		spec, _, _ := unstructured.NestedMap(p.Object, "spec")
		if name, _ := spec["nodeName"].(string); name != "" {
			continue
		}
		best := ""
		for j := range s.nodes {
			n := &s.nodes[j]
			if condition(n, "Ready") != "True" || !selects(spec, n) || !tolerates(spec, n, "") {
				continue
			}
			if best == "" || load[n.GetName()] < load[best] {
				best = n.GetName()
			}
		}
		if best != "" {
			load[best]++
			if err := c.Client.Merge(ctx, podPath(p), map[string]any{"spec": map[string]any{"nodeName": best}}); err != nil {
				return err
			}
		} else if condition(p, "PodScheduled") != "False" {
			message := fmt.Sprintf("0/%d nodes are available", len(s.nodes))
			if err := c.Client.Merge(ctx, podPath(p)+"/status", map[string]any{"status": map[string]any{"conditions": []any{
				map[string]any{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}}}}); err != nil {
				return err
			}
		}
	}
	return nil
}

func selects(spec map[string]any, n *object) bool {
	want, _, _ := unstructured.NestedStringMap(spec, "nodeSelector")
	has := n.GetLabels()
	for k, v := range maps.All(want) {
		if has[k] != v {
			return false
		}
	}
	return true
}

// tolerates tells whether the pod may go to the node for all its taints, but those with the prefix, where it is given.
func tolerates(spec map[string]any, n *object, but string) bool {
	list, _, _ := unstructured.NestedSlice(spec, "tolerations")
	for _, t := range taintsOf(n) {
		if t["effect"] == "PreferNoSchedule" || but != "" && len(t["key"]) > len(but) && t["key"][:len(but)] == but {
			continue
		}
		if !slices.ContainsFunc(list, func(one any) bool {
			m, _ := one.(map[string]any)
			key, _ := m["key"].(string)
			effect, _ := m["effect"].(string)
			value, _ := m["value"].(string)
			exists := m["operator"] == "Exists"
			return (key == t["key"] || key == "" && exists) && (effect == "" || effect == t["effect"]) && (exists || value == t["value"])
		}) {
			return false
		}
	}
	return true
}
