// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// UpgradeOptions say to which image a cluster is upgraded, and how. DryRun stops after the plan.
type UpgradeOptions struct {
	RunOptions
	// Batch is how many workers are upgraded at once: a number, or a share of all workers such as "10%", of which one is
	// the least. Default "10%". Control planes are upgraded one by one.
	Batch string
	// PauseAfter stops after so many nodes; the same call goes on. 0: not.
	PauseAfter int
	// Recall takes what the Clusterfile leaves open from the cluster, as it was made.
	Recall bool
	// Skip are addresses of workers that are left as they are; nodes that the Clusterfile does not have, by name.
	Skip []string
	// DrainTimeout is how long pods may take to leave a node. Default kube.DefaultDrainTimeout.
	DrainTimeout time.Duration
	// ForceDrain deletes pods that nothing makes anew, and, when the time is up, those whose budgets forbid it.
	ForceDrain bool
	// NoSnapshot upgrades without saving the cluster's data first.
	NoSnapshot bool
	// SkipCMD does not start again what the image starts.
	SkipCMD bool
	// Back goes back to an older image instead, within a minor version of Kubernetes.
	Back bool
	// Confirm is asked with the plan, before anything is touched; nil: nobody is. Its error is Upgrade's.
	Confirm func(plan string) error
}

// SnapshotDir is where the cluster's data is saved on a control plane.
const SnapshotDir = "/var/lib/sealer/snapshots"

// Upgrade takes a cluster to what another image holds, node by node. Where it was cut, the same call goes on: what
// is done on a node is seen on the node.
func Upgrade(ctx context.Context, o UpgradeOptions) (err error) {
	o.RunOptions = o.withDefaults()
	if err := o.validate(); err != nil {
		return fmt.Errorf("upgrading a cluster: %w", err)
	}
	if o.Clusterfile, err = OverDefaults(o.Clusterfile, o.Image, o.ImageName); err != nil {
		return err
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	return o.carryOut(ctx, kept)
}

// carryOut is Upgrade of a cluster whose folder is open.
func (o UpgradeOptions) carryOut(ctx context.Context, kept *folder) (err error) {
	distribution, err := choose(o.RunOptions)
	if err != nil {
		return err
	}
	file, err := o.withoutSkipped()
	if err != nil {
		return err
	}
	c, closeHosts, err := connect(ctx, file, o.Dial, o.Distributions.Marks(), o.Display, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	r := &run{RunOptions: o.RunOptions, cluster: c, distribution: distribution}
	u := &upgrade{how: o, run: r}
	if o.Recall {
		if err := u.patiently(ctx, r.recallFile); err != nil {
			return err
		}
		if len(o.Clusterfile.Env) > 0 {
			r.Clusterfile.Env = maps.Clone(r.Clusterfile.Env)
			if r.Clusterfile.Env == nil {
				r.Clusterfile.Env = map[string]string{}
			}
			maps.Copy(r.Clusterfile.Env, o.Clusterfile.Env)
		}
		o.RunOptions = r.RunOptions
	}
	describe(c, o.RunOptions)
	if err := describeOlder(ctx, c, o.RunOptions); err != nil {
		return err
	}
	if err := r.keepEndpoint(ctx); err != nil {
		return err
	}
	id, err := kept.clusterID(o.Clusterfile.Name, c.Hosts)
	if err != nil {
		return err
	}
	if err := r.readOriginals(ctx); err != nil {
		return err
	}
	look := func(ctx context.Context) error { return u.look(ctx, id) }
	if err := u.patiently(ctx, look); err != nil {
		return err
	}
	if u.nothing() {
		_, err := fmt.Fprintf(o.Out, "cluster %q is at %s on %s: nothing to do\n", c.File.Name, u.target, hosts(len(c.Hosts)))
		return err
	}
	if err := u.checkExternal(ctx); err != nil {
		return err
	}
	p, err := u.plan()
	if err != nil {
		return err
	}
	if o.DryRun {
		_, err := io.WriteString(o.Out, p.String())
		return err
	}
	if o.Confirm != nil {
		if err := o.Confirm(p.String()); err != nil {
			return err
		}
	}
	held, release, err := kept.hold(ctx, c, o.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	ctx = held
	if err := u.patiently(ctx, look); err != nil { // another operator may have been there
		return err
	}
	if p, err = u.plan(); err != nil {
		return err
	}
	if err := kept.save(o.Clusterfile, id); err != nil {
		return err
	}
	u.executor = newExecutor(c, kept.journal, o.Display, o.LogFile)
	u.executor.begin(func(h *runtime.Host) runtime.HostState { return u.newState(h, id) })
	if err := u.execute(ctx, p); err != nil {
		return u.cut(err)
	}
	return u.report()
}

// upgrade is an Upgrade under way.
type upgrade struct {
	*run
	how      UpgradeOptions
	target   string                      // version of the kubelets
	nodes    map[*runtime.Host]kube.Node // as found
	missing  map[*runtime.Host]int64     // bytes to be sent
	todo     []*runtime.Host             // nodes to be upgraded, control planes first
	contact  *runtime.Host               // as found
	snapshot struct{ host, file string } // where the data is from before; empty: nowhere
	executor *executor                   // once it is carried out
}

// withoutSkipped is the Clusterfile without the workers that are left as they are.
func (o UpgradeOptions) withoutSkipped() (*clusterfile.File, error) {
	f := *o.Clusterfile
	f.Hosts = nil
	for _, h := range o.Clusterfile.Hosts {
		if !slices.Contains(o.Skip, h.Address) {
			f.Hosts = append(f.Hosts, h)
			continue
		}
		if h.Role == clusterfile.ControlPlane {
			return nil, &SkipError{Host: h.Address}
		}
	}
	return &f, nil
}

// SkipError is a control plane that is to be left out of an upgrade.
type SkipError struct{ Host string }

func (e *SkipError) Error() string {
	return e.Host + ": a control plane cannot be left out of an upgrade"
}

// Hint says what can be done without it.
func (e *SkipError) Hint() string {
	return "take it out of the cluster first, with sealer delete --masters " + e.Host
}

// begun tells whether an earlier run has begun to upgrade this host to the image.
func (u *upgrade) begun(h *runtime.Host) bool {
	s := h.Facts.State
	return s != nil && s.ImageDigest == u.cluster.Digest && s.PreviousDigest != ""
}

// newState is that of a host that becomes one of the new image.
func (u *upgrade) newState(h *runtime.Host, id string) runtime.HostState {
	s := u.run.newState(h, id)
	if old := h.Facts.State; old != nil && old.ImageDigest != u.cluster.Digest {
		s.PreviousImage, s.PreviousDigest = old.Image, old.ImageDigest
		s.Complete = false
	}
	return s
}

// nothing: all hosts have gone through all of it, and their nodes run it.
func (u *upgrade) nothing() bool {
	for _, h := range u.cluster.Hosts {
		if s := h.Facts.State; s.ImageDigest != u.cluster.Digest || !s.Complete || s.PreviousDigest != "" {
			return false
		}
	}
	return len(u.todo) == 0
}

// execute goes phase by phase: through which control plane the cluster is asked is decided before each.
func (u *upgrade) execute(ctx context.Context, p plan) error {
	for _, ph := range p.phases {
		if err := u.choose(ctx, ph); err != nil {
			return err
		}
		if err := u.executor.execute(ctx, plan{phases: []phase{ph}}); err != nil {
			return err
		}
	}
	return nil
}

// choose takes a control plane that is not being upgraded in this phase, where there is another one that answers.
func (u *upgrade) choose(ctx context.Context, ph phase) error {
	var busy []*runtime.Host
	for _, w := range ph.work {
		if ph.name == phaseControlPlane {
			busy = append(busy, w.host)
		}
	}
	// An API server may just have been started anew.
	return u.poll(ctx, io.Discard, 1, func(ctx context.Context) error {
		h, err := findContact(ctx, u.cluster, u.distribution, busy...)
		if err != nil {
			return err
		}
		if h == nil && len(busy) > 0 {
			h = busy[0] // the only one
		}
		if h == nil {
			return noContact(u.cluster, u.distribution)
		}
		u.cluster.Contact = h
		return nil
	})
}

// report is what is printed at the end.
func (u *upgrade) report() error {
	name, done := u.cluster.File.Name, len(u.batch())
	var b strings.Builder
	if left := len(u.todo) - done; left > 0 {
		fmt.Fprintf(&b, "cluster %q: %s upgraded to %s, %d to go: the same command goes on\n", name, nodes(done), u.target, left)
	} else {
		fmt.Fprintf(&b, "cluster %q runs %s on %s\n", name, u.target, hosts(len(u.cluster.Hosts)))
	}
	if u.snapshot.file != "" {
		fmt.Fprintf(&b, "its data from before the upgrade is in %s\n", fileOn(u.snapshot.host, u.snapshot.file))
	}
	_, err := io.WriteString(u.Out, b.String())
	return err
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// CutError is an upgrade that was cut in the middle.
type CutError struct {
	Snapshot string // "host:file" of the data from before; empty: none was saved
	Err      error
}

func (e *CutError) Error() string {
	if e.Snapshot == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "\nthe cluster's data from before the upgrade is in " + e.Snapshot
}

func (e *CutError) Unwrap() error { return e.Err }

// Hint is that of the error.
func (e *CutError) Hint() string {
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) {
		return h.Hint()
	}
	return "run the same command again when the cause is mended: it continues"
}

func (u *upgrade) cut(err error) error {
	e := &CutError{Err: err}
	if u.snapshot.file != "" {
		e.Snapshot = fileOn(u.snapshot.host, u.snapshot.file)
	}
	return e
}

// batch are the nodes of this run.
func (u *upgrade) batch() []*runtime.Host {
	if u.how.PauseAfter > 0 && u.how.PauseAfter < len(u.todo) {
		return u.todo[:u.how.PauseAfter]
	}
	return u.todo
}

// batchSize reads "3" or "10%" of so many workers.
func batchSize(s string, workers int) (int, error) {
	if s == "" {
		s = "10%"
	}
	number, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return 0, &BatchError{Batch: s}
	}
	if percent {
		n = workers * n / 100
	}
	return max(n, 1), nil
}

// CheckBatch finds out whether a text can be UpgradeOptions' Batch. The error is a *BatchError.
func CheckBatch(s string) error {
	_, err := batchSize(s, 1)
	return err
}

// BatchError is a number of workers that is none.
type BatchError struct{ Batch string }

func (e *BatchError) Error() string {
	return fmt.Sprintf("the batch %q is no number of workers", e.Batch)
}

// Hint shows two.
func (e *BatchError) Hint() string { return "give a number such as 3, or a share such as 10%" }

// snapshotFile is a new file for the cluster's data.
func (u *upgrade) snapshotFile() string {
	return path.Join(SnapshotDir, "before-"+u.target+"-"+time.Now().UTC().Format("20060102T150405Z")+".db")
}

// say writes a line of progress.
func say(log io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }
