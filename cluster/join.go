// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// JoinOptions say which hosts join which cluster.
type JoinOptions struct {
	Operator
	Name  string // of a cluster that this machine knows
	Hosts []clusterfile.Host
	// FindImage finds the image that the cluster runs, by the digest of its index. name is what it was called when the cluster
	// was made. The error is the caller's to word.
	FindImage func(ctx context.Context, digest, name string) (*clusterimage.Image, string, error)
	Content   content.Provider
	Pusher    ImagePusher // as in RunOptions
	DryRun    bool
}

// UnknownError is a cluster that this machine does not know.
type UnknownError struct{ Cluster string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("this machine knows no cluster %q", e.Cluster)
}

// Hint says where it is known.
func (e *UnknownError) Hint() string {
	return "do it on the machine where sealer run was, or give all of its hosts to sealer run once more there; --name says which cluster"
}

// RoleError is a host that is part of the cluster in another role.
type RoleError struct {
	Host      string
	Has, Want clusterfile.Role
}

func (e *RoleError) Error() string {
	return fmt.Sprintf("%s is a %s of the cluster, not a %s", e.Host, e.Has, e.Want)
}

// Hint says how roles change.
func (e *RoleError) Hint() string {
	return "a host changes its role by sealer delete, and then sealer join"
}

// Join makes hosts part of a cluster that runs. They get what the cluster was made from: its image, and the Clusterfile as its
// control planes keep it. Hosts of the cluster that cannot be reached do not stand in the way, as long as a control
// plane answers. Joining hosts again changes nothing.
func Join(ctx context.Context, o JoinOptions) (err error) {
	if o.FindImage == nil || o.Content == nil || o.Dial == nil || o.NodeBinary == nil || o.StateDir == "" || len(o.Hosts) == 0 {
		return errors.New("joining hosts: hosts, image, content, dial, node binary and state folder are needed")
	}
	kept, err := openFolder(o.StateDir, o.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	known, err := kept.known()
	if err != nil {
		return err
	}
	if known == nil {
		return &UnknownError{o.Name}
	}
	for _, h := range o.Hosts {
		for _, have := range known.Hosts {
			if have.Address == h.Address && have.Role != h.Role {
				return &RoleError{Host: h.Address, Has: have.Role, Want: h.Role}
			}
		}
	}
	if len(known.Hosts) == 0 {
		return &LocalError{o.Name}
	}
	named := *known
	named.Hosts = o.Hosts
	all, err := kept.grown(&named)
	if err != nil {
		return err
	}
	if err := all.Validate(); err != nil {
		return fmt.Errorf("joining hosts: %w", err)
	}
	r := &run{RunOptions: RunOptions{
		Operator: o.Operator, Clusterfile: all, Content: o.Content, Pusher: o.Pusher, DryRun: o.DryRun,
	}.withDefaults()}
	closeHosts, err := r.connect(ctx, &named)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	if err := r.recall(ctx, o.FindImage); err != nil {
		return err
	}
	return r.carryOut(ctx, kept)
}

// LocalError is a cluster of one machine that has no address for others.
type LocalError struct{ Cluster string }

func (e *LocalError) Error() string {
	return fmt.Sprintf("the cluster %q is this machine, which other hosts know no address of", e.Cluster)
}

// Hint says how it is made instead.
func (e *LocalError) Hint() string {
	return "a cluster that is to grow is made with sealer run --masters ADDRESS"
}

// recall finds out what the cluster was made from.
func (r *run) recall(ctx context.Context, find func(context.Context, string, string) (*clusterimage.Image, string, error)) error {
	if err := r.recallFile(ctx); err != nil {
		return err
	}
	contact, err := r.recallContact(ctx)
	if err != nil {
		return err
	}
	state := contact.Facts.State
	r.Image, r.ImageName, err = find(ctx, state.ImageDigest, state.Image)
	return err
}

// recallFile takes what the Clusterfile leaves open from what a control plane has kept.
func (r *run) recallFile(ctx context.Context) error {
	contact, err := r.recallContact(ctx)
	if err != nil {
		return err
	}
	defined, err := readDefinition(ctx, contact)
	if err != nil {
		return err
	}
	if defined != nil {
		r.Clusterfile = over(defined, r.Clusterfile)
		r.cluster.File = r.Clusterfile
		useRegistry(r.cluster)
		for _, h := range r.cluster.Hosts { // labels, taints and environment of those that were there before
			for _, m := range r.Clusterfile.Hosts {
				if m.Address == h.Spec.Address {
					h.Spec = m
				}
			}
		}
		return r.lookAgain(ctx)
	}
	return nil
}

// lookAgain gathers the facts of hosts anew whose own container runtime nobody knew to ask for.
func (r *run) lookAgain(ctx context.Context) error {
	unasked := slices.DeleteFunc(slices.Clone(r.cluster.Hosts), func(h *runtime.Host) bool {
		socket := r.cluster.File.RuntimeSocket(h.Spec.Role)
		return socket == "" || h.Lost != nil || h.Facts.Containerd != nil && h.Facts.Containerd.Socket == socket
	})
	return onAll(unasked, func(h *runtime.Host) (err error) {
		h.Facts, err = runtime.Gather(ctx, h.Runner, runtime.OwnRuntime(r.Distributions.Marks(), r.cluster.File, h.Spec.Role))
		expectName(h)
		return err
	})
}

// recallContact finds the control plane that answers, whichever distribution it runs.
func (r *run) recallContact(ctx context.Context, without ...*runtime.Host) (*runtime.Host, error) {
	for _, h := range r.cluster.ControlPlanes() {
		s := h.Facts.State
		if s == nil || s.Cluster != r.cluster.File.Name {
			continue
		}
		d, err := r.Distributions.ChooseClusterRuntime(clusterimage.Metadata{ClusterRuntime: s.Runtime})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h, err)
		}
		r.distribution = d
		contact, err := findContact(ctx, r.cluster, d, without...)
		if err == nil && contact == nil {
			err = noContact(r.cluster, d, without...)
		}
		return contact, err
	}
	return nil, noContact(r.cluster, nil, without...)
}

// over is what the cluster was made from, with the hosts that it has now. A host that comes back in another role is a new one.
func over(defined, now *clusterfile.File) *clusterfile.File {
	f := *defined
	f.Hosts = nil
	for _, h := range now.Hosts {
		for _, d := range defined.Hosts {
			if d.Address == h.Address && d.Role == h.Role {
				login := h.SSH
				h = d
				h.SSH = login
			}
		}
		f.Hosts = append(f.Hosts, h)
	}
	return &f
}
