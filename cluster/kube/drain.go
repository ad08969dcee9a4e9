// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
)

// DefaultDrainTimeout is how long pods may take to leave a node.
const DefaultDrainTimeout = 10 * time.Minute

// DrainOptions say how pods are made to leave.
type DrainOptions struct {
	Timeout time.Duration // default DefaultDrainTimeout
	// Force deletes pods that nothing makes anew, and, when the time is up, those whose budgets forbid it.
	Force bool
}

// DrainError is a node that pods did not leave.
type DrainError struct {
	Node  string
	After time.Duration // 0: it was not tried
	Pods  []StuckPod
	Err   error // of kubectl; may be nil
}

// StuckPod is a pod that stays on a node.
type StuckPod struct {
	Name    string // namespace/name
	Budgets []string
	Why     string
}

func (p StuckPod) String() string {
	switch {
	case len(p.Budgets) > 0:
		return p.Name + ", which the disruption budget " + strings.Join(p.Budgets, " and ") + " protects"
	case p.Why != "":
		return p.Name + ", " + p.Why
	}
	return p.Name
}

func (e *DrainError) Error() string {
	s := "the node " + e.Node + " cannot be drained"
	if e.After > 0 {
		s = fmt.Sprintf("the node %s is not drained after %s", e.Node, e.After)
	}
	pods := make([]string, 0, len(e.Pods))
	for _, p := range e.Pods {
		pods = append(pods, p.String())
	}
	if len(pods) == 0 && e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	return s + ": on it stays " + strings.Join(pods, "; ")
}

func (e *DrainError) Unwrap() error { return e.Err }

// Hint says what lets the pods go.
func (e *DrainError) Hint() string {
	return "give the pods room on other nodes, or change their budgets; --timeout of delete and --drain-timeout of the others wait longer, --force and --force-drain delete them all the same"
}

// CordonedBy begins the annotation of a node that sealer keeps pods off: only such a node is given pods again.
const CordonedBy = "sealer.io/cordoned-by-"

// Sign says on a node, before it is cordoned, by whom; not where its owner has cordoned it.
func (a API) Sign(ctx context.Context, node, annotation, value string, log io.Writer) error {
	n, err := a.Node(ctx, node)
	if err != nil || n == nil || n.Spec.Unschedulable {
		return err
	}
	return a.Change(ctx, log, "annotate", "node", node, annotation+"="+value, "--overwrite")
}

// Release lets pods onto a node again that was signed. It may be done twice.
func (a API) Release(ctx context.Context, node, annotation string, log io.Writer) error {
	n, err := a.Node(ctx, node)
	if err != nil || n == nil || n.Metadata.Annotations[annotation] == "" {
		return err
	}
	if err := a.Change(ctx, log, "uncordon", node); err != nil {
		return err
	}
	return a.Change(ctx, log, "annotate", "node", node, annotation+"-")
}

// releaseTimeout bounds how long a node that stays is given pods again for, also where the work was stopped.
const releaseTimeout = 30 * time.Second

// DrainOrRelease drains a node that was signed. Where that fails nothing of the node is gone, so it gets pods again.
func (a API) DrainOrRelease(ctx context.Context, node, annotation string, o DrainOptions, log io.Writer) error {
	err := a.Drain(ctx, node, o, log)
	if err == nil {
		return nil
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if releaseErr := a.Release(after, node, annotation, log); releaseErr != nil {
		return errors.Join(err, fmt.Errorf("letting pods onto the node %s again: %w", node, releaseErr))
	}
	return err
}

// Drain makes a node's pods leave, but for those of DaemonSets and the node's own; no new ones come. Their
// budgets are kept. An error that a user can act upon is a *DrainError.
func (a API) Drain(ctx context.Context, node string, o DrainOptions, log io.Writer) error {
	if o.Timeout == 0 {
		o.Timeout = DefaultDrainTimeout
	}
	if err := a.Change(ctx, log, "cordon", node); err != nil {
		return err
	}
	if !o.Force {
		pods, err := a.leaving(ctx, node)
		if err != nil {
			return err
		}
		e := &DrainError{Node: node}
		for _, p := range pods {
			if !p.controlled() {
				e.Pods = append(e.Pods, StuckPod{Name: p.name(), Why: "which nothing would make anew"})
			}
		}
		if len(e.Pods) > 0 {
			return e
		}
	}
	args := []string{"drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", o.Timeout.String()}
	if o.Force {
		args = append(args, "--force")
	}
	err := a.Change(ctx, log, args...)
	if _, failed := errors.AsType[*host.ExitError](err); !failed {
		return err
	}
	if o.Force {
		_, _ = fmt.Fprintf(log, "not drained after %s: deleting the pods that are left\n", o.Timeout)
		err = a.Change(ctx, log, append(args, "--disable-eviction")...)
		if _, failed := errors.AsType[*host.ExitError](err); !failed {
			return err
		}
		_, _ = fmt.Fprintln(log, "some pods are still there: going on without them")
		return nil
	}
	return a.stuck(ctx, node, o.Timeout, err)
}

// stuck finds out which pods are left, and what holds them.
func (a API) stuck(ctx context.Context, node string, after time.Duration, cause error) error {
	e := &DrainError{Node: node, After: after, Err: cause}
	pods, err := a.leaving(ctx, node)
	if err != nil {
		return errors.Join(e, err)
	}
	var budgets struct{ Items []budget }
	if err := a.Get(ctx, &budgets, "get", "poddisruptionbudgets", "--all-namespaces"); err != nil {
		return errors.Join(e, err)
	}
	for _, p := range pods {
		stuck := StuckPod{Name: p.name()}
		for _, b := range budgets.Items {
			if b.Status.DisruptionsAllowed == 0 && b.protects(p) {
				stuck.Budgets = append(stuck.Budgets, b.Metadata.Name)
			}
		}
		e.Pods = append(e.Pods, stuck)
	}
	return e
}

// leaving are the pods that have to leave a node that is drained.
func (a API) leaving(ctx context.Context, node string) ([]drainedPod, error) {
	var list struct{ Items []drainedPod }
	if err := a.Get(ctx, &list, "get", "pods", "--all-namespaces", "--field-selector", "spec.nodeName="+node); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p drainedPod) bool {
		_, mirror := p.Metadata.Annotations["kubernetes.io/config.mirror"]
		return mirror || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" ||
			slices.ContainsFunc(p.Metadata.OwnerReferences, func(o owner) bool { return o.Controller && o.Kind == "DaemonSet" })
	}), nil
}

// drainedPod and budget are what is read of the Kubernetes API's Pod (v1) and PodDisruptionBudget (policy/v1).
type drainedPod struct {
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
		Annotations     map[string]string
		OwnerReferences []owner
	}
	Status struct{ Phase string }
}

type owner struct {
	Kind       string
	Controller bool
}

func (p drainedPod) name() string { return p.Metadata.Namespace + "/" + p.Metadata.Name }

func (p drainedPod) controlled() bool {
	return slices.ContainsFunc(p.Metadata.OwnerReferences, func(o owner) bool { return o.Controller })
}

type budget struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Selector json.RawMessage
	}
	Status struct{ DisruptionsAllowed int }
}

// protects: its Selector takes the pod.
func (b budget) protects(p drainedPod) bool {
	var s Selector
	if b.Metadata.Namespace != p.Metadata.Namespace || len(b.Spec.Selector) == 0 || json.Unmarshal(b.Spec.Selector, &s) != nil {
		return false
	}
	return s.Matches(p.Metadata.Labels)
}
