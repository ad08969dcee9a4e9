// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sealerio/sealer/cluster/transfer"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// plan is all phases of a run, one after the other.
type plan struct {
	title  string
	phases []phase
}

// phase is work on hosts that may go on at once. The next phase begins when all of it is done.
type phase struct {
	name   string
	serial bool // one host after the other
	work   []work
	// end is called when all hosts have ended; nil: nothing. Such a phase has all hosts at work at once.
	end func()
}

// work is a list of steps on one host.
type work struct {
	host  *runtime.Host
	steps []runtime.Step
}

// String is the plan for people: phases, hosts, steps.
func (p plan) String() string {
	var b strings.Builder
	b.WriteString(p.title + "\n")
	for i, ph := range p.phases {
		how := ""
		switch {
		case len(ph.work) > 1 && ph.serial:
			how = ", one host after the other"
		case len(ph.work) > 1:
			how = ", hosts at once"
		}
		fmt.Fprintf(&b, "%2d. %s%s\n", i+1, ph.name, how)
		for _, w := range ph.work {
			for _, s := range w.steps {
				mark := ""
				if st := w.host.Facts.State; st != nil && s.Key != "" && st.Steps[s.Name] == s.Key {
					mark = " (done before)"
				}
				fmt.Fprintf(&b, "    %s: %s%s\n", w.host, s.Name, mark)
			}
		}
	}
	return b.String()
}

// run is a Run under way.
type run struct {
	RunOptions
	cluster      *runtime.Cluster
	distribution runtime.Distribution
	// originals are files of the image that Configs are merged into, by platform and path.
	originals map[string]map[string][]byte
	// lost are hosts of the cluster that cannot be reached, and that nothing is asked of.
	lost       []*runtime.Host
	registries *registries
	// applied is what an Apply has found, which then runs this; nil otherwise.
	applied *applied
	// move is the change of the endpoint that is to be carried out; nil: it stays.
	move *move
	// noNetwork: the nodes are not Ready, since nothing on them is a network plugin.
	noNetwork bool
	executor  *executor // once it is carried out
	// clusterRootfs is that of the cluster's image on the host, where Image is an application's.
	clusterRootfs string

	transferMu  sync.Mutex
	transferred *transfer.Transfer // made by transfer
}

func (r *run) plan() (plan, error) {
	if err := r.findBinaries(); err != nil {
		return plan{}, err
	}
	c := r.cluster
	p := plan{title: fmt.Sprintf("cluster %q of %s on %s", c.File.Name, r.ImageName, hosts(len(c.Hosts)))}
	add := func(name string, serial bool, on []*runtime.Host, steps func(*runtime.Host) []runtime.Step) {
		ph := phase{name: name, serial: serial}
		for _, h := range on {
			if s := steps(h); len(s) > 0 {
				ph.work = append(ph.work, work{h, s})
			}
		}
		if len(ph.work) > 0 {
			p.phases = append(p.phases, ph)
		}
	}
	lead := []*runtime.Host{r.lead()}
	add("naming hosts", false, c.Hosts, r.naming)
	add("noting that the endpoint changes", false, r.followers(c.ControlPlanes()), r.beginMove)
	add("sending content", false, c.Hosts, r.content)
	p.phases[len(p.phases)-1].end = r.transfer().Spread(r.cluster.Hosts)
	add("plugins before the installation", false, lead, r.hooks(clusterfile.PreInstall))
	newly := r.growing()
	if len(newly) > 0 {
		add("plugins before hosts join", false, lead, r.hooks(clusterfile.PreScaleUp, newly...))
	}
	add("plugins before the installation of hosts", false, c.Hosts, r.hooks(clusterfile.PreInitHost))
	add("serving the packed images", false, []*runtime.Host{r.shared().source()}, r.registry)
	add("serving the packed images on all control planes", false, r.shared().others(), r.registry)
	if r.shared().rotating {
		add("accepting the registry's new login", false, c.ControlPlanes(), r.shared().accept)
		p.phases[len(p.phases)-1].end = r.shared().both
	}
	add("pushing the packed images", false, lead, r.pushExternal)
	add("asking the external registry from every host", false, c.Hosts, r.askExternal)
	add("bringing what the control planes serve to the external registry", true, r.serving(), r.moveRegistry)
	add(stepDocker, false, c.Hosts, r.docker)
	add("installing "+r.distribution.Name(), false, c.Hosts, func(h *runtime.Host) []runtime.Step { return r.distribution.Install(c, h) })
	if r.applied != nil {
		add("changing settings of control planes", true, r.serverFirst(), r.adjusting)
		add("changing settings of workers", false, c.Workers(), r.adjusting)
	}
	add("starting the cluster", false, c.Hosts, r.starting)
	add("naming the new endpoint in certificates", true, r.followers(r.serverFirst()), r.certify)
	add("carrying the virtual address", r.move != nil, r.carriers(), r.carrying)
	add("reaching the API servers by the cluster's endpoint", false, c.Hosts, r.reaching)
	add("keeping the new endpoint in the cluster", false, r.followers([]*runtime.Host{c.Server()}), r.tellMove)
	add("leading control planes to the new endpoint", true, r.followers(r.serverFirst()), r.follow)
	add("leading workers to the new endpoint", true, r.followers(c.Workers()), r.follow)
	add("leaving the endpoint before", true, r.followers(c.ControlPlanes()), r.leaveBefore)
	add("noting the new endpoint", false, r.followers(c.ControlPlanes()), r.endMove)
	join := func(h *runtime.Host) []runtime.Step { return r.distribution.Join(c, h) }
	add("joining control planes", true, r.joiners(), func(h *runtime.Host) []runtime.Step {
		return slices.Concat(join(h), []runtime.Step{r.ownAPIServer(h)}, r.carryingBeside(h, clusterfile.Endpoint{}))
	})
	add("joining workers", false, c.Workers(), join)
	if r.shared().rotating && len(r.lost) == 0 { // those would still have the login before when they are back
		add("changing the registry's login", false, []*runtime.Host{r.shared().source()}, r.shared().change)
		add("changing the registry's login on all control planes", false, r.shared().others(), r.shared().change)
		add("trusting the registry's new CA alone", false, c.Hosts, r.trustNew)
		add("leaving the registry's login before", false, c.ControlPlanes(), r.shared().leave)
	}
	if len(r.lost) == 0 { // those would still ask it when they are back
		add("taking away the registries of the control planes", false, r.serving(), r.retire)
	}
	add("plugins after the installation of hosts", false, c.Hosts, r.hooks(clusterfile.PostInitHost))
	add("labels and taints", false, c.Hosts, r.labels)
	add("plugins after the installation", false, lead, r.hooks(clusterfile.PostInstall))
	if len(newly) > 0 {
		add("plugins after hosts have joined", false, lead, r.hooks(clusterfile.PostScaleUp, newly...))
	}
	add("running the image's CMD", false, lead, r.launchOnce)
	add("finishing", false, c.Hosts, r.finish)
	return p, nil
}

// finish marks the host as complete.
func (r *run) finish(h *runtime.Host) []runtime.Step {
	return append(define(r.cluster, h), runtime.Step{Name: stepComplete, Key: r.cluster.Digest})
}

// stepComplete is done when every other one is.
const stepComplete = "completing the installation"
