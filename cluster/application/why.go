// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
)

// Bounds of what an error says.
const (
	maxParts  = 10
	maxEvents = 6
)

// appPod is what is read of Pod (v1) to say why a workload is not ready.
type appPod struct {
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Status struct {
		Phase                                    string
		Conditions                               []struct{ Type, Status, Reason, Message string }
		InitContainerStatuses, ContainerStatuses []kube.ContainerStatus
	}
}

func (p appPod) containers() []kube.ContainerStatus {
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
}

// firstReason is what keeps the first of the pods that says so from being ready, in brackets; "" where none does.
func firstReason(pods []appPod) string {
	for _, pod := range pods {
		if why := pod.why(); why != "" {
			return fmt.Sprintf(" (pod %s: %s)", pod.Metadata.Name, why)
		}
	}
	return ""
}

// why says what keeps a pod from being ready, as far as it tells.
func (p appPod) why() string {
	for _, c := range p.containers() {
		if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			return strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status != "True" && (c.Type == "PodScheduled" || c.Type == "Ready") && c.Message != "" {
			return c.Message
		}
	}
	return ""
}

// pods are those of the workloads that are not ready.
func (a Wait) pods(ctx context.Context, s State) (map[string][]appPod, error) {
	byPart := map[string][]appPod{}
	seen := map[string][]appPod{}
	for _, p := range s.Unready {
		ns := p.Metadata.Namespace
		if ns == "" || len(p.Spec.Selector.MatchLabels)+len(p.Spec.Selector.MatchExpressions) == 0 {
			continue
		}
		if _, asked := seen[ns]; !asked {
			var list struct{ Items []appPod }
			if err := a.Get(ctx, &list, "get", "pods", "--namespace", ns); err != nil {
				return nil, err
			}
			seen[ns] = list.Items
		}
		for _, pod := range seen[ns] {
			if p.Spec.Selector.Matches(pod.Metadata.Labels) && pod.Status.Phase != "Succeeded" {
				byPart[p.ref.id()] = append(byPart[p.ref.id()], pod)
			}
		}
	}
	return byPart, nil
}

// hopeless is an *NotReadyError where waiting is of no use: a Job has failed, or a pod wants an image that
// no registry of the cluster has.
func (a Wait) hopeless(ctx context.Context, rec *Record, s State) error {
	if slices.ContainsFunc(s.Unready, func(p Part) bool { return p.never }) {
		e := a.notReady(ctx, rec, State{slices.DeleteFunc(slices.Clone(s.Unready), func(p Part) bool { return !p.never })})
		e.After = ""
		return e
	}
	pods, err := a.pods(ctx, s)
	if err != nil {
		return err
	}
	wanted := map[string]string{} // image → pod
	for _, list := range pods {
		for _, pod := range list {
			for _, c := range pod.containers() {
				if w := c.State.Waiting; w != nil && kube.CannotPull(w.Reason) {
					wanted[kube.ImageName(c.Image)] = pod.Metadata.Namespace + "/" + pod.Metadata.Name
				}
			}
		}
	}
	for _, name := range a.Cluster.Images {
		delete(wanted, kube.ImageName(name))
	}
	if len(wanted) == 0 {
		return nil
	}
	lacks, err := a.Lacks(ctx, slices.Sorted(maps.Keys(wanted)))
	if err != nil || len(lacks) == 0 {
		return err
	}
	e := &NotReadyError{Name: rec.Name, Unpacked: true}
	for _, image := range lacks {
		e.Parts = append(e.Parts, fmt.Sprintf("the pod %s wants the image %s, which nobody packed", wanted[image], image))
	}
	return e
}

// notReady says all that is known of why.
func (a Wait) notReady(ctx context.Context, rec *Record, s State) *NotReadyError {
	// The time is up: what is asked for now is for the message alone, and may fail.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	e := &NotReadyError{Name: rec.Name, After: a.Timeout.String()}
	pods, _ := a.pods(ctx, s)
	for i, p := range s.Unready {
		if i == maxParts {
			e.Parts = append(e.Parts, fmt.Sprintf("and %d more", len(s.Unready)-i))
			break
		}
		e.Parts = append(e.Parts, p.String()+firstReason(pods[p.ref.id()]))
	}
	e.Events = a.events(ctx, s)
	return e
}

// events are the last warnings about the workloads that are not ready, and about what they have made.
func (a Wait) events(ctx context.Context, s State) []string {
	type event struct {
		Reason, Message          string
		LastTimestamp, EventTime *time.Time
		InvolvedObject           struct{ Kind, Name string }
		Metadata                 struct{ CreationTimestamp *time.Time }
	}
	at := func(e event) time.Time {
		for _, t := range []*time.Time{e.LastTimestamp, e.EventTime, e.Metadata.CreationTimestamp} {
			if t != nil && !t.IsZero() {
				return *t
			}
		}
		return time.Time{}
	}
	asked := map[string]bool{}
	var found []event
	for _, p := range s.Unready {
		ns := p.ref.Namespace
		if asked[ns] {
			continue
		}
		asked[ns] = true
		var list struct{ Items []event }
		if a.Get(ctx, &list, "get", "events", "--namespace", ns, "--field-selector", "type!=Normal") != nil {
			continue
		}
		for _, e := range list.Items {
			if slices.ContainsFunc(s.Unready, func(p Part) bool {
				return p.ref.Namespace == ns && (e.InvolvedObject.Name == p.ref.Name || strings.HasPrefix(e.InvolvedObject.Name, p.ref.Name+"-"))
			}) {
				found = append(found, e)
			}
		}
	}
	slices.SortStableFunc(found, func(x, y event) int { return at(y).Compare(at(x)) })
	var lines []string
	for _, e := range found[:min(len(found), maxEvents)] {
		lines = append(lines, fmt.Sprintf("%s %s %s: %s: %s", at(e).UTC().Format(time.TimeOnly), strings.ToLower(e.InvolvedObject.Kind), e.InvolvedObject.Name, e.Reason, e.Message))
	}
	return lines
}

// NotReadyError is an application whose parts did not become ready.
type NotReadyError struct {
	Name  string
	After string // how long it was waited for; empty: it never will be
	Parts []string
	// Unpacked: a part wants an image that no registry of the cluster has.
	Unpacked bool
	// Events are the last ones of these parts, the latest first.
	Events []string
}

func (e *NotReadyError) Error() string {
	how := "not ready after " + e.After
	if e.After == "" {
		how = "it will not become ready"
	}
	lines := []string{how + ": " + strings.Join(e.Parts, "; ")}
	if len(e.Events) > 0 {
		lines = append(lines, "last events:")
		for _, event := range e.Events {
			lines = append(lines, "  "+event)
		}
	}
	return strings.Join(lines, "\n")
}

// Hint says where to look.
func (e *NotReadyError) Hint() string {
	if e.Unpacked {
		return "add the image to the imageList (or to the manifests) of the application's Kubefile, build it again, and sealer app upgrade"
	}
	return "look at the pods with kubectl describe; sealer app list says how it is later on, and --ready-timeout gives it longer"
}
