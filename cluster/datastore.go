// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// DatastoreOptions say of which cluster the data is saved or restored.
type DatastoreOptions struct {
	Operator
	Clusterfile *clusterfile.File
	// File is of a snapshot: on this machine, or as HOST:PATH on a control plane. Snapshot writes it, mode 0600; empty: it stays on
	// the control plane. Restore reads it.
	File string
	// Force has Restore go on without control planes that cannot be reached: they are none of the cluster any more.
	Force bool
	// Confirm is asked before Restore touches anything, with what it will do; nil: nobody is.
	Confirm func(plan string) error
}

// NoSnapshotError is a cluster whose data is none of its distribution's.
type NoSnapshotError struct{ Cluster string }

func (e *NoSnapshotError) Error() string {
	return fmt.Sprintf("the cluster %q keeps its data in a datastore of its own: there is nothing on its hosts to save or restore", e.Cluster)
}

// Hint says who can.
func (e *NoSnapshotError) Hint() string {
	return "save and restore the external datastore with its own tools"
}

// datastore is a Snapshot or Restore under way.
type datastore struct {
	DatastoreOptions
	kept         *folder
	cluster      *runtime.Cluster
	distribution runtime.Distribution
	lost         []string // control planes that cannot be reached
	close        func() error
}

// open connects to the control planes; without says that some may be lost.
func (o DatastoreOptions) open(ctx context.Context, without bool) (_ *datastore, err error) {
	if o.Clusterfile == nil || o.Dial == nil || o.StateDir == "" {
		return nil, errors.New("saving a cluster's data: Clusterfile, dial and state folder are needed")
	}
	if err := o.Clusterfile.Validate(); err != nil {
		return nil, fmt.Errorf("saving a cluster's data: %w", err)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	file := *o.Clusterfile
	file.Hosts = nil
	for _, h := range o.Clusterfile.Hosts {
		if h.Role == clusterfile.ControlPlane {
			file.Hosts = append(file.Hosts, h)
		}
	}
	d := &datastore{DatastoreOptions: o}
	if d.kept, err = openFolder(o.StateDir, o.Clusterfile.Name); err != nil {
		return nil, err
	}
	d.close = d.kept.close
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	var unreachable []error
	c, closeHosts, err := connect(ctx, &file, o.Dial, o.Distributions.Marks(), o.Display, func(h clusterfile.Host, err error) {
		unreachable = append(unreachable, err)
		d.lost = append(d.lost, h.String())
	})
	if err != nil {
		return nil, err
	}
	d.cluster = c
	d.close = func() error { return errors.Join(closeHosts(), d.kept.close()) }
	if len(unreachable) > 0 && (!without || len(c.Hosts) == 0) {
		return nil, &ConnectError{Errs: unreachable}
	}
	if err := owned(o.StateDir, o.Clusterfile.Name, c.Hosts); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		s := h.Facts.State
		if s == nil {
			return nil, &NotOursError{Host: h.String(), Cluster: o.Clusterfile.Name}
		}
		d.distribution = o.Distributions[s.Runtime]
		if d.distribution == nil {
			return nil, fmt.Errorf("%s: it runs %q, which this sealer does not know", h, s.Runtime)
		}
		c.Digest, c.Metadata.KubeVersion = s.ImageDigest, s.KubeVersion
	}
	return d, nil
}

// unnamed are control planes that the cluster has, as those that were reached know it, and that were not named: they would go on with the
// data that they have.
func (d *datastore) unnamed(ctx context.Context) ([]string, error) {
	var list []string
	for _, h := range d.cluster.Hosts {
		defined, err := readDefinition(ctx, h)
		if err != nil {
			return nil, err
		}
		if defined == nil {
			continue
		}
		for _, m := range defined.ControlPlanes() {
			named := slices.ContainsFunc(d.Clusterfile.Machines(), func(n clusterfile.Host) bool { return n.Address == m.Address || n.Local() })
			if !named && !slices.Contains(list, m.String()) {
				list = append(list, m.String())
			}
		}
	}
	return list, nil
}

// UnnamedError is a restoration that would leave control planes with the data from before.
type UnnamedError struct {
	Cluster string
	Hosts   []string
}

func (e *UnnamedError) Error() string {
	return fmt.Sprintf("the cluster %q also has the control planes %s: they would go on with the data that they have, as another cluster", e.Cluster, strings.Join(e.Hosts, ", "))
}

// Hint says what to do with them.
func (e *UnnamedError) Hint() string {
	return "name all control planes; with --force those that cannot be reached are left out"
}

// NotOursError is a host that is not one of the cluster.
type NotOursError struct{ Host, Cluster string }

func (e *NotOursError) Error() string {
	return fmt.Sprintf("%s: it is no control plane of the cluster %q", e.Host, e.Cluster)
}

// Hint says which hosts to name.
func (e *NotOursError) Hint() string {
	return "name the hosts of the cluster as sealer run was given them"
}

// Snapshot saves the cluster's data, while the cluster runs, and prints where.
func Snapshot(ctx context.Context, o DatastoreOptions) (err error) {
	d, err := o.open(ctx, true) // one that answers is enough
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if d.cluster.Contact, err = findContact(ctx, d.cluster, d.distribution); err != nil {
		return err
	}
	if d.cluster.Contact == nil { // a member that has lost the others still has what it had, which may be all that is left
		failed := []error{noContact(d.cluster, d.distribution)}
		for _, h := range d.cluster.Hosts {
			err := d.save(ctx, h)
			if err == nil || ctx.Err() != nil {
				return err
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	}
	return d.save(ctx, d.cluster.Contact)
}

// save has the host save what its member of the datastore has, and prints where.
func (d *datastore) save(ctx context.Context, h *runtime.Host) error {
	file := path.Join(SnapshotDir, d.cluster.File.Name+"-"+time.Now().UTC().Format("20060102T150405Z")+".db")
	steps := d.distribution.Snapshot(d.cluster, h, file)
	if len(steps) == 0 {
		return &NoSnapshotError{Cluster: d.cluster.File.Name}
	}
	where := fileOn(h.String(), file)
	if d.File != "" {
		where = d.File
		steps = append(steps, runtime.Step{
			Name: "bringing the snapshot here",
			Do:   func(ctx context.Context, log io.Writer) error { return fetch(ctx, h, file, d.File, log) },
		})
	}
	if err := d.do(ctx, "saving the cluster's data", h, steps); err != nil {
		return err
	}
	_, err := fmt.Fprintln(d.Out, where)
	return err
}

// Restore puts what a snapshot holds in the place of the cluster's data. All control planes must be named, and be reached unless o.Force.
func Restore(ctx context.Context, o DatastoreOptions) (err error) {
	d, err := o.open(ctx, o.Force)
	if connect, lost := errors.AsType[*ConnectError](err); lost && !o.Force {
		return &LostControlPlanesError{connect}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	unnamed, err := d.unnamed(ctx)
	if err != nil {
		return err
	}
	if len(unnamed) > 0 {
		return &UnnamedError{d.cluster.File.Name, unnamed}
	}
	h, file, steps, err := d.source()
	if err != nil {
		return err
	}
	d.cluster.Contact = h
	restore := d.distribution.Restore(d.cluster, h, file)
	if len(restore) == 0 {
		return &NoSnapshotError{Cluster: d.cluster.File.Name}
	}
	steps = append(steps, restore...)
	if d.Confirm != nil {
		title := fmt.Sprintf("restoring cluster %q from %s: what was changed in it since is lost", d.cluster.File.Name, d.File)
		if len(d.lost) > 0 {
			title += fmt.Sprintf("; without %s, which must not come back as they are", strings.Join(d.lost, ", "))
		}
		p := plan{title: title, phases: []phase{{name: "restoring the data", work: []work{{h, steps}}}}}
		if err := d.Confirm(p.String()); err != nil {
			return err
		}
	}
	held, release, err := d.kept.hold(ctx, d.cluster, d.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	if len(steps) > len(restore) { // it was sent: its copy holds all of the cluster's secrets
		defer func() { err = errors.Join(err, removeCopy(ctx, h, file)) }()
	}
	if err := d.do(held, "restoring the cluster's data", h, steps); err != nil {
		return err
	}
	if _, err = fmt.Fprintf(d.Out, "cluster %q has the data of %s\n", d.cluster.File.Name, d.File); err != nil || len(d.lost) == 0 {
		return err
	}
	_, err = fmt.Fprintf(d.Out, "%s are no part of it any more: take them out of it, sealer delete --force --masters %s --name %s\n",
		strings.Join(d.lost, ", "), strings.Join(d.lost, ","), d.cluster.File.Name)
	return err
}

// LostControlPlanesError is a restoration of a cluster of which some control planes cannot be reached.
type LostControlPlanesError struct{ Err *ConnectError }

func (e *LostControlPlanesError) Error() string { return e.Err.Error() }
func (e *LostControlPlanesError) Unwrap() error { return e.Err }

// Hint is --force.
func (e *LostControlPlanesError) Hint() string {
	return "where they are gone for good, --force restores without them; see that none of them comes back as it is"
}

// removeCopy also works when ctx has ended.
func removeCopy(ctx context.Context, h *runtime.Host, file string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return h.Runner.Run(ctx, host.Command{Argv: []string{"rm", "-f", "--", file}, Mutates: true})
}

func (d *datastore) do(ctx context.Context, name string, h *runtime.Host, steps []runtime.Step) error {
	e := newExecutor(d.cluster, d.kept.journal, d.Display, d.LogFile)
	return e.execute(ctx, plan{phases: []phase{{name: name, work: []work{{h, steps}}}}})
}

// source is the control plane that restores, and the file there; a file of this machine is sent first.
func (d *datastore) source() (*runtime.Host, string, []runtime.Step, error) {
	if i := strings.Index(d.File, ":/"); i > 0 {
		// A folder of this machine may be called so, too: then it is none of the hosts.
		list, err := clusterfile.ParseAddresses(d.File[:i])
		if err != nil || len(list) != 1 {
			list = []string{d.File[:i]}
		}
		for _, h := range d.cluster.Hosts {
			if name := list[0]; name == h.String() || name == h.Facts.NodeName() {
				return h, d.File[i+1:], nil, nil
			}
		}
		if _, err := os.Stat(d.File); err != nil && slices.Contains(d.lost, list[0]) {
			return nil, "", nil, fmt.Errorf("reading the snapshot %q: %s cannot be reached; name a snapshot of this machine or of another control plane", d.File, list[0])
		}
	}
	b, err := program.Hash(d.File)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(d.File, ":") {
		return nil, "", nil, fmt.Errorf("reading the snapshot %q: it is no file here, and names no control plane of the cluster", d.File)
	}
	if err != nil {
		return nil, "", nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	h := d.cluster.First()
	file := path.Join(SnapshotDir, "restore-"+strings.TrimPrefix(b.Digest, "sha256:")[:16]+".db")
	return h, file, []runtime.Step{{
		Name: "sending the snapshot",
		Do: func(ctx context.Context, _ io.Writer) (err error) {
			f, err := os.Open(b.Path)
			if err != nil {
				return fmt.Errorf("reading the snapshot: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			return host.Upload(ctx, h.Runner, f, b.Size, b.Digest, file, 0o600)
		},
	}}, nil
}

// fileOn is HOST:FILE, as the commands read it.
func fileOn(host, file string) string {
	if runtime.IsIPv6(host) {
		host = "[" + host + "]"
	}
	return host + ":" + file
}

// fetch copies a file of the host to this machine, whole or not at all: what has come is compared with what the host has.
func fetch(ctx context.Context, h *runtime.Host, from, to string, log io.Writer) error {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"sh", "-c", `sha256sum -- "$1" && stat -c %s -- "$1"`, "sh", from}})
	if err != nil {
		return err
	}
	words := strings.Fields(string(out)) // DIGEST FILE SIZE
	if len(words) < 3 {
		return fmt.Errorf("%s: reading the checksum of %s: %q", h, from, out)
	}
	size, err := strconv.ParseInt(words[len(words)-1], 10, 64)
	if err != nil {
		return fmt.Errorf("%s: reading the size of %s: %w", h, from, err)
	}
	f, err := atomicfile.Output(to, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	counter := progress.CounterOf(log, path.Base(from), size)
	err = h.Runner.Run(ctx, host.Command{Argv: []string{"cat", "--", from}, Stdout: io.MultiWriter(f, sum, countWriter{counter})})
	if got := hex.EncodeToString(sum.Sum(nil)); err == nil && got != strings.TrimPrefix(words[0], `\`) {
		err = fmt.Errorf("%s: copying %q: what has come is not what was there before: it changed meanwhile", h, from)
	}
	counter.Done(err)
	if err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// countWriter tells a counter what is written.
type countWriter struct{ c *progress.Counter }

func (w countWriter) Write(p []byte) (int, error) {
	w.c.Advance(int64(len(p)))
	return len(p), nil
}
