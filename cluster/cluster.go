// SPDX-License-Identifier: Apache-2.0

// Package cluster makes a cluster of a ClusterImage, and takes one away:
// facts of all hosts, checks, a plan of named steps, and its execution with a
// journal. A run that was cut is continued by the same call. It knows no
// distribution by name.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// DialFunc connects to a host, or to this machine where the host is Local. A
// runner that is an io.Closer is closed at the end.
type DialFunc func(ctx context.Context, h clusterfile.Host) (host.Runner, error)

// RunOptions say what Run makes, of what, and where.
type RunOptions struct {
	Image       *clusterimage.Image
	ImageName   string
	Content     content.Provider // has every blob of Image that the hosts' platforms need
	Clusterfile *clusterfile.File
	Dial        DialFunc
	// NodeBinary is the path of a sealer-node for an architecture (Go's name).
	NodeBinary    func(arch string) (string, error)
	Distributions runtime.Distributions
	Display       *progress.Display // nil: silent
	StateDir      string            // what is kept of clusters, one folder each
	LogFile       string            // named in errors; may be empty
	DryRun        bool              // stop after the plan
	Out           io.Writer         // gets the plan of a dry run, and one line at the end; nil: nothing
	// ReadyTimeout is how long nodes may take to become Ready after the image's CMD. Default 5 minutes.
	ReadyTimeout time.Duration
	// PollInterval is how often they are asked. Default 2 seconds.
	PollInterval time.Duration
}

func (o RunOptions) withDefaults() RunOptions {
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = 5 * time.Minute
	}
	if o.PollInterval == 0 {
		o.PollInterval = 2 * time.Second
	}
	return o
}

func (o RunOptions) validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"image": o.Image == nil, "content": o.Content == nil, "Clusterfile": o.Clusterfile == nil, "dial": o.Dial == nil,
		"node binary": o.NodeBinary == nil, "state folder": o.StateDir == "",
	} {
		if missing {
			errs = append(errs, errors.New(name+": it is missing"))
		}
	}
	if o.Clusterfile != nil {
		errs = append(errs, o.Clusterfile.Validate())
	}
	return errors.Join(errs...)
}

// Run makes the cluster that the Clusterfile describes. Where it is there
// already, in part or whole, only what is missing is done.
func Run(ctx context.Context, o RunOptions) (err error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return fmt.Errorf("running a ClusterImage: %w", err)
	}
	if o.Clusterfile, err = OverDefaults(o.Clusterfile, o.Image, o.ImageName); err != nil {
		return err
	}
	distribution, err := choose(o)
	if err != nil {
		return err
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()

	c, closeHosts, err := connect(ctx, o.Clusterfile, o.Dial, o.Distributions.Marks(), o.Display, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	describe(c, o)
	if err := describeOlder(ctx, c, o); err != nil {
		return err
	}
	id, err := kept.clusterID(o.Clusterfile.Name, c.Hosts)
	if err != nil {
		return err
	}
	if err := runtime.Preflight(c, distribution, o.Distributions, id); err != nil {
		return err
	}
	r := &run{RunOptions: o, cluster: c, distribution: distribution}
	if err := r.checkImage(); err != nil {
		return err
	}
	if err := r.readOriginals(ctx); err != nil {
		return err
	}
	p, err := r.plan()
	if err != nil {
		return err
	}
	if o.DryRun {
		_, err := io.WriteString(o.Out, p.String())
		return err
	}
	held, release, err := kept.hold(ctx, c, o.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	ctx = held
	if err := runtime.Preflight(c, distribution, o.Distributions, id); err != nil {
		return err
	}
	if err := kept.save(o.Clusterfile, id); err != nil {
		return err
	}
	e := newExecutor(c, kept.journal, o.Display, o.LogFile)
	e.begin(func(h *runtime.Host) runtime.HostState { return r.newState(h, id) })
	if err := e.execute(ctx, p); err != nil {
		return err
	}
	return r.report(e.changed() > 0)
}

// OverDefaults is the Clusterfile with what it leaves open filled from the image's default ones. name is the image's, for messages.
func OverDefaults(f *clusterfile.File, image *clusterimage.Image, name string) (*clusterfile.File, error) {
	for _, r := range image.Rootfs {
		if r.Absent {
			continue
		}
		base := &clusterfile.File{Registry: clusterfile.Registry{Domain: clusterfile.DefaultRegistryDomain, Port: clusterfile.DefaultRegistryPort}}
		for _, text := range r.Extension.Clusterfiles {
			next, err := clusterfile.ParseBase(clusterfile.BasePath+" of "+name, []byte(text))
			if err != nil {
				return nil, err
			}
			base = next.Over(base)
		}
		file := f.Over(base)
		return file, file.Validate()
	}
	return f, nil
}

// choose finds the distribution that the image's rootfs asks for.
func choose(o RunOptions) (runtime.Distribution, error) {
	var m clusterimage.Metadata
	for _, r := range o.Image.Rootfs {
		if name := r.Config.Config.Labels[clusterimage.LabelClusterRuntime]; !r.Absent && name != "" {
			m.ClusterRuntime = name
			break
		}
	}
	d, err := o.Distributions.ChooseClusterRuntime(m)
	if err != nil {
		return nil, fmt.Errorf("the image %q: %w", o.ImageName, err)
	}
	return d, nil
}

// report is the last line of a run.
func (r *run) report(changed bool) error {
	name, n := r.cluster.File.Name, len(r.cluster.Hosts)
	if !changed {
		_, err := fmt.Fprintf(r.Out, "cluster %q is complete on %s: nothing to change\n", name, hosts(n))
		return err
	}
	_, err := fmt.Fprintf(r.Out, "cluster %q runs on %s\n", name, hosts(n))
	return err
}

func hosts(n int) string {
	if n == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", n)
}

func (r *run) newState(h *runtime.Host, id string) runtime.HostState {
	s := runtime.HostState{}
	if h.Facts.State != nil {
		s = *h.Facts.State
	}
	s.SchemaVersion = runtime.StateVersion
	s.Cluster, s.ClusterID, s.Role = r.cluster.File.Name, id, string(h.Spec.Role)
	s.Address = h.IP()
	s.Image, s.ImageDigest = r.ImageName, r.cluster.Digest
	s.Runtime, s.KubeVersion = r.distribution.Name(), r.cluster.KubeVersion()
	return s
}
