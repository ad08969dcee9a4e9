// SPDX-License-Identifier: Apache-2.0

package cluster

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
		Selector       selector
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

func isWorkload(o objectRef) bool {
	switch o.group() + "/" + o.Kind {
	case "apps/Deployment", "apps/StatefulSet", "apps/DaemonSet", "batch/Job":
		return true
	}
	return false
}

// part is one workload of an application.
type part struct {
	workload
	ref   objectRef
	why   string // it is not ready; empty: it is
	never bool   // and will not become so
}

func (p part) String() string { return p.ref.String() + ": " + p.why }

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

// applicationState is how the workloads of an application are.
type applicationState struct{ unready []part }

func (s applicationState) ready() bool { return len(s.unready) == 0 }

// state asks for the workloads that an application's present image has made.
func (a api) state(ctx context.Context, rec *applicationRecord) (applicationState, error) {
	var wanted []objectRef
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
			return applicationState{}, err
		}
		found = list
	}
	var s applicationState
	for _, o := range wanted {
		if !slices.ContainsFunc(found, func(w workload) bool { return w.ref().id() == o.id() }) {
			s.unready = append(s.unready, part{ref: o, why: "it is not there"})
		}
	}
	if len(rec.Releases) > 0 {
		list, err := a.workloads(ctx, nil, "get", "deployments.apps,statefulsets.apps,daemonsets.apps,jobs.batch", "--all-namespaces",
			"--selector", "app.kubernetes.io/managed-by=Helm")
		if err != nil {
			return applicationState{}, err
		}
		for _, w := range list {
			if slices.ContainsFunc(rec.Releases, func(r releaseRef) bool {
				return r.Of == rec.Digest && r.Name == w.Metadata.Annotations[helmRelease] && r.Namespace == w.Metadata.Annotations[helmNamespace]
			}) {
				found = append(found, w)
			}
		}
	}
	for _, w := range found {
		if why, never := w.readyWhy(); why != "" {
			s.unready = append(s.unready, part{workload: w, ref: w.ref(), why: why, never: never})
		}
	}
	return s, nil
}

func (w workload) ref() objectRef {
	return objectRef{APIVersion: w.APIVersion, Kind: w.Kind, Namespace: w.Metadata.Namespace, Name: w.Metadata.Name}
}

// manifestOf names objects, as kubectl reads it.
func manifestOf(refs []objectRef) []byte {
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
func (a api) workloads(ctx context.Context, stdin []byte, args ...string) ([]workload, error) {
	c := a.kubectl.Command(append(args, "--output", "json", "--request-timeout", "30s")...)
	if stdin != nil {
		c.Stdin = bytes.NewReader(stdin)
	}
	data, err := host.Output(ctx, a.cluster.Server().Runner, c)
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

func (a *application) state(ctx context.Context, rec *applicationRecord) (applicationState, error) {
	return a.api().state(ctx, rec)
}

// waitApplication waits until all workloads so far are ready, for ReadyTimeout. What will never be ends it at once.
func (a *application) waitApplication(ctx context.Context, log io.Writer) error {
	limited, cancel := context.WithTimeoutCause(ctx, a.ReadyTimeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(a.PollInterval)
	defer tick.Stop()
	said := ""
	var last applicationState
	var failed error
	for {
		s, err := a.state(limited, a.record)
		if err == nil {
			last = s
			if s.ready() {
				return nil
			}
			if text := describeParts(s.unready); text != said {
				said = text
				say(log, "%s", text)
			}
			err = a.hopeless(limited, s)
			if _, ok := err.(*ApplicationNotReadyError); ok { //nolint:errorlint // hopeless makes it
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
			if last.ready() {
				return fmt.Errorf("waiting for %s: %w", a.ReadyTimeout, cmp.Or(failed, errTimeout))
			}
			return a.notReady(ctx, last)
		case <-tick.C:
		}
	}
}

func describeParts(parts []part) string {
	lines := make([]string, len(parts))
	for i, p := range parts {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
