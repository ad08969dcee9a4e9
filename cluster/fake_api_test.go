// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealerio/sealer/host/hosttest"
)

// fakeAPI is the objects of a cluster, as kubectl gives them on every control plane.
type fakeAPI struct {
	mu       sync.Mutex
	clock    time.Time
	secrets  map[string]map[string]any
	objects  map[string]fakeObject
	releases map[string]bool
	// makes says what a launched command makes, by a part of its text.
	makes map[string][]fakeObject
	// broken are workloads, by name, that do not become ready.
	broken map[string]bool
	events string
	order  []string // what was deleted
}

type fakeObject struct {
	version, kind, namespace, name string
	created                        time.Time
}

func (o fakeObject) id() string { return o.kind + "/" + o.namespace + "/" + o.name }

func newFakeAPI() *fakeAPI {
	return &fakeAPI{
		clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), secrets: map[string]map[string]any{}, objects: map[string]fakeObject{},
		makes: map[string][]fakeObject{}, broken: map[string]bool{}, releases: map[string]bool{},
	}
}

func (a *fakeAPI) now() time.Time {
	a.clock = a.clock.Add(time.Second)
	return a.clock
}

// answer gives a host kubectl, and what its launched commands do.
func (a *fakeAPI) answer(f *fakeHost) {
	locked := func(do func(hosttest.Call) string) hosttest.Answer {
		return hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			a.mu.Lock()
			defer a.mu.Unlock()
			return hosttest.Answer{Stdout: do(c)}
		}}
	}
	f.On(`^kubectl (get secrets --namespace kube-system --selector sealer|apply --server-side)`, locked(a.secret))
	f.On(`^kubectl delete secret`, locked(func(c hosttest.Call) string {
		delete(a.secrets, c.Argv[3])
		return ""
	}))
	f.On(`^kubectl api-resources`, locked(func(hosttest.Call) string {
		return "namespaces ns v1 false Namespace\nconfigmaps cm v1 true ConfigMap\ndeployments deploy apps/v1 true Deployment\njobs batch/v1 true Job\nwidgets example.com/v1 true Widget\n"
	}))
	f.On(`^kubectl get --filename - .*go-template`, locked(func(c hosttest.Call) string {
		var out string
		for _, o := range a.named(c.Stdin) {
			out += strings.Join([]string{o.version, o.kind, o.namespace, o.name, o.created.Format(time.RFC3339)}, "\t") + "\n"
		}
		return out
	}))
	f.On(`^kubectl get --filename - .*json`, locked(func(c hosttest.Call) string { return a.workloads(a.named(c.Stdin)) }))
	f.On(`^kubectl get events`, locked(func(hosttest.Call) string { return `{"items":[` + a.events + `]}` }))
	f.On(`^kubectl get secrets .*owner=helm`, locked(func(c hosttest.Call) string {
		_, name, _ := strings.Cut(c.String(), "name=")
		if name, _, _ = strings.Cut(name, " "); a.releases[name] {
			return `{"items":[{}]}`
		}
		return `{"items":[]}`
	}))
	f.On(`^kubectl delete --filename -`, locked(func(c hosttest.Call) string {
		for _, o := range a.named(c.Stdin) {
			delete(a.objects, o.id())
			a.order = append(a.order, o.id())
		}
		return ""
	}))
	f.On(`^rm -f -- .*/notes$`, locked(func(c hosttest.Call) string {
		f.Put(c.Argv[3], "", 0o600)
		return ""
	}))
	f.On(`(?s)^sh -c .PATH=`, locked(func(c hosttest.Call) string {
		a.launch(f, c)
		return ""
	}))
	f.On(`helm uninstall`, locked(func(c hosttest.Call) string {
		delete(a.releases, c.Argv[4])
		a.order = append(a.order, "release "+c.Argv[4])
		return ""
	}))
}

// launch makes what the command makes, and notes it as the script does.
func (a *fakeAPI) launch(f *fakeHost, c hosttest.Call) {
	file := ""
	for _, kv := range c.Env {
		if rest, ok := strings.CutPrefix(kv, "SEALER_NOTES="); ok {
			file = rest
		}
	}
	for _, part := range slices.Sorted(maps.Keys(a.makes)) {
		if !strings.Contains(c.Argv[2], part) {
			continue
		}
		for _, o := range a.makes[part] {
			line := fmt.Sprintf("O\t%s\t%s\t%s\t%s\n", o.version, o.kind, o.namespace, o.name)
			if o.kind == "release" {
				a.releases[o.name] = true
				line = fmt.Sprintf("R\t%s\t%s\n", o.namespace, o.name)
			} else if _, there := a.objects[o.id()]; !there {
				o.created = a.now()
				a.objects[o.id()] = o
			}
			f.Put(file, string(f.Files()[file].Data)+line, 0o600)
		}
	}
}

func (a *fakeAPI) secret(c hosttest.Call) string {
	if c.Argv[1] == "get" {
		var items []any
		for _, name := range slices.Sorted(maps.Keys(a.secrets)) {
			items = append(items, a.secrets[name])
		}
		text, _ := json.Marshal(map[string]any{"items": items})
		return string(text)
	}
	var s map[string]any
	if err := json.Unmarshal(c.Stdin, &s); err != nil {
		return err.Error()
	}
	meta := s["metadata"].(map[string]any)
	name := meta["name"].(string)
	meta["creationTimestamp"] = a.now().Format(time.RFC3339)
	if have, ok := a.secrets[name]; ok {
		meta["creationTimestamp"] = have["metadata"].(map[string]any)["creationTimestamp"]
	}
	a.secrets[name] = s
	text, _ := json.Marshal(s)
	return string(text)
}

// named are those of the objects that a manifest names, in its order.
func (a *fakeAPI) named(manifest []byte) []fakeObject {
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
	}
	if json.NewDecoder(bytes.NewReader(manifest)).Decode(&list) != nil {
		return nil
	}
	var found []fakeObject
	for _, i := range list.Items {
		if o, ok := a.objects[fakeObject{kind: i.Kind, namespace: i.Metadata.Namespace, name: i.Metadata.Name}.id()]; ok {
			found = append(found, o)
		}
	}
	return found
}

func (a *fakeAPI) workloads(objects []fakeObject) string {
	var items []string
	for _, o := range objects {
		available, job := 1, `,"conditions":[{"type":"Complete","status":"True"}]`
		if a.broken[o.name] {
			available, job = 0, `,"conditions":[{"type":"Failed","status":"True","message":"Job has reached the specified backoff limit"}]`
		}
		if o.kind != "Job" {
			job = ""
		}
		items = append(items, fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":%q,"generation":2},"spec":{"replicas":1,"selector":{"matchLabels":{"app":%q}}},
"status":{"observedGeneration":2,"replicas":1,"updatedReplicas":1,"readyReplicas":%d,"availableReplicas":%d%s}}`,
			o.version, o.kind, o.name, o.namespace, o.name, available, available, job))
	}
	return `{"kind":"List","items":[` + strings.Join(items, ",") + `]}`
}
