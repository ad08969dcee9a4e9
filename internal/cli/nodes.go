// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

type joinFlags struct {
	sshFlags
	name, image string
	dryRun      bool
}

func newJoin(a *app) *cobra.Command {
	var o joinFlags
	cmd := &cobra.Command{
		Use:     "join --masters HOSTS --nodes HOSTS",
		Aliases: []string{"scale-up"},
		Short:   "Add hosts to a cluster",
		Long: `join makes hosts part of a cluster that this machine has made: they get the image that the
cluster runs, and the settings that it was made with. Hosts that are part of it already stay as
they are. Those of them that cannot be reached do not stand in the way, as long as a control
plane answers. A join that was cut is continued by the same command.`,
		Example: `  sealer join --nodes 10.0.0.4-10.0.0.6
  sealer join --masters 10.0.0.2,10.0.0.3 --name shop
  sealer scale-up --nodes 10.0.0.9 --dry-run`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", clusterfile.DefaultName, "name of the cluster")
	f.StringVar(&o.image, "image", "", "name of the image that the cluster runs, where this machine has it under another")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.join(cmd, o) }
	return cmd
}

func (a *app) join(cmd *cobra.Command, o joinFlags) (err error) {
	machines, err := o.machines(a, cmd, o.name)
	if err != nil {
		return err
	}
	logFile, err := a.openRunLog("join")
	if err != nil {
		return err
	}
	defer a.close(&err)
	st, err := a.openWork(cmd)
	if err != nil {
		return err
	}
	return cluster.Join(cmd.Context(), cluster.JoinOptions{
		Name:  o.name,
		Hosts: machines,
		FindImage: func(ctx context.Context, id, name string) (*clusterimage.Image, string, error) {
			return a.imageOfCluster(ctx, cmd, st, o, id, name)
		},
		Content:  st.Content(),
		Operator: a.operator(o.asHostsSay(), logFile),
		Pusher:   &imagePusher{app: a, cmd: cmd, store: st},
		DryRun:   o.dryRun,
	})
}

// machines are the hosts of --masters and --nodes; they are or will be the named cluster's. What the flags do not say of their login is
// as for its first control plane.
func (o *sshFlags) machines(a *app, cmd *cobra.Command, name string) ([]clusterfile.Host, error) {
	if o.masters == "" && o.nodes == "" {
		return nil, usagef(cmd, "--masters or --nodes is missing")
	}
	if err := o.resolve(a, cmd); err != nil {
		return nil, err
	}
	before := a.madeBefore(name)
	login := o.ssh()
	if before != nil && len(before.ControlPlanes()) > 0 {
		login = o.overlay(before.ControlPlanes()[0].SSH)
	}
	var machines []clusterfile.Host
	for _, group := range []struct {
		list string
		role clusterfile.Role
	}{{o.masters, clusterfile.ControlPlane}, {o.nodes, clusterfile.Worker}} {
		addresses, err := clusterfile.ParseAddresses(group.list)
		if err != nil {
			return nil, &usageError{command: cmd.CommandPath(), err: fmt.Errorf("reading the addresses of the %s hosts: %w", group.role, err)}
		}
		for _, address := range addresses {
			machines = append(machines, clusterfile.Host{Address: address, Role: group.role, SSH: login})
		}
	}
	file := &clusterfile.File{Hosts: machines}
	if err := file.ResolveHosts(lookup(cmd), before); err != nil {
		return nil, err
	}
	for i, h := range file.Hosts {
		if slices.ContainsFunc(file.Hosts[:i], func(o clusterfile.Host) bool { return o.Address == h.Address }) {
			return nil, usagef(cmd, "the host %s is there twice", h.Address)
		}
	}
	return file.Hosts, nil
}

// madeBefore is what this machine has kept of the cluster; nil where it has nothing, or nothing that can be read, which is said where it is needed.
func (a *app) madeBefore(name string) *clusterfile.File {
	path := cluster.ClusterfilePath(filepath.Join(a.root, "clusters"), name)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	file, err := clusterfile.Parse(path, data)
	if err != nil {
		return nil
	}
	return file
}

// lookup finds the addresses of host names as this machine does.
func lookup(cmd *cobra.Command) func(string) ([]netip.Addr, error) {
	return func(name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(cmd.Context(), "ip", name)
	}
}

// asHostsSay logs in to each host as is known of it: the flags are about those that they name, whose login they are already.
// Passwords are kept of none.
func (o *sshFlags) asHostsSay() *sshFlags {
	each := *o
	each.chosen = func(string) bool { return false }
	return &each
}

// imageOfCluster finds the image that a cluster runs: under the name of --image, or any that the store has for its digest.
func (a *app) imageOfCluster(ctx context.Context, cmd *cobra.Command, st *store.Store, o joinFlags, id, name string) (*clusterimage.Image, string, error) {
	want, err := digest.Parse(id)
	if err != nil {
		return nil, "", fmt.Errorf("reading which image the cluster runs: %w", err)
	}
	missing := &missingImageError{cluster: o.name, digest: want, name: name}
	if o.image != "" {
		tag, err := a.findOrPull(ctx, cmd, st, o.image)
		if err != nil {
			return nil, "", err
		}
		if missing.got = tag.Descriptor.Digest; missing.got != want {
			missing.name = o.image
			return nil, "", missing
		}
	}
	tags, err := st.List(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, tag := range tags {
		if tag.Descriptor.Digest == want {
			img, err := clusterimage.Read(ctx, st.Content(), tag.Descriptor)
			if err != nil {
				return nil, "", fmt.Errorf("reading image %q: %w", tag.Name, err)
			}
			return img, name, nil
		}
	}
	return nil, "", missing
}

// missingImageError is an image that a cluster runs and the local store does not have.
type missingImageError struct {
	cluster, name string
	digest, got   digest.Digest // got: what --image is instead
}

func (e *missingImageError) Error() string {
	if e.got != "" {
		return fmt.Sprintf("the cluster %q runs the image %s, and %q is %s", e.cluster, e.digest, e.name, e.got)
	}
	return fmt.Sprintf("the cluster %q runs the image %q (%s), which the local store does not have", e.cluster, e.name, e.digest)
}

func (e *missingImageError) Hint() string {
	if e.got != "" {
		return "name the image of that digest; sealer upgrade takes a cluster to another image"
	}
	return "sealer pull " + e.name + ", sealer load, or --image with the name of an image that has this digest"
}

// remove takes hosts out of a cluster.
func (a *app) remove(cmd *cobra.Command, o deleteFlags) (err error) {
	if o.clusterfile != "" {
		return usagef(cmd, "--Clusterfile goes with --all: which hosts a cluster has is known from its run")
	}
	if o.name == "" {
		o.name = clusterfile.DefaultName
	}
	machines, err := o.machines(a, cmd, o.name)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := a.confirmThat(cmd, o.yes, fmt.Sprintf("Take %s out of the cluster %q? [y/N] ", hostNames(machines), o.name)); err != nil {
			return err
		}
	}
	logFile, err := a.openRunLog("delete")
	if err != nil {
		return err
	}
	if err := a.openDisplay(cmd); err != nil {
		return err
	}
	defer a.close(&err)
	return cluster.Remove(cmd.Context(), cluster.RemoveOptions{
		Name:         o.name,
		Hosts:        machines,
		Force:        o.force,
		DrainTimeout: o.timeout,
		Operator:     a.operator(o.asHostsSay(), logFile),
		DryRun:       o.dryRun,
	})
}
