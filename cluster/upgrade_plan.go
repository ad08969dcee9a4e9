// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// Steps and phases that are looked for by name.
const (
	phaseControlPlane = "upgrading a control plane"
	stepUpgraded      = "checking that the node is well"
	stepSnapshot      = "remembering where the data is saved"
)

// cordonedByUs is the annotation of a node that Upgrade keeps pods off: only such a node is given pods again.
const cordonedByUs = kube.CordonedBy + "upgrade"

// plan is everything that is to be done; with PauseAfter, up to there.
func (u *upgrade) plan() (plan, error) {
	if err := u.findBinaries(); err != nil {
		return plan{}, err
	}
	c, todo := u.cluster, u.batch()
	sent := int64(0)
	for _, n := range u.missing {
		sent += n
	}
	p := plan{title: fmt.Sprintf("upgrading cluster %q to %s of %s: %d of %d nodes, sending %d MiB", c.File.Name, u.target, u.ImageName, len(todo), len(c.Hosts), (sent+1<<20-1)>>20)}
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
	lead := []*runtime.Host{u.lead()}
	add("sending what the hosts lack", false, c.Hosts, u.content)
	p.phases[len(p.phases)-1].end = u.transfer().Spread(u.cluster.Hosts)
	add("serving the packed images beside the old ones", false, []*runtime.Host{u.shared().source()}, u.registry)
	add("serving them on all control planes", false, u.shared().others(), u.registry)
	add("pushing the packed images beside the old ones", false, lead, u.pushExternal)
	add("bringing what the control planes serve to the external registry", true, u.serving(), u.moveRegistry)
	if d, ok := u.distribution.(runtime.Repointer); ok && u.external() { // the new image may have images of other domains
		add("pointing the hosts at the registry", false, c.Hosts, func(h *runtime.Host) []runtime.Step { return d.Repoint(c, h) })
	}
	add(stepDocker, false, c.Hosts, u.docker)
	u.planSnapshot(add)
	for _, h := range todo {
		if h.Spec.Role == clusterfile.ControlPlane {
			add(phaseControlPlane, true, []*runtime.Host{h}, u.node)
		}
	}
	batches, err := u.batches(todo)
	if err != nil {
		return plan{}, err
	}
	for _, batch := range batches {
		add("upgrading workers", false, batch, u.node)
	}
	if len(todo) < len(u.todo) {
		return p, nil
	}
	phase := clusterfile.OnUpgrade
	if u.how.Back {
		phase = clusterfile.OnRollback
	}
	add("plugins of upgraded hosts", false, c.Hosts, u.hooks(clusterfile.OnUpgradeHost, c.Digest))
	add("plugins of the upgrade", false, lead, u.hooks(phase, c.Digest))
	if !u.how.SkipCMD {
		add("running the image's CMD", false, lead, u.launch)
	}
	add("finishing", false, c.Hosts, u.finished)
	add("removing what the image before had of its own", false, c.Hosts, u.forgetOld)
	return p, nil
}

// finished ends the upgrade of a host. What was done once to make it a node, as the old image had it, counts as done for the new
// one: kubeadm init is nothing to be run again because the version is another.
func (u *upgrade) finished(h *runtime.Host) []runtime.Step {
	steps := u.finish(h)
	last := &steps[len(steps)-1]
	last.Do = func(context.Context, io.Writer) error {
		did := slices.Concat(u.distribution.Init(u.cluster, h), u.distribution.Join(u.cluster, h))
		for _, p := range []clusterfile.Phase{clusterfile.PreInstall, clusterfile.PostInstall, clusterfile.PreInitHost, clusterfile.PostInitHost} {
			did = append(did, u.hooks(p)(h)...)
		}
		done := u.executor.states[h].Steps
		for _, s := range did {
			if s.Key != "" && done[s.Name] != "" {
				done[s.Name] = s.Key
			}
		}
		return nil
	}
	return steps
}

// planSnapshot saves the data before the first node is touched, once for an upgrade.
func (u *upgrade) planSnapshot(add func(string, bool, []*runtime.Host, func(*runtime.Host) []runtime.Step)) {
	if u.how.NoSnapshot {
		return
	}
	on, file := u.contact, ""
	for _, h := range u.cluster.ControlPlanes() {
		if u.begun(h) && h.Facts.State.Steps[stepSnapshot] != "" {
			on, file = h, h.Facts.State.Steps[stepSnapshot]
		}
	}
	if u.touched() { // there is nothing from before to be saved any more
		if file != "" {
			u.snapshot.host, u.snapshot.file = on.String(), file
		}
		return
	}
	if file == "" {
		file = u.snapshotFile()
	}
	steps := u.distribution.Snapshot(u.cluster, on, file)
	if len(steps) == 0 {
		return
	}
	u.snapshot.host, u.snapshot.file = on.String(), file
	for i := range steps {
		if steps[i].Done == nil { // what is from before is not saved over
			steps[i].Key = file
		}
	}
	// Its name is noted first: a run that is killed after that leaves no file behind that the next one does not know.
	steps = append([]runtime.Step{{Name: stepSnapshot, Key: file}}, steps...)
	add("saving the cluster's data", true, []*runtime.Host{on}, func(*runtime.Host) []runtime.Step { return steps })
}

// touched: some node has been upgraded, in part at least.
func (u *upgrade) touched() bool {
	for _, h := range u.cluster.Hosts {
		if u.begun(h) && (len(u.todo) < len(u.cluster.Hosts) || u.nodes[h].Metadata.Annotations[cordonedByUs] != "") {
			return true
		}
	}
	return false
}

// node is the way of one node to the new version.
func (u *upgrade) node(h *runtime.Host) []runtime.Step {
	running, drained := u.distribution.Upgrade(u.cluster, h)
	steps := append(running, runtime.Step{
		Name: "draining the node",
		Done: func(ctx context.Context) (bool, error) { return u.allDone(ctx, h, drained) },
		Do:   func(ctx context.Context, log io.Writer) error { return u.drain(ctx, h, log) },
	})
	steps = slices.Concat(steps, drained, u.carrying(h)) // the new image may pack another program for that
	return append(steps,
		runtime.Step{
			Name: "waiting until the node is Ready with " + u.target,
			Do:   func(ctx context.Context, log io.Writer) error { return u.waitNode(ctx, h, log) },
		},
		runtime.Step{
			Name: "letting pods onto the node again",
			Done: func(ctx context.Context) (bool, error) {
				n, err := u.nodeOf(ctx, h)
				return err == nil && n.Metadata.Annotations[cordonedByUs] == "", context.Cause(ctx)
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return u.poll(ctx, log, 1, func(ctx context.Context) error { return u.uncordon(ctx, h, log) })
			},
		},
		runtime.Step{
			Name: stepUpgraded, Key: u.cluster.Digest,
			Done: func(ctx context.Context) (bool, error) { return u.unwell(ctx, h) == nil, nil },
			Do:   func(ctx context.Context, log io.Writer) error { return u.waitWell(ctx, h, log) },
		},
	)
}

// allDone: none of the steps has anything left to do.
func (u *upgrade) allDone(ctx context.Context, h *runtime.Host, steps []runtime.Step) (bool, error) {
	for _, s := range steps {
		if done, err := u.executor.isDone(ctx, h, s); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}

func (u *upgrade) nodeOf(ctx context.Context, h *runtime.Host) (kube.Node, error) {
	n, err := u.api().Node(ctx, h.Facts.NodeName())
	if err == nil && n == nil {
		err = fmt.Errorf("%s: the cluster has no node %s", h, h.Facts.NodeName())
	}
	if err != nil {
		return kube.Node{}, err
	}
	return *n, nil
}

// drain signs the node before it keeps pods off it, unless someone else keeps them off already.
func (u *upgrade) drain(ctx context.Context, h *runtime.Host, log io.Writer) error {
	name := h.Facts.NodeName()
	err := u.poll(ctx, log, 1, func(ctx context.Context) error {
		if _, err := u.nodeOf(ctx, h); err != nil {
			return err
		}
		return u.api().Sign(ctx, name, cordonedByUs, u.target, log)
	})
	if err != nil {
		return err
	}
	return u.api().DrainOrRelease(ctx, name, cordonedByUs, kube.DrainOptions{Timeout: u.how.DrainTimeout, Force: u.how.ForceDrain}, log)
}

// uncordon may be done twice. Only what Upgrade has cordoned is signed.
func (u *upgrade) uncordon(ctx context.Context, h *runtime.Host, log io.Writer) error {
	if _, err := u.nodeOf(ctx, h); err != nil {
		return err
	}
	return u.api().Release(ctx, h.Facts.NodeName(), cordonedByUs, log)
}

// VersionError is a node that does not come back with the version it was upgraded to.
type VersionError struct {
	Node, Have, Want string
	look             string // where
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the node %s reports %s, not %s", e.Node, e.Have, e.Want)
}

// Hint says where to look.
func (e *VersionError) Hint() string { return e.look }

// settled is how often in a row a control plane has to be well, and settledLate where it may start anew once more.
const settled, settledLate = 2, 8

// waitNode waits for what the new kubelet reports, and on a control plane until it stays well.
func (u *upgrade) waitNode(ctx context.Context, h *runtime.Host, log io.Writer) error {
	times := 1
	if h.Spec.Role == clusterfile.ControlPlane {
		times = settled
		if d, ok := u.distribution.(runtime.Restarter); ok && d.RestartsLate() {
			times = settledLate
		}
	}
	return u.poll(ctx, log, times, func(ctx context.Context) error {
		n, err := u.nodeOf(ctx, h)
		if err != nil {
			return err
		}
		if have := n.Status.NodeInfo.KubeletVersion; have != u.target {
			return &VersionError{Node: n.Metadata.Name, Have: have, Want: u.target, look: u.distribution.Service(h).Hint()}
		}
		if why := readiness(n); why != "" {
			return &NotReadyError{u.ReadyTimeout, []string{fmt.Sprintf("%s (%s): %s", h, n.Metadata.Name, why)}}
		}
		return u.unwell(ctx, h)
	})
}

// unwell asks the host, and every control plane's share of the datastore.
func (u *upgrade) unwell(ctx context.Context, h *runtime.Host) error {
	for _, o := range append([]*runtime.Host{h}, u.cluster.ControlPlanes()...) {
		for _, p := range u.distribution.Health(u.cluster, o) {
			if o != h && p.Name != runtime.ProbeDatastore {
				continue
			}
			if err := p.Ask(ctx); err != nil {
				return fmt.Errorf("%s: %s is not well: %w", o, p.Name, err)
			}
		}
	}
	return nil
}

func (u *upgrade) waitWell(ctx context.Context, h *runtime.Host, log io.Writer) error {
	return u.poll(ctx, log, 1, func(ctx context.Context) error { return u.unwell(ctx, h) })
}

// poll asks until there is no error so many times in a row, for at most ReadyTimeout; the error is then the last one.
func (u *upgrade) poll(ctx context.Context, log io.Writer, times int, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, u.ReadyTimeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(u.PollInterval)
	defer tick.Stop()
	said := ""
	for well := 0; ; {
		err := ask(limited)
		if err != nil {
			well = 0
		} else if well++; well == times {
			return nil
		}
		if err != nil && limited.Err() == nil && err.Error() != said {
			said = err.Error()
			say(log, "%s", said)
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("waiting for %s: %w", u.ReadyTimeout, cmp.Or(err, errUnsteady))
		case <-tick.C:
		}
	}
}

// errUnsteady is a node that was well, but not long enough.
var errUnsteady = errors.New("it does not stay well")

// forgetOld removes the rootfs of the image before, and the blobs that nothing needs any more. What the registry serves stays: pods may
// still use images that the new one does not pack.
func (u *upgrade) forgetOld(h *runtime.Host) []runtime.Step {
	s := h.Facts.State
	image, old := s.PreviousImage, s.PreviousDigest
	if s.ImageDigest != u.cluster.Digest {
		image, old = s.Image, s.ImageDigest
	}
	if old == "" {
		return nil
	}
	return []runtime.Step{{
		Name: "removing " + image,
		Key:  u.cluster.Digest + " " + old,
		Do: func(ctx context.Context, log io.Writer) error {
			if image != "" && image != u.ImageName {
				if err := (program.Call{Log: log}).Run(ctx, h, "content", "untag", "--name", image); err != nil {
					return err
				}
			}
			if err := (program.Call{Log: log}).Run(ctx, h, "rootfs", "remove", "--image", old); err != nil {
				return err
			}
			if err := (program.Call{Log: log}).Run(ctx, h, "content", "prune"); err != nil {
				return err
			}
			state := u.executor.states[h]
			state.PreviousImage, state.PreviousDigest = "", ""
			return nil
		},
	}}
}
