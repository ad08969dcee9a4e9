// SPDX-License-Identifier: Apache-2.0

// Package control does what the controllers and the scheduler of a cluster do, as far as installers see it: pods for
// deployments and daemon sets, a node for each pod, nodes that went silent, objects whose owner is gone.
package control

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
)

type object = client.Object

// silent is how long a node may not renew its lease before it counts as NotReady. The real one waits 40 s or more. It is more than two
// requests of a node may take that no API server answers in time.
const silent = 30 * time.Second

const period = time.Second

// Controller works while it leads.
type Controller struct {
	Client *client.Client
	Leads  func() bool
	Log    *slog.Logger
	began  time.Time // when this one came to lead: leases are as old as that at most
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if !c.Leads() {
			c.began = time.Time{}
		} else {
			if c.began.IsZero() {
				c.began = time.Now()
			}
			if err := c.round(ctx); err != nil && ctx.Err() == nil {
				c.Log.Warn("the controllers' round failed", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// state is all that a round looks at.
type state struct {
	nodes, pods, deployments, daemons, replicas, jobs []object
	leases                                            map[string]time.Time
}

func (c *Controller) round(ctx context.Context) error {
	var s state
	var leases []object
	for path, into := range map[string]*[]object{
		"/api/v1/nodes": &s.nodes, "/api/v1/pods": &s.pods, "/apis/apps/v1/deployments": &s.deployments, "/apis/apps/v1/daemonsets": &s.daemons,
		"/apis/apps/v1/replicasets": &s.replicas, "/apis/batch/v1/jobs": &s.jobs, "/apis/coordination.k8s.io/v1/leases": &leases,
	} {
		list, err := c.Client.List(ctx, path)
		if err != nil {
			return err
		}
		*into = list
	}
	s.leases = map[string]time.Time{}
	for _, l := range leases {
		text, _, _ := unstructured.NestedString(l.Object, "spec", "renewTime")
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			s.leases[l.GetName()] = t
		}
	}
	for _, step := range []func(context.Context, *state) error{c.health, c.collect, c.deploy, c.daemonSets, c.jobsRound, c.schedule} {
		if err := step(ctx, &s); err != nil {
			return err
		}
	}
	return nil
}

// health marks nodes that went silent, and taints those that are not Ready.
func (c *Controller) health(ctx context.Context, s *state) error {
	for i := range s.nodes {
		n := &s.nodes[i]
		renewed, ok := s.leases[n.GetName()]
		if !ok {
			renewed = n.GetCreationTimestamp().Time
		}
		quiet := time.Since(renewed) > silent && time.Since(c.began) > silent
		if quiet && condition(n, "Ready") != "Unknown" {
			if err := c.quiet(ctx, n); err != nil {
				return err
			}
		}
		if err := c.taint(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) quiet(ctx context.Context, n *object) error {
	conditions, _, _ := unstructured.NestedSlice(n.Object, "status", "conditions")
	for _, one := range conditions {
		if m, ok := one.(map[string]any); ok {
			m["status"], m["reason"], m["message"] = "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."
			m["lastTransitionTime"] = time.Now().UTC().Format(time.RFC3339)
		}
	}
	if err := unstructured.SetNestedSlice(n.Object, conditions, "status", "conditions"); err != nil {
		return err
	}
	return c.Client.Merge(ctx, "/api/v1/nodes/"+n.GetName()+"/status", map[string]any{"status": map[string]any{"conditions": conditions}})
}

// taint gives a node the taints that its condition calls for, and takes them back.
func (c *Controller) taint(ctx context.Context, n *object) error {
	var want []string
	switch condition(n, "Ready") {
	case "True":
	case "Unknown":
		want = []string{"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"}
	default:
		want = []string{"node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"}
	}
	if off, _, _ := unstructured.NestedBool(n.Object, "spec", "unschedulable"); off {
		want = append(want, "node.kubernetes.io/unschedulable:NoSchedule")
	}
	var after []any
	had := taintsOf(n)
	var own []string
	for _, t := range had {
		switch t["key"] {
		case "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unschedulable":
			own = append(own, t["key"]+":"+t["effect"])
		default:
			after = append(after, map[string]any{"key": t["key"], "value": t["value"], "effect": t["effect"]})
		}
	}
	if slices.Equal(own, want) {
		return nil
	}
	for _, w := range want {
		i := slices.Index([]byte(w), ':')
		after = append(after, map[string]any{"key": w[:i], "effect": w[i+1:]})
	}
	if err := unstructured.SetNestedField(n.Object, after, "spec", "taints"); err != nil {
		return err
	}
	return c.Client.Merge(ctx, "/api/v1/nodes/"+n.GetName(), map[string]any{"metadata": map[string]any{"resourceVersion": n.GetResourceVersion()}, "spec": map[string]any{"taints": after}})
}

func condition(o *object, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			s, _ := m["status"].(string)
			return s
		}
	}
	return ""
}

func taintsOf(n *object) []map[string]string {
	list, _, _ := unstructured.NestedSlice(n.Object, "spec", "taints")
	var out []map[string]string
	for _, t := range list {
		m, _ := t.(map[string]any)
		one := map[string]string{}
		for k, v := range m {
			one[k], _ = v.(string)
		}
		out = append(out, one)
	}
	return out
}

// collect deletes what has lost its owner or its node.
func (c *Controller) collect(ctx context.Context, s *state) error {
	alive := map[string]bool{}
	for _, list := range [][]object{s.nodes, s.deployments, s.daemons, s.replicas, s.jobs} {
		for _, o := range list {
			alive[string(o.GetUID())] = true
		}
	}
	nodes := map[string]bool{}
	for _, n := range s.nodes {
		nodes[n.GetName()] = true
	}
	orphan := func(o *object) bool {
		for _, ref := range o.GetOwnerReferences() {
			known := slices.Contains([]string{"Deployment", "DaemonSet", "ReplicaSet", "Job", "Node"}, ref.Kind)
			if known && !alive[string(ref.UID)] {
				return true
			}
		}
		on, _, _ := unstructured.NestedString(o.Object, "spec", "nodeName")
		return o.GetKind() == "Pod" && on != "" && !nodes[on]
	}
	sweep := func(list []object, path func(*object) string) ([]object, error) {
		var kept []object
		for i := range list {
			if !orphan(&list[i]) {
				kept = append(kept, list[i])
			} else if err := c.Client.Delete(ctx, path(&list[i])); err != nil {
				return nil, err
			}
		}
		return kept, nil
	}
	var err error
	if s.replicas, err = sweep(s.replicas, replicaPath); err != nil {
		return err
	}
	s.pods, err = sweep(s.pods, podPath)
	return err
}

func podPath(o *object) string {
	return "/api/v1/namespaces/" + o.GetNamespace() + "/pods/" + o.GetName()
}

func replicaPath(o *object) string {
	return "/apis/apps/v1/namespaces/" + o.GetNamespace() + "/replicasets/" + o.GetName()
}
