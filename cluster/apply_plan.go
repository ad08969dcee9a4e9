// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// The stages of a plan, in their order.
const (
	stageMake     = "making the cluster"
	stageUpgrade  = "upgrading the hosts that stay"
	stageSettings = "changing settings"
	stageEndpoint = "changing how the API servers are found"
	stageJoin     = "hosts that join"
	stageMark     = "labels and taints"
	stageStart    = "starting again what the image starts"
	stageLeave    = "hosts that leave"

	stageApplications = "applications"
)

// ApplyPlan is what Apply does, in order.
type ApplyPlan struct {
	Cluster string       `json:"cluster"`
	Image   string       `json:"image"`
	Digest  string       `json:"imageDigest"`
	Version string       `json:"version"` // of Kubernetes
	Stages  []ApplyStage `json:"stages"`
}

// ApplyStage is a part of a plan. The next one begins when all of it is done.
type ApplyStage struct {
	Name    string   `json:"name"`
	Changes []Change `json:"changes"`
}

// Nothing tells whether there is nothing to do.
func (p *ApplyPlan) Nothing() bool { return len(p.Stages) == 0 }

func (p *ApplyPlan) add(name string, changes ...Change) {
	if len(changes) > 0 {
		p.Stages = append(p.Stages, ApplyStage{name, changes})
	}
}

func (p *ApplyPlan) upgrades() bool {
	return slices.ContainsFunc(p.Stages, func(s ApplyStage) bool { return s.Name == stageUpgrade })
}

// drops: something of this kind is taken away.
func (p *ApplyPlan) drops(about string) bool {
	return slices.ContainsFunc(p.Stages, func(s ApplyStage) bool {
		return slices.ContainsFunc(s.Changes, func(c Change) bool { return c.About == about && c.Op == OpRemove })
	})
}

// String is the plan for people.
func (p *ApplyPlan) String() string {
	title := fmt.Sprintf("cluster %q of %s", p.Cluster, p.Image)
	if p.Version != "" {
		title += " (" + p.Version + ")"
	}
	if p.Nothing() {
		return title + ": nothing to do\n"
	}
	var b strings.Builder
	count := map[Op]int{}
	for i, s := range p.Stages {
		fmt.Fprintf(&b, "%2d. %s\n", i+1, s.Name)
		for _, c := range s.Changes {
			count[c.Op]++
			b.WriteString("    " + c.String() + "\n")
		}
	}
	var counts []string
	for _, op := range []Op{OpAdd, OpChange, OpRemove} {
		if count[op] > 0 {
			counts = append(counts, fmt.Sprintf("%d to %s", count[op], op))
		}
	}
	return title + ": " + strings.Join(counts, ", ") + "\n" + b.String()
}

// planNew is for a cluster that is not there yet, or of which a run was cut.
func (a *applying) planNew(ctx context.Context) (*ApplyPlan, error) {
	describe(a.cluster, a.image)
	o := a.image
	o.Clusterfile, o.DryRun, o.Out = a.all, true, io.Discard
	if err := a.run(ctx, o, nil); err != nil {
		return nil, err
	}
	p := a.newPlan()
	changes := []Change{{Op: OpAdd, About: AboutCluster, Name: a.want.Name}}
	for _, h := range a.cluster.Hosts {
		c := Change{Op: OpAdd, About: AboutHost, Host: h.String(), To: role(h.Spec)}
		if h.Facts.State != nil {
			c.Note = "its installation is continued"
		}
		changes = append(changes, c)
	}
	p.add(stageMake, changes...)
	coming := a.newApplications()
	p.add(stageApplications, coming...)
	return p, a.checkApplications(ctx, coming, false)
}

func (a *applying) newPlan() *ApplyPlan {
	return &ApplyPlan{
		Cluster: a.want.Name, Image: a.image.ImageName, Digest: a.image.Image.Descriptor.Digest.String(), Version: a.cluster.KubeVersion(),
		Stages: []ApplyStage{},
	}
}

// plan compares, and makes sure that all of the difference can be done, before any of it is.
func (a *applying) plan(ctx context.Context) (*ApplyPlan, error) {
	distribution, err := choose(a.image)
	if err != nil {
		return nil, err
	}
	c := a.cluster
	describe(c, a.image)
	if err := describeOlder(ctx, c, a.image); err != nil {
		return nil, err
	}
	if err := a.checkRoles(); err != nil {
		return nil, err
	}
	is := comparison{
		want: a.want, was: a.was, going: a.going, hosts: slices.Concat(c.Hosts, a.lost), nodes: a.nodes, asked: a.silent == nil,
		image: a.image.ImageName, digest: c.Digest, version: c.KubeVersion(),
		records: a.records, missing: a.missing, found: a.applications, prune: a.Prune,
	}
	settings, paths, refused := is.settings(distribution)
	refused = append(refused, a.portsInUse(is)...)
	n, err := notedEndpoint(c.Hosts)
	if err != nil {
		return nil, err
	}
	moving, err := is.endpoint()
	if err != nil {
		return nil, err
	}
	if a.want.Endpoint.Said() {
		refused = append(refused, n.obstacles(c, distribution, a.want.Endpoint, len(a.leaving()) > 0)...)
	}
	if len(refused) > 0 {
		return nil, &RefusedError{Cluster: a.want.Name, Reasons: refused}
	}
	a.paths = paths
	p := a.newPlan()
	upgrade := is.images()
	a.back = slices.ContainsFunc(c.Hosts, func(h *runtime.Host) bool { // one is enough: the others may be through already
		return h.Facts.State != nil && older(c.KubeVersion(), h.Facts.State.KubeVersion)
	})
	if a.back {
		for i := range upgrade {
			upgrade[i].Note = strings.Trim("back: "+upgrade[i].Note, ": ")
		}
	}
	stopped, err := a.stopped(ctx)
	if err != nil {
		return nil, err
	}
	settings = slices.Concat(is.unfinished(), is.registries(), stopped, settings)
	joins, marking, leaves := is.joins(), is.marking(), is.leaves()
	if a.silent != nil && (len(settings) == 0 || len(upgrade)+len(joins)+len(leaves)+len(moving) > 0) {
		return nil, a.silent
	}
	p.add(stageUpgrade, upgrade...)
	var started []Change
	if len(upgrade) == 0 {
		var more []Change
		if more, started, err = a.pending(ctx, distribution, len(settings)+len(joins)+len(marking)+len(leaves)+len(moving) > 0); err != nil {
			return nil, err
		}
		settings = append(settings, more...)
	}
	p.add(stageSettings, settings...)
	p.add(stageEndpoint, moving...)
	p.add(stageJoin, joins...)
	p.add(stageMark, marking...)
	p.add(stageStart, started...)
	p.add(stageLeave, leaves...)
	var applications []Change
	if a.silent == nil {
		applications = is.applicationImages()
	}
	others := !p.Nothing()
	p.add(stageApplications, applications...)
	if others {
		if err := a.check(ctx, distribution, p); err != nil {
			return nil, err
		}
	}
	return p, a.checkApplications(ctx, applications, !p.upgrades())
}

// older: version is before that of the cluster, within its minor version.
func older(version, now string) bool {
	to, err1 := semver.NewVersion(upstream(version))
	from, err2 := semver.NewVersion(upstream(now))
	return err1 == nil && err2 == nil && to.LessThan(from) && to.Major() == from.Major() && to.Minor() == from.Minor()
}

// checkRoles: hosts keep their roles.
func (a *applying) checkRoles() error {
	for _, h := range a.cluster.Hosts {
		if s := h.Facts.State; s != nil && s.Cluster == a.want.Name && s.Role != string(h.Spec.Role) {
			return &RoleError{Host: h.String(), Has: clusterfile.Role(s.Role), Want: h.Spec.Role}
		}
	}
	return nil
}

// portsInUse: others listen where the registry is to.
func (a *applying) portsInUse(is comparison) []string {
	var reasons []string
	if c := is; c.was != nil && c.was.Registry.External != nil && c.want.Registry.External == nil {
		for _, h := range a.cluster.ControlPlanes() {
			begun := h.Facts.State != nil && h.Facts.State.Steps[stepRegistryInit] != "" // what listens is ours
			if !begun && slices.ContainsFunc(h.Facts.Listening, func(l runtime.Listener) bool { return l.Port == a.want.Registry.Port }) {
				reasons = append(reasons, fmt.Sprintf("%s: the registry's port %d is in use by another program", h, a.want.Registry.Port))
			}
		}
	}
	for _, change := range is.registries() {
		for _, h := range a.cluster.ControlPlanes() {
			_, before, _ := strings.Cut(change.From, ":")
			if h.String() != change.Host || before == fmt.Sprint(a.want.Registry.Port) {
				continue
			}
			for _, l := range h.Facts.Listening {
				if l.Port == a.want.Registry.Port {
					reasons = append(reasons, fmt.Sprintf("%s: the registry's port %d is in use by another program", h, l.Port))
					break
				}
			}
		}
	}
	return reasons
}

// stopped are the registries that should serve, and do not, or whose change was cut.
func (a *applying) stopped(ctx context.Context) ([]Change, error) {
	if a.want.Registry.External != nil {
		return nil, nil
	}
	list := a.cluster.ControlPlanes()
	found, begun := make([]string, len(list)), make([]bool, len(list))
	err := onAll(list, func(h *runtime.Host) (err error) {
		i := slices.Index(list, h)
		if found[i], err = registryState(ctx, h); err == nil {
			begun[i], err = rotating(ctx, h)
		}
		return err
	})
	var changes []Change
	for i, h := range list {
		if found[i] == "stopped" {
			changes = append(changes, Change{Op: OpChange, About: AboutRegistry, Host: h.String(), Note: "it does not run"})
		}
		if begun[i] {
			changes = append(changes, Change{Op: OpChange, About: AboutRegistry, Host: h.String(), Note: "the change of its login or CA has not come to its end"})
		}
	}
	return changes, err
}

// pending are the steps of a run that were done for something else than what is to be: what is started again, and all else. Where
// the other changes explain the latter they are left out.
func (a *applying) pending(ctx context.Context, d runtime.Distribution, explained bool) (rest, started []Change, err error) {
	r, err := a.rehearsal(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	p, err := r.plan()
	if err != nil {
		return nil, nil, err
	}
	for _, ph := range p.phases {
		for _, w := range ph.work {
			state := w.host.Facts.State
			if state == nil || !state.Complete {
				continue
			}
			for _, s := range w.steps {
				c := Change{Op: OpChange, About: AboutStep, Host: w.host.String(), Name: s.Name}
				before := state.Steps[s.Name]
				switch {
				case s.Key == "" || before == s.Key || s.Name == stepAllReady:
					continue
				case before == "":
					c.Op = OpAdd
				}
				if strings.HasPrefix(s.Name, "CMD ") || strings.HasPrefix(s.Name, "LAUNCH ") {
					started = append(started, c)
				} else if !explained || strings.HasPrefix(s.Name, "plugin ") {
					rest = append(rest, c)
				}
			}
		}
	}
	if !explained {
		unaware, err := r.unaware(ctx)
		return append(rest, unaware...), started, err
	}
	return rest, started, nil
}

// unaware are the workers whose balancers lead to other control planes than there are: they were away when those were replaced.
func (r *run) unaware(ctx context.Context) ([]Change, error) {
	workers := slices.DeleteFunc(r.cluster.Workers(), func(h *runtime.Host) bool { return h.Lost != nil || !h.Facts.State.WasComplete() })
	found := make([][]Change, len(workers))
	err := onAll(workers, func(h *runtime.Host) error {
		for _, s := range endpoint(r.cluster, r.distribution, h) {
			done, err := s.Done(ctx)
			if err != nil {
				return err
			}
			if !done {
				i := slices.Index(workers, h)
				found[i] = append(found[i], Change{Op: OpChange, About: AboutStep, Host: h.String(), Name: s.Name})
			}
		}
		return nil
	})
	return slices.Concat(found...), err
}

// rehearsal is the run that execute will do, as far as it can be known now.
func (a *applying) rehearsal(ctx context.Context, d runtime.Distribution) (*run, error) {
	o := a.image
	o.Clusterfile = a.all
	c := *a.cluster
	c.Hosts = slices.DeleteFunc(slices.Clone(c.Hosts), func(h *runtime.Host) bool { return slices.Contains(a.leaving(), h.Spec.Address) })
	r := &run{RunOptions: o, cluster: &c, distribution: d, lost: a.lost, applied: &applied{was: a.was}}
	if err := r.keepEndpoint(ctx); err != nil {
		return nil, err
	}
	if err := r.checkImage(); err != nil {
		return nil, err
	}
	return r, r.readOriginals(ctx)
}

// check finds what would stop the engines, before any of them begins.
func (a *applying) check(ctx context.Context, d runtime.Distribution, p *ApplyPlan) error {
	var gone []error
	for _, h := range a.lost {
		gone = append(gone, h.Lost)
	}
	if len(gone) > 0 && !a.Force {
		return &GoneError{gone}
	}
	if slices.ContainsFunc(a.going, func(m clusterfile.Host) bool { return m.Role == clusterfile.ControlPlane }) {
		lost := slices.DeleteFunc(slices.Clone(a.lost), func(h *runtime.Host) bool { return h.Spec.Role != clusterfile.ControlPlane })
		if err := checkQuorum(ctx, a.cluster, d, nil, lost...); err != nil {
			return err
		}
	}
	if p.upgrades() {
		o := a.image
		o.DryRun, o.Out = true, io.Discard
		if err := a.upgradeOptions(o).carryOut(ctx, a.kept); err != nil {
			return err
		}
	}
	r, err := a.rehearsal(ctx, d)
	if err != nil {
		return err
	}
	if a.silent == nil {
		if err := r.checkSwitch(ctx); err != nil {
			return err
		}
	}
	if err := r.checkEndpoint(ctx); err != nil {
		return err
	}
	id, err := a.kept.clusterID(a.want.Name, a.cluster.Hosts)
	if err != nil {
		return err
	}
	// As it will be when the upgrade is done: until then the hosts have another image.
	then := *r.cluster
	then.Hosts = make([]*runtime.Host, len(r.cluster.Hosts))
	for i, h := range r.cluster.Hosts {
		later := *h
		if s := h.Facts.State; s != nil && p.upgrades() {
			upgraded := s.Clone()
			upgraded.ImageDigest, upgraded.KubeVersion = then.Digest, then.KubeVersion()
			later.Facts.State = &upgraded
		}
		then.Hosts[i] = &later
	}
	return runtime.Preflight(&then, d, a.Distributions, id)
}

// adjusting brings changed settings to a host that is part of the cluster.
func (r *run) adjusting(h *runtime.Host) []runtime.Step {
	adjuster, ok := r.distribution.(runtime.Adjuster)
	if !ok || len(r.applied.paths) == 0 || h.Facts.State == nil || !h.Facts.State.Complete {
		return nil
	}
	return adjuster.Adjust(r.cluster, h, r.applied.paths)
}

// serverFirst are the control planes, beginning with the one that is asked.
func (r *run) serverFirst() []*runtime.Host {
	list := r.cluster.ControlPlanes()
	slices.SortStableFunc(list, func(a, b *runtime.Host) int {
		order := map[bool]int{true: 0, false: 1}
		return order[a == r.cluster.Server()] - order[b == r.cluster.Server()]
	})
	return list
}
