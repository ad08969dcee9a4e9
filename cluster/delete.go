// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// DeleteOptions say which cluster Delete takes away.
type DeleteOptions struct {
	Operator
	Clusterfile *clusterfile.File // its name and hosts; ClusterfilePath has it after a run
	// Force goes on without hosts that cannot be reached, and deletes those that are named where the cluster has others, too. Hosts that
	// could not be reached are the error in the end.
	Force bool
	// DryRun prints the plan to Out, and changes nothing.
	DryRun bool
}

// PartError is a cluster that has more hosts than those that are to be deleted as all of it.
type PartError struct {
	Cluster string
	Others  []string
}

func (e *PartError) Error() string {
	return fmt.Sprintf("the cluster %q also has %s: they would stay as they are, with nothing that knows of them", e.Cluster, strings.Join(e.Others, ", "))
}

// Hint says how all are named, and how a part is.
func (e *PartError) Hint() string {
	return "name all hosts of the cluster; sealer delete without --all takes single hosts out of it; --force deletes from those that are named alone"
}

// UnreachableError is hosts that were left as they are, because they could not be reached.
type UnreachableError struct{ Errs []error }

func (e *UnreachableError) Error() string {
	lines := []string{"the cluster is deleted, but these hosts could not be reached and are as they were:"}
	for _, err := range e.Errs {
		lines = append(lines, "  "+err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives what happened to each host.
func (e *UnreachableError) Unwrap() []error { return e.Errs }

// Hint says how to do the rest.
func (e *UnreachableError) Hint() string {
	return "when they are back, the same command cleans them, and passes over the others"
}

// Delete puts all hosts of a cluster back as they were before: workers, then
// control planes, the first one last. Hosts that are installed in part, and hosts
// that are clean already, are fine.
func Delete(ctx context.Context, o DeleteOptions) (err error) {
	if o.Clusterfile == nil || o.Dial == nil || o.StateDir == "" {
		return errors.New("deleting a cluster: Clusterfile, dial and state folder are needed")
	}
	if err := o.Clusterfile.Validate(); err != nil {
		return fmt.Errorf("deleting a cluster: %w", err)
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()

	var mu sync.Mutex
	var unreachable []error
	var skip func(clusterfile.Host, error)
	if o.Force {
		skip = func(_ clusterfile.Host, err error) {
			mu.Lock()
			defer mu.Unlock()
			unreachable = append(unreachable, err)
		}
	}
	c, closeHosts, err := connect(ctx, o.Clusterfile, o.Dial, o.Distributions.Marks(), o.Display, skip)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	others, err := o.recall(ctx, kept, c)
	if err != nil {
		return err
	}
	if len(others) > 0 && !o.Force {
		return &PartError{o.Clusterfile.Name, others}
	}
	if o.DryRun {
		p, err := o.plan(c)
		if err == nil && o.Out != nil {
			_, err = io.WriteString(o.Out, p.String())
		}
		return err
	}
	if len(c.Hosts) > 0 {
		held, release, err := kept.hold(ctx, c, o.Distributions.Marks())
		if err != nil {
			return err
		}
		defer release()
		ctx = held
	}
	p, err := o.plan(c)
	if err != nil {
		return err
	}
	e := newExecutor(c, kept.journal, o.Display, o.LogFile)
	if err := e.execute(ctx, p); err != nil {
		return err
	}
	if len(unreachable) > 0 {
		return &UnreachableError{unreachable}
	}
	if len(others) > 0 {
		return nil // what is known of the cluster is still so for them
	}
	return kept.remove()
}

// recall reads what is known of the cluster, here and on its control planes: it gives back the hosts that were not named, and has the scripts
// for its deletion, where the Clusterfile has no plugins of its own.
func (o DeleteOptions) recall(ctx context.Context, kept *folder, c *runtime.Cluster) (others []string, err error) {
	if err := owned(o.StateDir, o.Clusterfile.Name, c.Hosts); err != nil {
		return nil, err
	}
	known, err := kept.known()
	if err != nil {
		return nil, err
	}
	var defined *clusterfile.File
	for _, h := range c.ControlPlanes() {
		if defined != nil || h.Facts.State == nil {
			continue
		}
		if defined, err = readDefinition(ctx, h); err != nil {
			return nil, err
		}
	}
	for _, f := range []*clusterfile.File{known, defined} {
		if f == nil {
			continue
		}
		for _, m := range f.Hosts {
			named := slices.ContainsFunc(o.Clusterfile.Machines(), func(n clusterfile.Host) bool { return n.Address == m.Address || n.Local() })
			if !named && !slices.Contains(others, m.String()) {
				others = append(others, m.String())
			}
		}
	}
	if defined != nil && len(o.Clusterfile.Plugins) == 0 {
		file := *c.File
		file.Plugins = defined.Plugins
		c.File = &file
	}
	return others, nil
}

// plan has steps for the hosts that are this cluster's, and none for those where nothing of sealer is.
func (o DeleteOptions) plan(c *runtime.Cluster) (plan, error) {
	var problems []error
	var before, workers, joined, first, after []work
	for i, h := range c.Hosts {
		s := h.Facts.State
		if s == nil {
			continue
		}
		d := o.Distributions[s.Runtime]
		if d == nil {
			problems = append(problems, fmt.Errorf("%s: it runs %q, which this sealer does not know", h, s.Runtime))
			continue
		}
		w := work{h, slices.Concat(o.hooks(c, h, d, clusterfile.PreCleanHost), surrender(d, h), d.Reset(c, h), o.hooks(c, h, d, clusterfile.PostCleanHost), cleanSteps(h))}
		switch {
		case h.Spec.Role == clusterfile.Worker:
			workers = append(workers, w)
		case i == 0:
			first = append(first, w)
		default:
			joined = append(joined, w)
		}
	}
	p := plan{title: fmt.Sprintf("deleting cluster %q", o.Clusterfile.Name)}
	for _, w := range first {
		d := o.Distributions[w.host.Facts.State.Runtime]
		before = append(before, work{w.host, o.hooks(c, w.host, d, clusterfile.PreUninstall)})
		after = append(after, work{w.host, o.hooks(c, w.host, d, clusterfile.PostUninstall)})
	}
	for _, ph := range []phase{
		{name: "plugins before the deletion", work: before},
		{name: "deleting workers", work: workers},
		{name: "deleting control planes", serial: true, work: joined},
		{name: "deleting the first control plane", work: first},
		{name: "plugins after the deletion", work: after},
	} {
		ph.work = slices.DeleteFunc(ph.work, func(w work) bool { return len(w.steps) == 0 })
		if len(ph.work) > 0 {
			p.phases = append(p.phases, ph)
		}
	}
	return p, errors.Join(problems...)
}

// hooks are the Clusterfile's scripts for a phase of a deletion.
func (o DeleteOptions) hooks(c *runtime.Cluster, h *runtime.Host, d runtime.Distribution, phase clusterfile.Phase) []runtime.Step {
	env := c.HostEnv(h)
	maps.Copy(env, map[string]string{
		"ClusterName": c.File.Name, "HostIP": h.IP(), "HostName": h.Facts.NodeName(), "HostRole": string(h.Spec.Role),
	})
	steps := plugins(c.File, phase, h, append(list(env), "KUBECONFIG="+d.Kubectl().Kubeconfig), nil)
	for i := range steps {
		steps[i].Key = "" // nothing is kept of a host that goes
	}
	return steps
}

// cleanSteps remove what sealer itself has put on the host; the marker goes last, so that a Delete that
// was cut is taken up again.
func cleanSteps(h *runtime.Host) []runtime.Step {
	return append(surrendered(h), []runtime.Step{
		{
			Name: "removing the registry and the image",
			Do: func(ctx context.Context, log io.Writer) error {
				there, err := asks(ctx, h, "test", "-x", runtime.NodeBinary)
				if err != nil || !there {
					return err
				}
				return program.Call{Log: log}.Run(ctx, h, "clean")
			},
		},
		{
			Name: "removing our lines from /etc/hosts",
			Do: func(ctx context.Context, _ io.Writer) error {
				now, err := readHosts(ctx, h)
				if err != nil {
					return err
				}
				clean := runtime.CleanHostsFile(now)
				if slices.Equal(clean, now) {
					return nil
				}
				return replaceHosts(ctx, h, clean)
			},
		},
		{
			Name: "giving the host its name back",
			Done: func(ctx context.Context) (bool, error) {
				kept, err := asks(ctx, h, "test", "-s", nameBefore())
				return !kept, err
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", renameBack, "sh", nameBefore()}, Stdout: log, Stderr: log, Mutates: true})
			},
		},
		{
			Name: "removing sealer-node",
			Do: func(ctx context.Context, log io.Writer) error {
				return h.Runner.Run(ctx, host.Command{
					Argv:   []string{"sh", "-c", removeRest, "sh", runtime.NodeBinary, runtime.StateFile, definitionFile},
					Stdout: log, Stderr: log, Mutates: true,
				})
			},
		},
	}...)
}

const removeRest = `set -eu
rm -f -- "$1"
rmdir /var/lib/sealer/snapshots 2>/dev/null || :
rmdir /var/lib/sealer 2>/dev/null || :
rm -f -- "$3"
rm -f -- "$2"
rmdir "$(dirname -- "$2")" 2>/dev/null || :
`
