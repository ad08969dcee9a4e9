// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// ApplyOptions say what a cluster is to be. Image may be nil: then it is the one that the cluster runs.
type ApplyOptions struct {
	RunOptions
	// FindImage finds the image that the cluster runs, where Image is nil: by the digest of its index; name is what it was called.
	FindImage func(ctx context.Context, digest, name string) (*clusterimage.Image, string, error)
	// FindApplication finds an application's image by its reference; it may be nil where the Clusterfile names none.
	FindApplication func(ctx context.Context, reference string) (*clusterimage.Image, string, error)
	// Prune deletes application images that the Clusterfile does not name, also where they were run by hand.
	Prune bool
	// Force takes hosts out that cannot be reached, and deletes pods that would not leave a node.
	Force bool
	// DrainTimeout is how long pods may take to leave a node. Default kube.DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Batch is how many workers are upgraded at once, as UpgradeOptions has it.
	Batch string
	// NoSnapshot upgrades without saving the cluster's data first.
	NoSnapshot bool
	// Show gets the plan, before anything is touched, also that of a dry run; nil: nobody does.
	Show func(*ApplyPlan) error
	// Confirm is asked after Show, where there is something to do; nil: nobody is. Its error is Apply's.
	Confirm func() error
}

// ChangedError is a cluster that became another one between the plan and its execution.
type ChangedError struct{ Cluster string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the cluster %q has changed since the plan was made; nothing was touched", e.Cluster)
}

// Hint is to look again.
func (e *ChangedError) Hint() string { return "run the same command again: it makes a new plan" }

// Apply makes a cluster what the Clusterfile says: what is there is read from the hosts and the cluster, compared, and the
// difference is done by Run, Upgrade and Remove. Where there is no cluster yet, it is made. An Apply that was cut is
// continued by the same call; where nothing differs, nothing is touched.
func Apply(ctx context.Context, o ApplyOptions) (err error) {
	o.RunOptions = o.withDefaults()
	if o.Show == nil {
		o.Show = func(*ApplyPlan) error { return nil }
	}
	if o.Clusterfile == nil || o.Content == nil || o.Dial == nil || o.NodeBinary == nil || o.StateDir == "" || o.Image == nil && o.FindImage == nil ||
		len(o.Clusterfile.ApplicationImages) > 0 && o.FindApplication == nil {
		return errors.New("applying a Clusterfile: Clusterfile, images, content, dial, node binary and state folder are needed")
	}
	if err := o.Clusterfile.Validate(); err != nil {
		return fmt.Errorf("applying a Clusterfile: %w", err)
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	connections := &pool{dial: o.Dial, open: map[string]*pooled{}}
	defer func() { err = errors.Join(err, connections.close()) }()
	o.Dial = connections.get

	a := &applying{ApplyOptions: o, kept: kept}
	p, err := a.look(ctx)
	if err != nil {
		return err
	}
	if err := o.Show(p); err != nil {
		return err
	}
	if o.DryRun {
		return nil
	}
	if p.Nothing() {
		return nil
	}
	if o.Confirm != nil {
		if err := o.Confirm(); err != nil {
			return err
		}
	}
	held, release, err := kept.hold(ctx, a.cluster, o.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	again, err := a.look(held) // another operator may have been there
	if err != nil {
		return err
	}
	if again.String() != p.String() {
		return &ChangedError{Cluster: o.Clusterfile.Name}
	}
	if err := a.execute(held, again); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Out, "cluster %q is as the Clusterfile says, on %s\n", o.Clusterfile.Name, hosts(len(a.want.Machines())))
	return err
}

// applying is an Apply under way.
type applying struct {
	ApplyOptions
	kept *folder
	// What was found by look:
	want    *clusterfile.File // over the image's defaults
	all     *clusterfile.File // as want, with the hosts that the cluster has besides
	was     *clusterfile.File // what it was made from; nil: not known
	going   []clusterfile.Host
	nodes   []kube.Node
	records []*application.Record
	missing map[string]application.Notes // what is gone of the Clusterfile's applications, by their names
	cluster *runtime.Cluster             // of all hosts that were reached
	lost    []*runtime.Host
	image   RunOptions // with the image that is to run
	paths   [][]string // of settings that change
	fresh   bool       // there is no cluster yet, or only a part of one
	back    bool       // the image is of an older version than the cluster
	silent  error      // no control plane answers: only settings can be put right

	applications map[string]foundImage // of the Clusterfile, by their names
}

// applied is what an Apply tells the run that carries out a part of it.
type applied struct {
	was      *clusterfile.File
	paths    [][]string
	unpacked bool // the rootfs is unpacked anew: the Clusterfile has put files there that are to go
	// leaving are workers that stay as they are until they are taken out.
	leaving []string
}

// look finds what is there and what is to be done, and what is in the way. Nothing is changed.
func (a *applying) look(ctx context.Context) (*ApplyPlan, error) {
	if err := a.findApplications(ctx); err != nil {
		return nil, err
	}
	if err := a.find(ctx); err != nil {
		return nil, err
	}
	if a.fresh {
		return a.planNew(ctx)
	}
	return a.plan(ctx)
}

// execute does what the plan says, part by part, each by the engine that is there for it.
//
// Nodes that stay are upgraded before hosts join: a kubelet must not be newer than the API servers
// (https://kubernetes.io/releases/version-skew-policy), and one of the old version would be upgraded a moment after it has joined. Workers that
// leave are not upgraded: they may stay behind for as long as that takes. Hosts join before others leave: a majority of
// the datastore, and room for the pods that have to move, are there when they are needed.
func (a *applying) execute(ctx context.Context, p *ApplyPlan) error {
	o := a.image
	o.Out, o.DryRun = io.Discard, false
	if a.fresh {
		o.Clusterfile = a.all
		if err := a.run(ctx, o, nil); err != nil {
			return err
		}
		return a.executeApplications(ctx, p)
	}
	if p.upgrades() {
		if err := a.upgradeOptions(o).carryOut(ctx, a.kept); err != nil {
			return err
		}
	}
	o.Clusterfile = a.all
	if slices.ContainsFunc(p.Stages, func(s ApplyStage) bool { return s.Name != stageApplications }) {
		if err := a.run(ctx, o, a.applied(p)); err != nil {
			return err
		}
	}
	if len(a.going) > 0 {
		err := RemoveOptions{
			Operator: o.Operator, Name: a.want.Name, Hosts: a.going, Force: a.Force, DrainTimeout: a.DrainTimeout, plugins: a.want.Plugins,
		}.carryOut(ctx, a.kept)
		if err != nil {
			return err
		}
		lost := slices.DeleteFunc(slices.Clone(a.going), func(m clusterfile.Host) bool {
			return !slices.ContainsFunc(a.lost, func(h *runtime.Host) bool { return h.Spec.Address == m.Address })
		})
		// Now, and not in the end: where applications fail nobody knows of these hosts the next time.
		if err := reportLost(a.Out, a.want.Name, lost); err != nil {
			return err
		}
	}
	return a.executeApplications(ctx, p)
}

func (a *applying) run(ctx context.Context, o RunOptions, part *applied) error {
	distribution, err := choose(o)
	if err != nil {
		return err
	}
	r := &run{RunOptions: o, distribution: distribution, applied: part}
	return r.reach(ctx, a.kept, a.want)
}

// upgradeOptions are for the hosts that the cluster has; those that join do so with the new image.
func (a *applying) upgradeOptions(o RunOptions) UpgradeOptions {
	f := *a.all
	f.Endpoint = clusterfile.Endpoint{}                                               // it changes afterwards
	if a.was != nil && a.was.Registry.External == nil && f.Registry.External == nil { // so do these
		was := a.was.Registry
		f.Registry.Username, f.Registry.Password, f.Registry.CA, f.Registry.CAKey = was.Username, was.Password, was.CA, was.CAKey
	}
	f.Hosts = slices.DeleteFunc(slices.Clone(f.Hosts), func(m clusterfile.Host) bool {
		return !slices.ContainsFunc(a.cluster.Hosts, func(h *runtime.Host) bool { return h.Spec.Address == m.Address && h.Facts.State != nil })
	})
	o.Clusterfile = &f
	u := UpgradeOptions{RunOptions: o, Batch: a.Batch, DrainTimeout: a.DrainTimeout, ForceDrain: a.Force, NoSnapshot: a.NoSnapshot, Back: a.back}
	for _, h := range a.lost { // they are taken out afterwards, as Force wants it
		u.Skip = append(u.Skip, h.Spec.Address)
	}
	for _, address := range a.leaving() {
		u.Skip = append(u.Skip, address)
		for _, h := range a.cluster.Hosts {
			if h.Spec.Address == address {
				u.Skip = append(u.Skip, h.Facts.NodeName())
			}
		}
	}
	return u
}

// leaving are workers that are to go.
func (a *applying) leaving() []string {
	var list []string
	for _, m := range a.going {
		if m.Role == clusterfile.Worker {
			list = append(list, m.Address)
		}
	}
	return list
}

func (a *applying) applied(p *ApplyPlan) *applied {
	return &applied{was: a.was, paths: a.paths, unpacked: p.drops(AboutConfig), leaving: a.leaving()}
}
