// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Data may be restored into another cluster than the one it was saved in, made anew in its place, whose certificates are signed by other
// authorities. What the data holds of the old ones is replaced: in cluster-info, in every namespace, in tokens and in pods.

// strangeData is there from when such data is seen until all of that is done.
const strangeData = keptDir + "/restored-from-another"

// Controllers go on once the lease of those before them has ended; pods of the host's network need what they are made of.
const (
	authorityTimeout = 3 * time.Minute
	podsTimeout      = 3 * time.Minute
)

// ownData are the steps on h, which has begun with restored data: those before others join it, and those after.
func ownData(h *runtime.Host) (before, after []runtime.Step) {
	notStrange := func(ctx context.Context) (bool, error) {
		there, err := succeeds(ctx, h.Runner, "test", "-e", strangeData)
		return err == nil && !there, err
	}
	before = []runtime.Step{{
		Name: "looking which cluster's data it is",
		Do:   func(ctx context.Context, log io.Writer) error { return nameAuthority(ctx, h, log) },
	}}
	after = []runtime.Step{
		{
			Name: "waiting until every namespace has this cluster's authority",
			Done: notStrange,
			Do:   func(ctx context.Context, log io.Writer) error { return waitAuthority(ctx, h, log) },
		},
		{
			Name: "starting pods anew that have another cluster's",
			Done: notStrange,
			Do: func(ctx context.Context, log io.Writer) error {
				if err := renewTokens(ctx, h, log); err != nil {
					return err
				}
				if err := renewPods(ctx, h, log); err != nil {
					return err
				}
				return remove(ctx, h, strangeData)
			},
		},
	}
	return before, after
}

// nameAuthority has cluster-info, by which hosts join, name this cluster's authority.
func nameAuthority(ctx context.Context, h *runtime.Host, log io.Writer) error {
	admin, err := host.ReadFile(ctx, h.Runner, adminConf)
	if err != nil {
		return err
	}
	own, err := authorityOf(admin)
	if err != nil {
		return fmt.Errorf("%s: reading %q: %w", h, adminConf, err)
	}
	var info []byte
	err = eventually(ctx, apiTimeout, func(ctx context.Context) (bool, error) {
		info, err = host.Output(ctx, h.Runner, ask("get", "configmap", "cluster-info", "--namespace", "kube-public", "--ignore-not-found", "--output", "jsonpath={.data.kubeconfig}"))
		return err == nil, err
	})
	if err != nil {
		return err
	}
	theirs, err := authorityOf(info)
	if err != nil {
		return fmt.Errorf("%s: reading the kubeconfig in kube-public/cluster-info: %w", h, err)
	}
	if theirs == "" || theirs == own {
		return nil
	}
	_, _ = fmt.Fprintln(log, "the data is of another cluster, whose certificates are not this one's")
	if err := host.WriteFile(ctx, h.Runner, strangeData, nil, 0o600); err != nil {
		return err
	}
	patch, err := json.Marshal(object{"data": object{"kubeconfig": strings.ReplaceAll(string(info), theirs, own)}})
	if err != nil {
		return err
	}
	return change(ctx, h, log, "patch", "configmap", "cluster-info", "--namespace", "kube-public", "--type", "merge", "--patch", string(patch))
}

// authorityOf is the CA of a kubeconfig's first cluster, in base64; empty where it names none.
func authorityOf(kubeconfig []byte) (string, error) {
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA string `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
	}
	if err := yaml.Unmarshal(kubeconfig, &config); err != nil || len(config.Clusters) == 0 {
		return "", err
	}
	return config.Clusters[0].Cluster.CA, nil
}

// waitAuthority waits for kube-controller-manager, which publishes the authority.
func waitAuthority(ctx context.Context, h *runtime.Host, log io.Writer) error {
	own, err := host.ReadFile(ctx, h.Runner, "/etc/kubernetes/pki/ca.crt")
	if err != nil {
		return err
	}
	said := ""
	return eventually(ctx, authorityTimeout, func(ctx context.Context) (bool, error) {
		var list struct {
			Items []struct {
				Metadata struct{ Namespace string }
				Data     map[string]string
			}
		}
		if err := read(ctx, h, &list, "configmaps", "--field-selector", "metadata.name=kube-root-ca.crt"); err != nil {
			return false, err
		}
		var old []string
		for _, i := range list.Items {
			if strings.TrimSpace(i.Data["ca.crt"]) != strings.TrimSpace(string(own)) {
				old = append(old, i.Metadata.Namespace)
			}
		}
		if text := strings.Join(old, ", "); text != said && text != "" {
			said = text
			_, _ = fmt.Fprintln(log, "namespaces with the authority of another cluster:", text)
		}
		return len(old) == 0, nil
	})
}

// renewTokens has kube-controller-manager sign anew the tokens that are kept in secrets.
func renewTokens(ctx context.Context, h *runtime.Host, log io.Writer) error {
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
		}
	}
	err := eventually(ctx, apiTimeout, func(ctx context.Context) (bool, error) {
		err := read(ctx, h, &list, "secrets", "--field-selector", "type=kubernetes.io/service-account-token")
		return err == nil, err
	})
	if err != nil {
		return err
	}
	for _, i := range list.Items {
		err := change(ctx, h, log, "patch", "secret", i.Metadata.Name, "--namespace", i.Metadata.Namespace, "--type", "merge", "--patch", `{"data":{"token":null,"ca.crt":null}}`)
		if err != nil {
			return err
		}
	}
	return nil
}

// pod as far as it is asked for.
type pod struct {
	Metadata struct {
		Namespace, Name, UID string
		OwnerReferences      []struct{ Kind string }
	}
	Spec   struct{ HostNetwork bool }
	Status struct {
		Phase      string
		Conditions []struct{ Type, Status string }
	}
}

// made: something makes it anew when it is deleted. A static pod belongs to its Node.
func (p *pod) made() bool {
	return len(p.Metadata.OwnerReferences) > 0 && p.Metadata.OwnerReferences[0].Kind != "Node"
}

func (p *pod) ready() bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool { return c.Type == "Ready" && c.Status == "True" })
}

// renewPods deletes what is made anew: first the pods of the hosts' network, which make the others', then all others.
func renewPods(ctx context.Context, h *runtime.Host, log io.Writer) error {
	var before []pod
	list := func(ctx context.Context) (found []pod, err error) {
		var l struct{ Items []pod }
		err = read(ctx, h, &l, "pods")
		return l.Items, err
	}
	err := eventually(ctx, apiTimeout, func(ctx context.Context) (_ bool, err error) {
		before, err = list(ctx)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, p := range before {
		old[p.Metadata.UID] = true
		if !p.made() && len(p.Metadata.OwnerReferences) == 0 {
			_, _ = fmt.Fprintf(log, "%s/%s is left as it is: nothing would make it anew\n", p.Metadata.Namespace, p.Metadata.Name)
		}
	}
	if err := deletePods(ctx, h, log, before, func(p *pod) bool { return p.made() && p.Spec.HostNetwork }); err != nil {
		return err
	}
	late := "" // a host may be away: the others go on
	err = eventually(ctx, podsTimeout, func(ctx context.Context) (bool, error) {
		now, err := list(ctx)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(now, func(p pod) bool {
			return p.made() && p.Spec.HostNetwork && p.Status.Phase != "Succeeded" && (old[p.Metadata.UID] || !p.ready())
		})
		if i < 0 {
			return true, nil
		}
		late = now[i].Metadata.Namespace + "/" + now[i].Metadata.Name
		return false, nil
	})
	if errors.Is(err, errLate) {
		_, _ = fmt.Fprintf(log, "%s is not ready yet\n", late)
		err = nil
	}
	if err != nil {
		return err
	}
	return deletePods(ctx, h, log, before, func(p *pod) bool { return p.made() && !p.Spec.HostNetwork })
}

func deletePods(ctx context.Context, h *runtime.Host, log io.Writer, list []pod, which func(*pod) bool) error {
	names := map[string][]string{}
	for _, p := range list {
		if which(&p) {
			names[p.Metadata.Namespace] = append(names[p.Metadata.Namespace], p.Metadata.Name)
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(names)) {
		for some := range slices.Chunk(names[namespace], 100) {
			if err := change(ctx, h, log, append([]string{"delete", "pod", "--namespace", namespace, "--ignore-not-found", "--wait=false"}, some...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func ask(args ...string) host.Command {
	return Distribution{}.Kubectl().Command(append(args, "--request-timeout", "60s")...)
}

func change(ctx context.Context, h *runtime.Host, log io.Writer, args ...string) error {
	c := ask(args...)
	c.Stdout, c.Stderr, c.Mutates = log, log, true
	return h.Runner.Run(ctx, c)
}

// read lists the objects of all namespaces.
func read(ctx context.Context, h *runtime.Host, out any, resource string, more ...string) error {
	text, err := host.Output(ctx, h.Runner, ask(append([]string{"get", resource, "--all-namespaces", "--output", "json"}, more...)...))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: reading the %s: %w", h, resource, err)
	}
	return nil
}

// errLate is something that does not come in time.
var errLate = errors.New("it takes too long")

// eventually asks until the answer is yes. An API server that does not answer is asked again: it may have been started anew.
func eventually(ctx context.Context, limit time.Duration, is func(context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeoutCause(ctx, limit, errLate)
	defer cancel()
	tick := time.NewTicker(apiInterval)
	defer tick.Stop()
	for {
		yes, err := is(limited)
		if yes {
			return nil
		}
		if _, answered := errors.AsType[*host.ExitError](err); err != nil && !answered && limited.Err() == nil {
			return err
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return errors.Join(fmt.Errorf("waiting for %s: %w", limit, errLate), err)
		case <-tick.C:
		}
	}
}
