// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// Status is how a cluster is.
type Status struct {
	Cluster     string       `json:"cluster"`
	Image       string       `json:"image"`
	ImageDigest string       `json:"imageDigest"`
	Runtime     string       `json:"runtime"`
	Version     string       `json:"version"`            // of Kubernetes
	Contact     string       `json:"contact,omitempty"`  // the control plane that was asked; empty where none answers
	Endpoint    string       `json:"endpoint,omitempty"` // host:port of the API servers as a whole; empty: each worker has a balancer
	Hosts       []HostStatus `json:"hosts"`
	Drift       []string     `json:"drift"`  // how the cluster differs from what it is to be
	Unwell      []string     `json:"unwell"` // what does not work
	// NotCompared is what Drift may lack, and why; empty: it lacks nothing.
	NotCompared string `json:"notCompared,omitempty"`

	problems []runtime.Problem
}

// Problems are what Unwell says, each with its host, the name of what was looked at, and what to do.
func (s *Status) Problems() []runtime.Problem { return s.problems }

func (s *Status) add(list ...ailment) {
	for _, a := range list {
		s.problems, s.Unwell = append(s.problems, a.Problem), append(s.Unwell, a.text)
	}
}

// ailment is a problem, and the sentence for it.
type ailment struct {
	runtime.Problem
	text string
}

// ails says it of a host.
func ails(h *runtime.Host, check, fix, format string, args ...any) ailment {
	p := runtime.Problem{Host: h.String(), Check: check, What: fmt.Sprintf(format, args...), Fix: fix}
	text := p.Host + ": " + p.What
	if fix != "" {
		text += " (" + fix + ")"
	}
	return ailment{p, text}
}

// HostStatus is how one host is.
type HostStatus struct {
	Host     string `json:"host"`
	Node     string `json:"node,omitempty"`
	Role     string `json:"role"`
	Ready    bool   `json:"ready"`
	Cordoned bool   `json:"cordoned,omitempty"`
	Version  string `json:"version,omitempty"` // of its kubelet
	Complete bool   `json:"complete"`          // its installation came to its end
	Registry string `json:"registry,omitempty"`
	Problem  string `json:"problem,omitempty"`
	// CertificatesUntil is when the first of the host's certificates ends; zero where that is not known.
	CertificatesUntil time.Time `json:"certificatesUntil,omitzero"`
}

// Well tells whether nothing is wrong, and nothing differs.
func (s *Status) Well() bool { return len(s.Drift) == 0 && len(s.Unwell) == 0 }

// Status asks all hosts and the cluster.
func (v *View) Status(ctx context.Context) (*Status, error) {
	c := v.cluster
	s := &Status{Cluster: c.File.Name, Runtime: v.distribution.Name(), ImageDigest: c.Digest, Drift: []string{}, Unwell: []string{}}
	var list struct{ Items []kube.Node }
	if c.Contact == nil {
		silent := noContact(c, v.distribution)
		p := runtime.Problem{Check: "api", What: silent.Error()}
		if hinter, ok := errors.AsType[*NoContactError](silent); ok {
			p.Fix = hinter.Hint()
		}
		s.add(ailment{p, silent.Error()})
	} else {
		s.Contact = c.Contact.String()
		data, err := v.kubectl(ctx, "get", "nodes", "--output", "json")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("reading the list of nodes: %w", err)
		}
	}
	s.Endpoint = c.File.Endpoint.HostPort(apiPort(c, v.distribution))
	known := map[string]bool{}
	s.Hosts = make([]HostStatus, len(c.Hosts))
	probes := make([][]ailment, len(c.Hosts))
	for i, h := range c.Hosts {
		s.Hosts[i] = v.hostStatus(h, list.Items, c.Contact != nil)
		known[s.Hosts[i].Node] = true
	}
	err := each(c.Hosts, func(h *runtime.Host) error {
		i := slices.Index(c.Hosts, h)
		var err error
		if s.Hosts[i].Registry, err = registryState(ctx, h); err != nil {
			return err
		}
		if probes[i], err = v.ask(ctx, h); err != nil {
			return err
		}
		if h.Lost == nil && h.Facts.State != nil {
			var ending []ailment
			if s.Hosts[i].CertificatesUntil, ending, err = v.ending(ctx, h); err != nil {
				return err
			}
			probes[i] = append(probes[i], ending...)
		}
		if s.Endpoint == "" || c.Contact == nil || h.Facts.State == nil {
			return err
		}
		t, err := reach(ctx, c, v.distribution, h, s.Endpoint)
		if err == nil && t.Obstacle != "" {
			probes[i] = append(probes[i], ails(h, "endpoint", "", "the endpoint %s does not lead to the API servers: %s", s.Endpoint, t.Why))
		}
		return err
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			s.add(ailment{runtime.Problem{Check: "host", What: line}, line})
		}
	}
	for i, h := range c.Hosts {
		s.add(probes[i]...)
		if s.Hosts[i].Registry == "stopped" {
			s.add(ails(h, "registry", "journalctl -u sealer-registry; under OpenRC /var/log/sealer-registry.log", "the registry of the packed images does not run"))
		}
		if n := s.Hosts[i]; n.Problem != "" && h.Lost == nil && h.Facts.State != nil {
			s.add(ails(h, "node", "", "%s", n.Problem))
		}
		if state := h.Facts.State; s.Image == "" && h.Lost == nil && state != nil && state.Complete {
			s.Image, s.Version, s.ImageDigest = state.Image, state.KubeVersion, state.ImageDigest
		}
	}
	whole, err := v.overDefaults(ctx, s)
	if err != nil {
		return nil, err
	}
	lines, err := v.drift(s, list.Items, whole)
	if err != nil {
		return nil, err
	}
	s.Drift = append(s.Drift, lines...)
	if c.Contact != nil {
		lines, err := v.applicationDrift(ctx)
		if err != nil {
			return nil, err
		}
		s.Drift = append(s.Drift, lines...)
	}
	for _, n := range list.Items {
		if !known[n.Metadata.Name] {
			s.Drift = append(s.Drift, fmt.Sprintf("the cluster has a node %q, which is none of the hosts", n.Metadata.Name))
		}
	}
	return s, nil
}

// ending is when the first of a host's certificates ends, and which of them have ended or will soon.
func (v *View) ending(ctx context.Context, h *runtime.Host) (first time.Time, soon []ailment, err error) {
	list, err := v.distribution.Certificates(ctx, v.cluster, h)
	if err != nil {
		return first, nil, err
	}
	now := time.Now()
	for _, c := range list {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
		word := "ends"
		switch {
		case c.NotAfter.Before(now):
			word = "has ended"
		case c.NotAfter.After(now.Add(expiresSoon)):
			continue
		}
		fix := "sealer cert renew"
		if c.CA {
			fix = "an authority, which sealer does not renew"
		}
		soon = append(soon, ails(h, "certificates", fix, "the certificate %s %s at %s", c.Name, word, c.NotAfter.UTC().Format(time.RFC3339)))
	}
	return first, soon, nil
}

// overDefaults has the Clusterfile go over the defaults of its image, as Apply does, and tells whether it could: they are on this machine,
// or nowhere that Status would look.
func (v *View) overDefaults(ctx context.Context, s *Status) (bool, error) {
	if !v.desired || v.findImage == nil {
		return false, nil
	}
	const not = "settings, environment, configs and plugins: "
	if v.was == nil {
		s.NotCompared = not + "no control plane that was reached keeps what the cluster was made from"
		return false, nil
	}
	digest, name := s.ImageDigest, v.want.Image
	if name != "" {
		digest = ""
	}
	image, err := v.findImage(ctx, digest, name)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	name = cmp.Or(name, s.Image)
	if err != nil { // of the cluster all else can be said
		s.NotCompared = fmt.Sprintf("%sthe image %s, whose own ones the Clusterfile goes over, cannot be read on this machine: %v", not, name, err)
		return false, nil
	}
	if image == nil {
		s.NotCompared = fmt.Sprintf("%sthe image %s, whose own ones the Clusterfile goes over, is not on this machine (sealer pull %s)", not, name, name)
		return false, nil
	}
	v.want, err = OverDefaults(v.want, image, name)
	return err == nil, err
}

// drift is how hosts, image, registry, labels, taints and, where the Clusterfile is whole, settings differ from what they are to be, by the
// comparison that Apply makes.
func (v *View) drift(s *Status, nodes []kube.Node, whole bool) ([]string, error) {
	c := comparison{
		want: v.want, was: v.was, hosts: v.cluster.Hosts, nodes: nodes, asked: v.cluster.Contact != nil,
		image: s.Image, digest: s.ImageDigest,
	}
	if v.desired {
		if v.want.Image != "" {
			c.image, c.digest = v.want.Image, "" // what else its name stands for here is not looked at
		}
		if v.was != nil {
			for _, m := range v.was.Hosts {
				if c.host(m) == nil {
					c.going = append(c.going, m)
				}
			}
		}
	}
	if !v.desired { // what it was made from keeps the endpoint before until a change has come to its end
		said := *v.want
		said.Endpoint, c.want = clusterfile.Endpoint{}, &said
	}
	moving, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	var settings []Change
	if whole {
		settings, _, _ = c.settings(v.distribution)
	}
	var lines []string
	for _, change := range slices.Concat(c.joins(), c.leaves(), moving[:min(1, len(moving))], c.unfinished(), c.images(), c.kubelets(), c.registries(), settings, c.marking()) {
		lines = append(lines, change.Drift())
	}
	return lines, nil
}

func (v *View) hostStatus(h *runtime.Host, nodes []kube.Node, asked bool) HostStatus {
	s := HostStatus{Host: h.Spec.String(), Role: string(h.Spec.Role), Node: h.Facts.NodeName()}
	if h.Facts.State != nil {
		s.Complete = h.Facts.State.Complete
	}
	i := slices.IndexFunc(nodes, func(n kube.Node) bool { return n.Metadata.Name == s.Node })
	if i < 0 { // a host that cannot be asked, or that is called otherwise by now: its node keeps the name that it has joined with
		i = slices.IndexFunc(nodes, func(n kube.Node) bool {
			return slices.ContainsFunc(n.Status.Addresses, func(a struct{ Type, Address string }) bool { return a.Address == h.Spec.Address })
		})
	}
	switch {
	case i >= 0:
		n := nodes[i]
		s.Node, s.Version, s.Cordoned = n.Metadata.Name, n.Status.NodeInfo.KubeletVersion, n.Spec.Unschedulable
		s.Problem = readiness(n)
		s.Ready = s.Problem == ""
	case asked:
		s.Problem = "it is no node of the cluster"
	}
	if h.Lost != nil {
		s.Problem = h.Lost.Error()
	}
	return s
}

// registryState is whether the host serves the packed images: "running", "stopped", or nothing where it never did.
func registryState(ctx context.Context, h *runtime.Host) (string, error) {
	service := registryService(h)
	there, err := asks(ctx, h, "test", "-e", service.File())
	if err != nil || !there {
		return "", err
	}
	active, err := service.Active(ctx)
	switch {
	case err != nil:
		return "", err
	case active:
		return "running", nil
	}
	return "stopped", nil
}

// ask puts the distribution's questions to a host. Those of a host that is no part of the cluster yet are not asked.
func (v *View) ask(ctx context.Context, h *runtime.Host) ([]ailment, error) {
	if h.Facts.State == nil || !h.Facts.State.Complete {
		return nil, nil
	}
	var unwell []ailment
	for _, p := range v.distribution.Health(v.cluster, h) {
		if err := p.Ask(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			unwell = append(unwell, ails(h, p.Name, p.Fix, "%s: %s", p.Name, strings.TrimPrefix(err.Error(), h.String()+": ")))
		}
	}
	if v.was == nil {
		return unwell, nil
	}
	as := *v.cluster // with the control planes that it has, whichever are wanted
	as.File = v.was
	for _, s := range endpoint(&as, v.distribution, h) {
		done, err := s.Done(ctx)
		if err != nil {
			return nil, err
		}
		if !done {
			unwell = append(unwell, ails(h, "endpoint", "sealer apply -f, or sealer run once more", "its balancer does not run, or does not lead to all control planes"))
		}
	}
	return unwell, nil
}

// UnreadyPods are the pods of all namespaces that neither run well nor have come to their end, each with what is known of why.
func (v *View) UnreadyPods(ctx context.Context) ([]string, error) {
	data, err := v.kubectl(ctx, "get", "pods", "--all-namespaces", "--output", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Status   struct {
				Phase             string
				Conditions        []struct{ Type, Status, Message string }
				ContainerStatuses []kube.ContainerStatus
			}
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading the list of pods: %w", err)
	}
	var unready []string
	for _, p := range list.Items {
		why := "it is " + p.Status.Phase
		ready := p.Status.Phase == "Succeeded"
		for _, c := range p.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				ready = true
			}
			if c.Status != "True" && c.Message != "" {
				why = c.Message
			}
		}
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil {
				why = strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
			}
		}
		if !ready {
			unready = append(unready, p.Metadata.Namespace+"/"+p.Metadata.Name+": "+why)
		}
	}
	return unready, nil
}
