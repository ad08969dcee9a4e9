// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// DeleteApplicationOptions say which application is taken off which cluster.
type DeleteApplicationOptions struct {
	Operator
	Clusterfile *clusterfile.File // the cluster's name and hosts
	Name        string
	DryRun      bool
	// Timeout is how long objects may take to go. Default 5 minutes.
	Timeout time.Duration
	// Confirm is asked with the plan, before anything is touched; nil: nobody is. Its error is DeleteApplication's.
	Confirm func(plan string) error
}

// DeleteApplication takes away what an application has made, waits until it is gone, and drops its content from the
// control planes where nothing else needs it. What was in the cluster before it, or is of another application as well,
// stays. Where it was cut, the same call goes on.
func DeleteApplication(ctx context.Context, o DeleteApplicationOptions) (err error) {
	if o.Clusterfile == nil || o.Name == "" || o.Dial == nil || o.NodeBinary == nil || o.StateDir == "" {
		return errors.New("deleting an application: Clusterfile, name, dial, node binary and state folder are needed")
	}
	opts := RunOptions{
		Operator: o.Operator, Clusterfile: o.Clusterfile, ReadyTimeout: o.Timeout,
	}.withDefaults()
	if err := opts.Clusterfile.Validate(); err != nil {
		return fmt.Errorf("deleting an application: %w", err)
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	return o.carryOut(ctx, kept, opts)
}

// carryOut deletes the application in a folder that is open.
func (o DeleteApplicationOptions) carryOut(ctx context.Context, kept *folder, opts RunOptions) (err error) {
	a := &appRun{run: &run{RunOptions: opts}, name: o.Name, kept: kept}
	done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	_, text, err := a.removal(ctx)
	if err != nil {
		return err
	}
	if o.DryRun {
		_, err := io.WriteString(a.Out, text)
		return err
	}
	if o.Confirm != nil {
		if err := o.Confirm(text); err != nil {
			return err
		}
	}
	ctx, release, err := a.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, _, err := a.removal(ctx) // another operator may have been there
	if err != nil {
		return err
	}
	if err := a.executor.execute(ctx, p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "application %q is gone from cluster %q\n", a.name, a.cluster.File.Name)
	return errors.Join(err, a.reportLost("still have its images"))
}

// removal is what is to be done, and the text of it.
func (a *appRun) removal(ctx context.Context) (plan, string, error) {
	contact, err := a.recallContact(ctx)
	if err != nil {
		return plan{}, "", err
	}
	a.cluster.Contact = contact
	if a.records, err = a.inventory().Records(ctx); err != nil {
		return plan{}, "", err
	}
	if a.record = a.find(a.name); a.record == nil {
		return plan{}, "", a.unknown(a.name)
	}
	a.cluster.Digest = a.record.Digest
	for _, h := range a.cluster.Hosts {
		h.Platform = "linux/" + h.Facts.Arch
	}
	if err := a.findBinaries(); err != nil {
		return plan{}, "", err
	}
	own, kept, err := a.inventory().Own(ctx, a.record, a.records, a.record.Objects)
	if err != nil {
		return plan{}, "", err
	}
	p := plan{title: fmt.Sprintf("deleting application %q of %s from cluster %q", a.name, a.record.Image, a.cluster.File.Name)}
	planes := a.cluster.ControlPlanes()
	lead := []*runtime.Host{contact}
	p.add("deleting what it made", lead, func(h *runtime.Host) []runtime.Step { return a.takeAway(h, own) })
	p.add("dropping its content", planes, func(h *runtime.Host) []runtime.Step {
		return append(a.drop(h, a.record.Versions), runtime.Step{
			Name: a.stepName("forgetting what was done for it"),
			Do:   func(ctx context.Context, _ io.Writer) error { return a.executor.forget(ctx, h, a.stepName("")) },
		})
	})
	p.add("dropping its images from docker", a.cluster.Hosts, func(h *runtime.Host) []runtime.Step { return a.dropDocker(h, a.record.Versions) })
	p.add("forgetting it", lead, func(*runtime.Host) []runtime.Step {
		return []runtime.Step{{
			Name: a.stepName("deleting its record"),
			Do:   func(ctx context.Context, log io.Writer) error { return a.inventory().Forget(ctx, log, a.record) },
		}}
	})
	return p, p.String() + a.whatGoes(own, kept), nil
}

// maxNamed bounds how many objects a plan names.
const maxNamed = 40

func (a *appRun) whatGoes(own []application.Object, kept []string) string {
	var b strings.Builder
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for i, l := range lines {
			if i == maxNamed {
				fmt.Fprintf(&b, "    and %d more\n", len(lines)-i)
				break
			}
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	var gone []string
	for _, r := range a.record.Releases {
		gone = append(gone, "helm release "+r.Namespace+"/"+r.Name)
	}
	for _, o := range own {
		gone = append(gone, o.String())
	}
	list("what goes:", gone)
	list("what stays:", kept)
	return b.String()
}

// takeAway undoes what was launched.
func (a *appRun) takeAway(h *runtime.Host, own []application.Object) []runtime.Step {
	steps := []runtime.Step{a.transfer().Program(h), {
		Name: a.stepName("keeping that it is being deleted"),
		Done: func(context.Context) (bool, error) { return a.record.Deleting, nil },
		Do: func(ctx context.Context, _ io.Writer) error {
			a.record.Deleting = true
			return a.keep(ctx)
		},
	}}
	if releases := a.record.Releases; len(releases) > 0 {
		steps = append(steps, runtime.Step{
			Name: a.stepName("uninstalling its charts"),
			Do: func(ctx context.Context, log io.Writer) (err error) {
				if a.clusterRootfs, err = a.mountCluster(ctx, h, log); err != nil {
					return err
				}
				// Its own helm, where it brought one; this control plane may not have been there then.
				h.Rootfs = a.clusterRootfs
				var where struct{ Path string }
				if err := (program.Call{Log: log, Out: &where}).Run(ctx, h, a.mountArgs(h)...); err == nil && where.Path != "" {
					h.Rootfs = where.Path
				} else if _, exited := errors.AsType[*host.ExitError](err); err != nil && !exited {
					return err
				}
				return a.removeReleases(ctx, h, releases, log)
			},
		})
	}
	if len(own) > 0 {
		what := fmt.Sprintf("deleting %d objects", len(own))
		if len(own) == 1 {
			what = "deleting " + own[0].String()
		}
		steps = append(steps, runtime.Step{
			Name: a.stepName(what),
			Do: func(ctx context.Context, log io.Writer) error {
				return a.inventory().Remove(ctx, own, a.ReadyTimeout, log)
			},
		})
	}
	return steps
}

// forget takes the steps whose names begin so out of the host's state.
func (e *executor) forget(ctx context.Context, h *runtime.Host, prefix string) error {
	s := e.states[h]
	for name := range s.Steps {
		if strings.HasPrefix(name, prefix) {
			delete(s.Steps, name)
		}
	}
	return e.writeState(ctx, h, true)
}
