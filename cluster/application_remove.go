// SPDX-License-Identifier: Apache-2.0

package cluster

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
	"github.com/sealerio/sealer/runtime"
)

// liveObject is an object that is there.
type liveObject struct {
	objectRef
	created time.Time
}

// kinds are the API's kinds by group and kind: the version that is preferred, and whether they are in namespaces.
func (a api) kinds(ctx context.Context) (map[string]apiKind, error) {
	var out bytes.Buffer
	c := a.kubectl.Command("api-resources", "--no-headers", "--request-timeout", "30s")
	c.Stdout = &out
	// An extension of the API that does not answer is an error beside the list of the others.
	err := a.cluster.Server().Runner.Run(ctx, c)
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
		o := objectRef{APIVersion: version, Kind: f[len(f)-1]}
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
func (a api) live(ctx context.Context, refs []objectRef) ([]liveObject, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	kinds, err := a.kinds(ctx)
	if err != nil {
		return nil, err
	}
	var known []objectRef
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
	c := a.kubectl.Command("get", "--filename", "-", "--ignore-not-found", "--request-timeout", "30s", "--output", liveTemplate)
	c.Stdin = bytes.NewReader(manifestOf(known))
	out, err := host.Output(ctx, a.cluster.Server().Runner, c)
	if err != nil {
		return nil, err
	}
	var found []liveObject
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("reading what the application has made: %q is no object", line)
		}
		o := objectRef{APIVersion: f[0], Kind: f[1], Namespace: f[2], Name: f[3]}
		created, err := time.Parse(time.RFC3339, f[4])
		if err != nil {
			return nil, fmt.Errorf("reading when %s was made: %w", o, err)
		}
		if i := slices.IndexFunc(known, func(k objectRef) bool { return k.id() == o.id() }); i >= 0 {
			found = append(found, liveObject{known[i], created})
		}
	}
	return found, nil
}

// own are those of the objects that the application has brought into the world: not what was there before it, and not
// what another one has as well.
func (a *application) own(ctx context.Context, refs []objectRef) (own []objectRef, kept []string, err error) {
	live, err := a.api().live(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	inhabited := map[string]string{} // namespaces, by what stays in them
	for _, r := range a.records {
		if r.Name == a.name && !r.OfCluster {
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
		if o.created.Before(a.record.made) {
			inhabited[o.Namespace] = o.String()
		}
	}
	for _, o := range live {
		switch other := a.sharedWith(o.objectRef); {
		case o.created.Before(a.record.made):
			kept = append(kept, o.String()+" was there before it")
		case other != "":
			kept = append(kept, o.String()+" is of the application "+other+", too")
		case o.Kind == "Namespace" && o.group() == "" && inhabited[o.Name] != "":
			kept = append(kept, o.String()+" has "+inhabited[o.Name]+" in it")
		default:
			own = append(own, o.objectRef)
		}
	}
	return own, kept, nil
}

func (a *application) sharedWith(o objectRef) string {
	for _, r := range a.records {
		if r.Name == a.name && !r.OfCluster {
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

// The order in which objects go: what an operator looks after before the operator, and last what others are in.
func removalRank(o objectRef) int {
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

// removeObjects deletes objects and waits until they, and what they made, are gone.
func (a *application) removeObjects(ctx context.Context, refs []objectRef, log io.Writer) error {
	slices.Reverse(refs)
	for rank := range 5 {
		var now []objectRef
		for _, o := range refs {
			if removalRank(o) == rank {
				now = append(now, o)
			}
		}
		if len(now) == 0 {
			continue
		}
		for _, o := range now {
			say(log, "deleting %s", o)
		}
		c := a.api().kubectl.Command("delete", "--filename", "-", "--ignore-not-found", "--wait", "--cascade=foreground",
			"--timeout", strconv.Itoa(int(a.ReadyTimeout.Seconds()))+"s")
		c.Stdin, c.Stdout, c.Stderr, c.Mutates = bytes.NewReader(manifestOf(now)), log, log, true
		if err := a.cluster.Server().Runner.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// removeReleases uninstalls what charts have made, the last one first.
func (a *application) removeReleases(ctx context.Context, h *runtime.Host, refs []releaseRef, log io.Writer) error {
	for _, r := range slices.Backward(refs) {
		there, err := a.releaseThere(ctx, r)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		say(log, "uninstalling the chart's release %s/%s", r.Namespace, r.Name)
		env := []string{
			"ROOTFS=" + h.Rootfs, "CLUSTER_ROOTFS=" + a.clusterRootfs, "KUBECONFIG=" + a.distribution.Kubectl().Kubeconfig, "HELM_CACHE_HOME=" + h.Rootfs + "/.cache/helm",
		}
		look := host.Command{Argv: []string{"sh", "-c", inRootfs + "command -v helm >/dev/null"}, Env: env}
		if found, err := answered(h.Runner.Run(ctx, look)); err != nil || !found {
			return errors.Join(err, &NoHelmError{App: r.Name})
		}
		if err := h.Runner.Run(ctx, host.Command{
			Argv: []string{"sh", "-c", inRootfs + `helm uninstall "$1" --namespace "$2" --wait --timeout "$3"`, "sh", r.Name, r.Namespace, a.ReadyTimeout.String()},
			Dir:  h.Rootfs, Env: env, Stdout: log, Stderr: log, Mutates: true,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (a *application) releaseThere(ctx context.Context, r releaseRef) (bool, error) {
	var list struct{ Items []struct{} }
	c := a.api()
	err := c.get(ctx, &list, "get", "secrets", "--namespace", r.Namespace, "--selector", "owner=helm,name="+r.Name)
	return len(list.Items) > 0, err
}

// obsolete is what only images before have made. Volumes, namespaces and kinds stay: data would go with them.
func (a *application) obsolete() notes {
	var n notes
	for _, o := range a.record.Objects {
		if o.Of != a.cluster.Digest && o.Kind != "PersistentVolumeClaim" && o.Kind != "PersistentVolume" && o.Kind != "Namespace" && o.Kind != "CustomResourceDefinition" {
			n.objects = append(n.objects, o)
		}
	}
	for _, r := range a.record.Releases {
		if r.Of != a.cluster.Digest {
			n.releases = append(n.releases, r)
		}
	}
	return n
}

func (a *application) removeObsolete(ctx context.Context, h *runtime.Host, log io.Writer) error {
	gone := a.obsolete()
	own, kept, err := a.own(ctx, gone.objects)
	if err != nil {
		return err
	}
	for _, k := range kept {
		say(log, "%s, and stays", k)
	}
	if err := a.removeReleases(ctx, h, gone.releases, log); err != nil {
		return err
	}
	if err := a.removeObjects(ctx, own, log); err != nil {
		return err
	}
	a.record.Objects = slices.DeleteFunc(a.record.Objects, func(o objectRef) bool {
		return slices.ContainsFunc(gone.objects, func(g objectRef) bool { return g.id() == o.id() })
	})
	a.record.Releases = slices.DeleteFunc(a.record.Releases, func(r releaseRef) bool { return slices.Contains(gone.releases, r) })
	return a.api().keep(ctx, a.record)
}
