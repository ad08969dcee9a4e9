// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// podObject is what is read of the Kubernetes API's Pod (v1).
type podObject struct {
	Metadata struct{ Name, Namespace string } `json:"metadata"`
	Spec     struct{ NodeName string }        `json:"spec"`
	Status   struct {
		InitContainerStatuses []kube.ContainerStatus `json:"initContainerStatuses"`
		ContainerStatuses     []kube.ContainerStatus `json:"containerStatuses"`
	} `json:"status"`
}

func (r *run) api() kube.API { return kube.API{Cluster: r.cluster, Kubectl: r.distribution.Kubectl()} }

// inventory is what the cluster keeps of its applications.
func (r *run) inventory() application.Inventory { return application.Inventory{API: r.api()} }

// kubectl asks the control plane that the cluster is asked through, and reads the JSON answer.
func (r *run) kubectl(ctx context.Context, out any, args ...string) error {
	return r.api().Get(ctx, out, args...)
}

// labels sets what the Clusterfile says of a host's node, and takes off what it said before an Apply.
func (r *run) labels(h *runtime.Host) []runtime.Step {
	was := clusterfile.Host{Address: h.Spec.Address}
	if r.applied != nil {
		was = hostOf(r.applied.was, h.Spec.Address)
	}
	if len(labelsOf(h.Spec)) == 0 && len(h.Spec.Taints) == 0 && len(labelsOf(was)) == 0 && len(was.Taints) == 0 {
		return nil
	}
	return []runtime.Step{{
		Name: "labelling and tainting the node",
		Done: func(ctx context.Context) (bool, error) {
			todo, err := r.labelling(ctx, h, was)
			return err == nil && len(todo) == 0, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			todo, err := r.labelling(ctx, h, was)
			if err != nil {
				return err
			}
			for _, args := range todo {
				if err := r.api().Change(ctx, log, args...); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// labelling is what kubectl has to be asked for; nothing where the node is as it should be.
func (r *run) labelling(ctx context.Context, h *runtime.Host, was clusterfile.Host) ([][]string, error) {
	var n kube.Node
	if err := r.kubectl(ctx, &n, "get", "node", h.Facts.NodeName()); err != nil {
		return nil, err
	}
	var todo [][]string
	want := labelsOf(h.Spec)
	label := []string{"label", "node", h.Facts.NodeName(), "--overwrite"}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if now, there := n.Metadata.Labels[k]; !there || now != want[k] {
			label = append(label, k+"="+want[k])
		}
	}
	for _, k := range stale(n, want, labelsOf(was)) {
		label = append(label, k+"-")
	}
	if len(label) > 4 {
		todo = append(todo, label)
	}
	taint := []string{"taint", "node", h.Facts.NodeName(), "--overwrite"}
	for _, t := range h.Spec.Taints {
		if hasTaint(n, t) == t.Remove {
			taint = append(taint, t.String())
		}
	}
	for _, t := range staleTaints(n, h.Spec, was) {
		t.Remove = true
		taint = append(taint, t.String())
	}
	if len(taint) > 4 {
		todo = append(todo, taint)
	}
	return todo, nil
}

func hasTaint(n kube.Node, t clusterfile.Taint) bool {
	for _, have := range n.Spec.Taints {
		if have.Key == t.Key && have.Effect == t.Effect && (have.Value == t.Value || t.Remove) {
			return true
		}
	}
	return false
}

// NotReadyError is nodes that did not become Ready in time.
type NotReadyError struct {
	After time.Duration
	Nodes []string // "10.0.0.7 (h7): what its condition says"
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("not Ready after %s: %s", e.After, strings.Join(e.Nodes, "; "))
}

// Hint says where to look.
func (e *NotReadyError) Hint() string {
	return "look at kubectl get pods -A on the first control plane: a pod network that does not start is the usual cause"
}

// UnpackedImageError is a pod whose image is not in the ClusterImage: no host can ever pull it.
type UnpackedImageError struct{ Pod, Image string }

func (e *UnpackedImageError) Error() string {
	return fmt.Sprintf("the pod %s wants the image %s, which the ClusterImage does not pack", e.Pod, e.Image)
}

// Hint says how to pack it.
func (e *UnpackedImageError) Hint() string {
	return "add it to the imageList (or to the manifests) of the Kubefile's context and build again"
}

func (r *run) isReady(ctx context.Context) (bool, error) {
	waiting, err := r.notReady(ctx)
	return err == nil && len(waiting) == 0, err
}

// notReady are the hosts whose nodes are not Ready, with what is known of why.
func (r *run) notReady(ctx context.Context) ([]string, error) {
	nodes, err := r.api().Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var waiting []string
	for _, h := range r.cluster.Hosts {
		why := "it is no node of the cluster"
		for _, n := range nodes {
			if n.Metadata.Name == h.Facts.NodeName() {
				why = readiness(n)
			}
		}
		if why != "" {
			waiting = append(waiting, fmt.Sprintf("%s (%s): %s", h, h.Facts.NodeName(), why))
		}
	}
	return waiting, nil
}

// readiness is empty for a Ready node.
func readiness(n kube.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return ""
			}
			return c.Message
		}
	}
	return "the kubelet has not reported yet"
}

// waitReady waits for all nodes, and stops at once where a pod can never run. All must be well
// twice in a row: the pods of what the CMD has just made may take a moment to appear.
func (r *run) waitReady(ctx context.Context, log io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.ReadyTimeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(r.PollInterval)
	defer tick.Stop()
	var last []string
	for well := 0; ; {
		waiting, err := r.notReady(ctx)
		if err == nil {
			if !slices.Equal(waiting, last) {
				_, _ = fmt.Fprintln(log, strings.Join(waiting, "\n"))
			}
			last = waiting
			err = r.checkPods(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil && len(waiting) == 0:
			if well++; well == 2 {
				return nil
			}
		default:
			well = 0
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != errTimeout { //nolint:errorlint // it is this very value
				return context.Cause(ctx)
			}
			return &NotReadyError{r.ReadyTimeout, last}
		case <-tick.C:
		}
	}
}

var errTimeout = fmt.Errorf("the time is up: %w", context.DeadlineExceeded)

// checkPods finds a pod that waits for an image that nobody packed.
func (r *run) checkPods(ctx context.Context) error {
	var list struct{ Items []podObject }
	if err := r.kubectl(ctx, &list, "get", "pods", "--all-namespaces"); err != nil {
		return err
	}
	packed := map[string]bool{}
	for _, name := range r.cluster.Images {
		packed[kube.ImageName(name)] = true
	}
	for _, p := range list.Items {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if c.State.Waiting != nil && kube.CannotPull(c.State.Waiting.Reason) && !packed[kube.ImageName(c.Image)] {
				return &UnpackedImageError{Pod: p.Metadata.Namespace + "/" + p.Metadata.Name, Image: kube.ImageName(c.Image)}
			}
		}
	}
	return nil
}
