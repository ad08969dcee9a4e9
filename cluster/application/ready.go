// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/host"
)

// workload is what is read of Deployment, StatefulSet, DaemonSet (apps/v1) and Job (batch/v1).
type workload struct {
	APIVersion string
	Kind       string
	Metadata   struct {
		Name, Namespace string
		Generation      int64
		Annotations     map[string]string
	}
	Spec struct {
		Replicas       *int64
		Suspend        bool
		UpdateStrategy struct{ Type string }
		Selector       kube.Selector
	}
	Status struct {
		ObservedGeneration                                              int64
		Replicas, UpdatedReplicas, AvailableReplicas, ReadyReplicas     int64
		DesiredNumberScheduled, UpdatedNumberScheduled, NumberAvailable int64
		Conditions                                                      []struct{ Type, Status, Reason, Message string }
	}
}

// helmRelease is the annotation of what a chart makes:
// https://helm.sh/docs/faq/changes_since_helm2 ("Helm adds metadata").
const helmRelease, helmNamespace = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"

func isWorkload(o Object) bool {
	switch o.group() + "/" + o.Kind {
	case "apps/Deployment", "apps/StatefulSet", "apps/DaemonSet", "batch/Job":
		return true
	}
	return false
}

// Part is one workload of an application.
type Part struct {
	workload
	ref   Object
	why   string // it is not ready; empty: it is
	never bool   // and will not become so
}

func (p Part) String() string { return p.ref.String() + ": " + p.why }

// readyWhy says why a workload is not ready, by the rules of kubectl rollout status
// (k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go), and of a Job's end.
func (w workload) readyWhy() (why string, never bool) {
	s, want := w.Status, int64(1)
	if w.Spec.Replicas != nil {
		want = *w.Spec.Replicas
	}
	if w.Kind == "Job" {
		for _, c := range s.Conditions {
			switch {
			case c.Status == "True" && c.Type == "Complete":
				return "", false
			case c.Status == "True" && c.Type == "Failed":
				return strings.TrimSuffix("it failed: "+cmp.Or(c.Message, c.Reason), ": "), true
			}
		}
		if w.Spec.Suspend {
			return "", false
		}
		return "it has not come to its end", false
	}
	if s.ObservedGeneration < w.Metadata.Generation {
		return "its controller has not seen it yet", false
	}
	for _, c := range s.Conditions {
		if c.Type == "ReplicaFailure" && c.Status == "True" {
			why = " (" + c.Message + ")"
		}
	}
	switch w.Kind {
	case "Deployment":
		switch {
		case s.UpdatedReplicas < want:
			return fmt.Sprintf("%d of %d pods are there%s", s.UpdatedReplicas, want, why), false
		case s.Replicas > s.UpdatedReplicas:
			return fmt.Sprintf("%d pods of before are still there", s.Replicas-s.UpdatedReplicas), false
		case s.AvailableReplicas < want:
			return fmt.Sprintf("%d of %d pods are available", s.AvailableReplicas, want), false
		}
	case "StatefulSet":
		switch {
		case w.Spec.UpdateStrategy.Type != "OnDelete" && s.UpdatedReplicas < want:
			return fmt.Sprintf("%d of %d pods are of now", s.UpdatedReplicas, want), false
		case s.ReadyReplicas < want:
			return fmt.Sprintf("%d of %d pods are ready", s.ReadyReplicas, want), false
		}
	case "DaemonSet":
		switch {
		case w.Spec.UpdateStrategy.Type != "OnDelete" && s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
			return fmt.Sprintf("%d of %d pods are of now", s.UpdatedNumberScheduled, s.DesiredNumberScheduled), false
		case s.NumberAvailable < s.DesiredNumberScheduled:
			return fmt.Sprintf("%d of %d pods are available", s.NumberAvailable, s.DesiredNumberScheduled), false
		}
	}
	return "", false
}

// State is how the workloads of an application are.
type State struct{ Unready []Part }

// Ready tells whether all of them are.
func (s State) Ready() bool { return len(s.Unready) == 0 }

// State asks for the workloads that an application's present image has made.
func (a Inventory) State(ctx context.Context, rec *Record) (State, error) {
	var wanted []Object
	for _, o := range rec.Objects {
		if isWorkload(o) && o.Of == rec.Digest {
			o.Namespace = cmp.Or(o.Namespace, "default")
			wanted = append(wanted, o)
		}
	}
	var found []workload
	if len(wanted) > 0 {
		list, err := a.workloads(ctx, manifestOf(wanted), "get", "--filename", "-", "--ignore-not-found")
		if err != nil {
			return State{}, err
		}
		found = list
	}
	var s State
	for _, o := range wanted {
		if !slices.ContainsFunc(found, func(w workload) bool { return w.ref().id() == o.id() }) {
			s.Unready = append(s.Unready, Part{ref: o, why: "it is not there"})
		}
	}
	if len(rec.Releases) > 0 {
		list, err := a.workloads(ctx, nil, "get", "deployments.apps,statefulsets.apps,daemonsets.apps,jobs.batch", "--all-namespaces",
			"--selector", "app.kubernetes.io/managed-by=Helm")
		if err != nil {
			return State{}, err
		}
		for _, w := range list {
			if slices.ContainsFunc(rec.Releases, func(r Release) bool {
				return r.Of == rec.Digest && r.Name == w.Metadata.Annotations[helmRelease] && r.Namespace == w.Metadata.Annotations[helmNamespace]
			}) {
				found = append(found, w)
			}
		}
	}
	for _, w := range found {
		if why, never := w.readyWhy(); why != "" {
			s.Unready = append(s.Unready, Part{workload: w, ref: w.ref(), why: why, never: never})
		}
	}
	return s, nil
}

func (w workload) ref() Object {
	return Object{APIVersion: w.APIVersion, Kind: w.Kind, Namespace: w.Metadata.Namespace, Name: w.Metadata.Name}
}

// manifestOf names objects, as kubectl reads it.
func manifestOf(refs []Object) []byte {
	type meta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace,omitempty"`
	}
	type item struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   meta   `json:"metadata"`
	}
	list := struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Items      []item `json:"items"`
	}{APIVersion: "v1", Kind: "List"}
	for _, r := range refs {
		list.Items = append(list.Items, item{r.APIVersion, r.Kind, meta{r.Name, r.Namespace}})
	}
	data, _ := json.Marshal(list) // strings alone
	return data
}

// workloads reads one object, a list, or nothing.
func (a Inventory) workloads(ctx context.Context, stdin []byte, args ...string) ([]workload, error) {
	c := a.Kubectl.Command(append(args, "--output", "json", "--request-timeout", "30s")...)
	if stdin != nil {
		c.Stdin = bytes.NewReader(stdin)
	}
	data, err := host.Output(ctx, a.Cluster.Server().Runner, c)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return nil, err
	}
	var list struct{ Items []workload }
	var one workload
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading how the application is: %w", err)
	}
	if list.Items != nil {
		return list.Items, nil
	}
	if err := json.Unmarshal(data, &one); err != nil {
		return nil, fmt.Errorf("reading how the application is: %w", err)
	}
	if one.Kind == "" || strings.HasSuffix(one.Kind, "List") {
		return nil, nil
	}
	return []workload{one}, nil
}

// Wait is how an application is waited for.
type Wait struct {
	Inventory
	Timeout time.Duration // for all workloads that there are when it begins
	Poll    time.Duration // how often they are asked
	// Lacks are those of images, by name, that no registry of the cluster has.
	Lacks func(ctx context.Context, images []string) ([]string, error)
}

var errTimeout = fmt.Errorf("the time is up: %w", context.DeadlineExceeded)

// Until waits until all workloads of the record are ready. What will never be ends it at once. The error is a
// *NotReadyError, but where the cluster cannot be asked.
func (a Wait) Until(ctx context.Context, rec *Record, log io.Writer) error {
	limited, cancel := context.WithTimeoutCause(ctx, a.Timeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(a.Poll)
	defer tick.Stop()
	said := ""
	var last State
	var failed error
	for {
		s, err := a.State(limited, rec)
		if err == nil {
			last = s
			if s.Ready() {
				return nil
			}
			if text := describeParts(s.Unready); text != said {
				said = text
				_, _ = fmt.Fprintln(log, text)
			}
			err = a.hopeless(limited, rec, s)
			if _, ok := err.(*NotReadyError); ok { //nolint:errorlint // hopeless makes it
				return err
			}
		}
		if limited.Err() == nil {
			failed = err // an API server may just be restarting
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if last.Ready() {
				return fmt.Errorf("waiting for %s: %w", a.Timeout, cmp.Or(failed, errTimeout))
			}
			return a.notReady(ctx, rec, last)
		case <-tick.C:
		}
	}
}

func describeParts(parts []Part) string {
	lines := make([]string, len(parts))
	for i, p := range parts {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
