// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
)

// liveObject is an object that is there.
type liveObject struct {
	Object
	created time.Time
}

// kinds are the API's kinds by group and kind: the version that is preferred, and whether they are in namespaces.
func (a Inventory) kinds(ctx context.Context) (map[string]apiKind, error) {
	var out bytes.Buffer
	c := a.Kubectl.Command("api-resources", "--no-headers", "--request-timeout", "30s")
	c.Stdout = &out
	// An extension of the API that does not answer is an error beside the list of the others.
	err := a.Cluster.Server().Runner.Run(ctx, c)
	if _, exited := errors.AsType[*host.ExitError](err); err != nil && (!exited || out.Len() == 0) {
		return nil, err
	}
	kinds := map[string]apiKind{}
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		version := f[len(f)-3]
		o := Object{APIVersion: version, Kind: f[len(f)-1]}
		kinds[o.group()+"/"+o.Kind] = apiKind{version: version, namespaced: f[len(f)-2] == "true"}
	}
	return kinds, nil
}

type apiKind struct {
	version    string
	namespaced bool
}

const liveTemplate = `go-template={{define "o"}}{{.apiVersion}}{{"\t"}}{{.kind}}{{"\t"}}{{with .metadata.namespace}}{{.}}{{end}}{{"\t"}}{{.metadata.name}}{{"\t"}}{{.metadata.creationTimestamp}}{{"\n"}}{{end}}` +
	`{{if .items}}{{range .items}}{{template "o" .}}{{end}}{{else}}{{with .metadata}}{{with .name}}{{template "o" $}}{{end}}{{end}}{{end}}`

// live are those of the objects that are there.
func (a Inventory) live(ctx context.Context, refs []Object) ([]liveObject, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	kinds, err := a.kinds(ctx)
	if err != nil {
		return nil, err
	}
	var known []Object
	for _, o := range refs {
		k, ok := kinds[o.group()+"/"+o.Kind]
		if !ok {
			continue // it went with its kind
		}
		o.APIVersion = k.version
		switch {
		case !k.namespaced:
			o.Namespace = ""
		case o.Namespace == "":
			o.Namespace = "default"
		}
		known = append(known, o)
	}
	if len(known) == 0 {
		return nil, nil
	}
	c := a.Kubectl.Command("get", "--filename", "-", "--ignore-not-found", "--request-timeout", "30s", "--output", liveTemplate)
	c.Stdin = bytes.NewReader(manifestOf(known))
	out, err := host.Output(ctx, a.Cluster.Server().Runner, c)
	if err != nil {
		return nil, err
	}
	var found []liveObject
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("reading what the application has made: %q is no object", line)
		}
		o := Object{APIVersion: f[0], Kind: f[1], Namespace: f[2], Name: f[3]}
		created, err := time.Parse(time.RFC3339, f[4])
		if err != nil {
			return nil, fmt.Errorf("reading when %s was made: %w", o, err)
		}
		if i := slices.IndexFunc(known, func(k Object) bool { return k.id() == o.id() }); i >= 0 {
			found = append(found, liveObject{known[i], created})
		}
	}
	return found, nil
}

// The order in which objects go: what an operator looks after before the operator, and last what others are in.
func removalRank(o Object) int {
	group := o.group()
	switch {
	case o.Kind == "Namespace" && group == "":
		return 4
	case o.Kind == "CustomResourceDefinition":
		return 3
	case group != "" && group != "apps" && group != "batch" && group != "policy" && group != "autoscaling" && !strings.HasSuffix(group, ".k8s.io"):
		return 0
	case isWorkload(o):
		return 1
	}
	return 2
}

// Missing is what the present images of applications have made and is there no more, by the applications' names. Jobs and Pods are left
// out: they may go by themselves.
func (a Inventory) Missing(ctx context.Context, records []*Record) (map[string]Notes, error) {
	lasting := func(rec *Record) []Object {
		return slices.DeleteFunc(slices.Clone(rec.Objects), func(o Object) bool { return o.Of != rec.Digest || o.Kind == "Job" || o.Kind == "Pod" })
	}
	var all []Object
	for _, rec := range records {
		all = append(all, lasting(rec)...)
	}
	live, err := a.live(ctx, all)
	if err != nil {
		return nil, err
	}
	missing := map[string]Notes{}
	for _, rec := range records {
		gone := Notes{Objects: slices.DeleteFunc(lasting(rec), func(o Object) bool {
			return slices.ContainsFunc(live, func(l liveObject) bool { return o.is(l.Object) })
		})}
		for _, r := range rec.Releases {
			if r.Of != rec.Digest {
				continue
			}
			there, err := a.HasRelease(ctx, r)
			if err != nil {
				return nil, err
			}
			if !there {
				gone.Releases = append(gone.Releases, r)
			}
		}
		missing[rec.Name] = gone
	}
	return missing, nil
}

// is tells whether it names an object that is there, whose namespace is said, or empty where it is in none.
func (o Object) is(there Object) bool {
	return o.group() == there.group() && o.Kind == there.Kind && o.Name == there.Name &&
		(o.Namespace == there.Namespace || there.Namespace == "" || o.Namespace == "" && there.Namespace == "default")
}

// Own are those of the objects that the application has brought into the world: not what was there before it, and not
// what another one has as well.
func (a Inventory) Own(ctx context.Context, rec *Record, all []*Record, refs []Object) (own []Object, kept []string, err error) {
	live, err := a.live(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	inhabited := map[string]string{} // namespaces, by what stays in them
	for _, r := range all {
		if r.Name == rec.Name && !r.OfCluster {
			continue
		}
		for _, o := range r.Objects {
			inhabited[o.Namespace] = "something of the application " + r.Name
		}
		for _, o := range r.Releases {
			inhabited[o.Namespace] = "something of the application " + r.Name
		}
	}
	for _, o := range live {
		if o.created.Before(rec.made) {
			inhabited[o.Namespace] = o.String()
		}
	}
	for _, o := range live {
		switch other := sharedWith(rec, all, o.Object); {
		case o.created.Before(rec.made):
			kept = append(kept, o.String()+" was there before it")
		case other != "":
			kept = append(kept, o.String()+" is of the application "+other+", too")
		case o.Kind == "Namespace" && o.group() == "" && inhabited[o.Name] != "":
			kept = append(kept, o.String()+" has "+inhabited[o.Name]+" in it")
		default:
			own = append(own, o.Object)
		}
	}
	return own, kept, nil
}

func sharedWith(rec *Record, all []*Record, o Object) string {
	for _, r := range all {
		if r.Name == rec.Name && !r.OfCluster {
			continue
		}
		for _, have := range r.Objects {
			if have.id() == o.id() || have.Namespace == "" && have.Kind == o.Kind && have.Name == o.Name && have.group() == o.group() && o.Namespace == "default" {
				return r.Name
			}
		}
	}
	return ""
}

// Remove deletes objects and waits until they, and what they made, are gone: timeout for each kind of them.
func (a Inventory) Remove(ctx context.Context, refs []Object, timeout time.Duration, log io.Writer) error {
	refs = slices.Clone(refs)
	slices.Reverse(refs)
	for rank := range 5 {
		var now []Object
		for _, o := range refs {
			if removalRank(o) == rank {
				now = append(now, o)
			}
		}
		if len(now) == 0 {
			continue
		}
		for _, o := range now {
			_, _ = fmt.Fprintf(log, "deleting %s\n", o)
		}
		c := a.Kubectl.Command("delete", "--filename", "-", "--ignore-not-found", "--wait", "--cascade=foreground",
			"--timeout", strconv.Itoa(int(timeout.Seconds()))+"s")
		c.Stdin, c.Stdout, c.Stderr, c.Mutates = bytes.NewReader(manifestOf(now)), log, log, true
		if err := a.Cluster.Server().Runner.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// HasRelease tells whether there is a release of helm.
func (a Inventory) HasRelease(ctx context.Context, r Release) (bool, error) {
	var list struct{ Items []struct{} }
	err := a.Get(ctx, &list, "get", "secrets", "--namespace", r.Namespace, "--selector", "owner=helm,name="+r.Name)
	return len(list.Items) > 0, err
}

// Obsolete is what only images before the present one have made, and what parts of it have made that are none of parts any more; nil: all of
// them are. Volumes, namespaces and kinds stay: data would go with them.
func (a *Record) Obsolete(parts []string) Notes {
	old := func(of string, by []string) bool {
		return of != a.Digest || parts != nil && len(by) > 0 && !slices.ContainsFunc(by, func(p string) bool { return slices.Contains(parts, p) })
	}
	var n Notes
	for _, o := range a.Objects {
		if old(o.Of, o.By) && o.Kind != "PersistentVolumeClaim" && o.Kind != "PersistentVolume" && o.Kind != "Namespace" && o.Kind != "CustomResourceDefinition" {
			n.Objects = append(n.Objects, o)
		}
	}
	for _, r := range a.Releases {
		if old(r.Of, r.By) {
			n.Releases = append(n.Releases, r)
		}
	}
	return n
}

// Drop takes what is no more out of the record.
func (a *Record) Drop(gone Notes) {
	a.Objects = slices.DeleteFunc(a.Objects, func(o Object) bool {
		return slices.ContainsFunc(gone.Objects, func(g Object) bool { return g.id() == o.id() })
	})
	a.Releases = slices.DeleteFunc(a.Releases, func(r Release) bool { return slices.ContainsFunc(gone.Releases, r.is) })
}
