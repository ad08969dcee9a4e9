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
	"slices"
	"strings"
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

// Operator is the machine that works on a cluster: what it brings along for every kind of work.
type Operator struct {
	Dial DialFunc
	// NodeBinary is the path of a sealer-node for an architecture (Go's name).
	NodeBinary    func(arch string) (string, error)
	Distributions runtime.Distributions
	Display       *progress.Display // nil: silent
	StateDir      string            // what is kept of clusters, one folder each
	LogFile       string            // named in errors; may be empty
	Out           io.Writer         // gets the plan of a dry run, and one line at the end; nil: nothing
}

// RunOptions say what Run makes, of what, and where.
type RunOptions struct {
	Operator
	Image       *clusterimage.Image
	ImageName   string
	Content     content.Provider // has every blob of Image that the hosts' platforms need
	Clusterfile *clusterfile.File
	Pusher      ImagePusher // nil: clusters with an external registry are refused
	DryRun      bool        // stop after the plan
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

	named := o.Clusterfile
	if o.Clusterfile, err = kept.grown(named); err != nil {
		return err
	}
	r := &run{RunOptions: o, distribution: distribution}
	return r.reach(ctx, kept, named)
}

// reach connects to the hosts, carries the run out, and leaves them.
func (r *run) reach(ctx context.Context, kept *folder, named *clusterfile.File) (err error) {
	closeHosts, err := r.connect(ctx, named)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	return r.carryOut(ctx, kept)
}

// connect reaches all hosts of the Clusterfile. Those that are not named as well, since they are known from
// before, may be lost.
func (r *run) connect(ctx context.Context, named *clusterfile.File) (func() error, error) {
	var missing []error
	var addresses []string
	c, closeHosts, err := connect(ctx, r.Clusterfile, r.Dial, r.Distributions.Marks(), r.Display, func(m clusterfile.Host, err error) {
		if slices.ContainsFunc(named.Machines(), func(n clusterfile.Host) bool { return n.Address == m.Address }) {
			missing, addresses = append(missing, err), append(addresses, m.Address)
			return
		}
		r.lost = append(r.lost, &runtime.Host{Spec: m, Lost: err})
	})
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, errors.Join(&ConnectError{Errs: missing, Hosts: addresses}, closeHosts())
	}
	if len(c.ControlPlanes()) == 0 {
		return nil, errors.Join(noContact(c, nil), closeHosts())
	}
	r.cluster = c
	if r.applied != nil {
		c.Hosts = slices.DeleteFunc(c.Hosts, func(h *runtime.Host) bool { return slices.Contains(r.applied.leaving, h.Spec.Address) })
	}
	return closeHosts, nil
}

// carryOut makes of the hosts that were reached what the Clusterfile says.
func (r *run) carryOut(ctx context.Context, kept *folder) error {
	c := r.cluster
	describe(c, r.RunOptions)
	if err := describeOlder(ctx, c, r.RunOptions); err != nil {
		return err
	}
	if r.applied == nil {
		if err := upgrading(c); err != nil {
			return err
		}
	}
	id, err := kept.clusterID(r.Clusterfile.Name, c.Hosts)
	if err != nil {
		return err
	}
	if err := r.keepEndpoint(ctx); err != nil {
		return err
	}
	if err := runtime.Preflight(c, r.distribution, r.Distributions, id); err != nil {
		return err
	}
	if err := r.checkEndpoint(ctx); err != nil {
		return err
	}
	if err := r.checkImage(); err != nil {
		return err
	}
	if err := r.checkExternal(ctx); err != nil {
		return err
	}
	if err := r.readOriginals(ctx); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.checkSwitch(ctx); err != nil {
		return err
	}
	if r.shared().rotating, err = r.rotates(ctx); err != nil {
		return err
	}
	p, err := r.plan()
	if err != nil {
		return err
	}
	if r.DryRun {
		_, err := io.WriteString(r.Out, p.String())
		return err
	}
	held, release, err := kept.hold(ctx, c, r.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	ctx = held
	// Another operator may have been there meanwhile.
	if err := runtime.Preflight(c, r.distribution, r.Distributions, id); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if p, err = r.plan(); err != nil {
		return err
	}
	if err := kept.save(r.Clusterfile, id); err != nil {
		return err
	}
	e := newExecutor(c, kept.journal, r.Display, r.LogFile)
	r.executor = e
	e.begin(func(h *runtime.Host) runtime.HostState { return r.newState(h, id) })
	if err := e.execute(ctx, p); err != nil {
		return err
	}
	changed := e.changed()
	if r.noNetwork {
		changed-- // it was waited for, and nothing came of it
	}
	return r.report(changed > 0)
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
	var b strings.Builder
	name, n := r.cluster.File.Name, len(r.cluster.Hosts)
	if changed {
		fmt.Fprintf(&b, "cluster %q runs on %s\n", name, hosts(n))
		var lost []string
		for _, h := range r.lost {
			lost = append(lost, h.String())
		}
		if len(lost) > 0 {
			fmt.Fprintf(&b, "could not be reached, and are as they were: %s\n", strings.Join(lost, ", "))
		}
	} else {
		fmt.Fprintf(&b, "cluster %q is complete on %s: nothing to change\n", name, hosts(n))
	}
	if r.noNetwork {
		b.WriteString(noNetworkNotice)
	}
	_, err := io.WriteString(r.Out, b.String())
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
	s.Address, s.SecondAddress = h.IP(), r.cluster.SecondIP(h)
	s.Image, s.ImageDigest = r.ImageName, r.cluster.Digest
	s.Runtime, s.KubeVersion = r.distribution.Name(), r.cluster.KubeVersion()
	return s
}
