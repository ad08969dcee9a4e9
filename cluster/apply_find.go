// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// find reaches the hosts that are to be and those that are, and reads what the cluster was made from.
func (a *applying) find(ctx context.Context) error {
	known, err := a.kept.known()
	if err != nil {
		return err
	}
	if known != nil && (len(known.Hosts) == 0) != (len(a.Clusterfile.Hosts) == 0) {
		return &LocalError{a.Clusterfile.Name}
	}
	a.want, a.was, a.fresh, a.image, a.silent, a.records, a.missing = a.Clusterfile, nil, false, a.RunOptions, nil, nil, nil
	if a.Image != nil {
		if a.want, err = OverDefaults(a.Clusterfile, a.Image, a.ImageName); err != nil {
			return err
		}
	}
	r, err := a.reach(ctx, known)
	if err != nil {
		return err
	}
	a.fresh = !slices.ContainsFunc(r.cluster.ControlPlanes(), func(h *runtime.Host) bool {
		return h.Facts.State != nil && h.Facts.State.Cluster == a.want.Name && h.Facts.State.WasComplete()
	})
	if a.fresh {
		if a.Image == nil {
			return &NoImageError{Cluster: a.want.Name}
		}
		return nil
	}
	contact, err := a.contact(ctx, r)
	if err != nil {
		return err
	}
	if a.was, err = readDefinition(ctx, contact); err != nil {
		return err
	}
	if a.was != nil && !sameHosts(known, a.was) { // another machine has changed the cluster since
		if r, err = a.reach(ctx, known, a.was); err != nil {
			return err
		}
		if contact, err = a.contact(ctx, r); err != nil {
			return err
		}
	}
	if a.silent == nil {
		r.cluster.Contact = contact
	}
	if a.Image == nil {
		s := contact.Facts.State
		if a.image.Image, a.image.ImageName, err = a.FindImage(ctx, s.ImageDigest, s.Image); err != nil {
			return err
		}
		if a.want, err = OverDefaults(a.Clusterfile, a.image.Image, a.image.ImageName); err != nil {
			return err
		}
	}
	return a.sort(ctx, r)
}

// contact is the control plane that knows what the cluster was made from. Where none answers it is one that has it on its disk: a
// setting may have been wrong, and can be put right.
func (a *applying) contact(ctx context.Context, r *run) (*runtime.Host, error) {
	h, err := r.recallContact(ctx)
	a.silent = nil
	if _, none := errors.AsType[*NoContactError](err); none && len(a.lost) == 0 {
		for _, h := range r.cluster.ControlPlanes() {
			if h.Facts.State.WasComplete() {
				a.silent = err
				return h, nil
			}
		}
	}
	return h, err
}

// NoImageError is a cluster that is to be made, of an image that nobody has named.
type NoImageError struct{ Cluster string }

func (e *NoImageError) Error() string {
	return fmt.Sprintf("making the cluster %q: the Clusterfile names no image", e.Cluster)
}

// Hint says where it is named.
func (e *NoImageError) Hint() string { return "write spec.image into the Clusterfile" }

// reach connects to the hosts of the Clusterfile, which must answer, and to those of lists, which may be lost.
func (a *applying) reach(ctx context.Context, lists ...*clusterfile.File) (*run, error) {
	a.all = united(a.want, lists...)
	o := a.RunOptions
	o.Clusterfile = a.all
	r := &run{RunOptions: o}
	_, err := r.connect(ctx, a.want) // what it opens is the pool's to close
	a.cluster, a.lost = r.cluster, r.lost
	return r, err
}

// united is a Clusterfile with the hosts of others added, in their order, before its new ones. A login that others leave open is that of
// the Clusterfile's first control plane.
func united(want *clusterfile.File, lists ...*clusterfile.File) *clusterfile.File {
	all := *want
	all.Hosts = nil
	if len(want.Hosts) == 0 {
		return &all
	}
	add := func(m clusterfile.Host) {
		if !slices.ContainsFunc(all.Hosts, func(h clusterfile.Host) bool { return h.Address == m.Address }) {
			all.Hosts = append(all.Hosts, m)
		}
	}
	for _, f := range lists {
		if f == nil {
			continue
		}
		for _, m := range f.Hosts {
			if i := slices.IndexFunc(want.Hosts, func(h clusterfile.Host) bool { return h.Address == m.Address }); i >= 0 {
				m = want.Hosts[i]
			} else {
				m.SSH = m.SSH.Over(want.ControlPlanes()[0].SSH)
			}
			add(m)
		}
	}
	for _, m := range want.Hosts {
		add(m)
	}
	return &all
}

// sameHosts: both name the same ones.
func sameHosts(a, b *clusterfile.File) bool {
	if a == nil {
		return false
	}
	addresses := func(f *clusterfile.File) []string {
		var list []string
		for _, h := range f.Hosts {
			list = append(list, h.Address)
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(addresses(a), addresses(b))
}

// sort finds which hosts are to leave the cluster. Those that are known and hold nothing of it any more are forgotten.
func (a *applying) sort(ctx context.Context, r *run) error {
	var nodes []kube.Node
	if a.silent == nil {
		var err error
		if nodes, err = r.api().Nodes(ctx); err != nil {
			return err
		}
		if err := a.inventory(ctx, r.inventory()); err != nil {
			return err
		}
	}
	a.all, a.going, a.nodes = united(a.want, a.all), nil, nodes
	wanted := func(address string) bool {
		return slices.ContainsFunc(a.want.Machines(), func(m clusterfile.Host) bool { return m.Address == address })
	}
	clean := func(h *runtime.Host) bool {
		return h.Facts.State == nil && !slices.ContainsFunc(nodes, func(n kube.Node) bool { return n.Metadata.Name == h.Facts.NodeName() })
	}
	forget := map[string]bool{}
	for _, h := range slices.Concat(a.cluster.Hosts, a.lost) {
		switch address := h.Spec.Address; {
		case wanted(address):
		case h.Lost == nil && clean(h):
			forget[address] = true
		default:
			a.going = append(a.going, h.Spec)
		}
	}
	a.all.Hosts = slices.DeleteFunc(a.all.Hosts, func(m clusterfile.Host) bool { return forget[m.Address] })
	a.cluster.Hosts = slices.DeleteFunc(a.cluster.Hosts, func(h *runtime.Host) bool { return forget[h.Spec.Address] })
	for _, h := range a.cluster.Hosts { // in the words of the Clusterfile, and of the image's defaults
		if wanted(h.Spec.Address) {
			h.Spec = hostOf(a.want, h.Spec.Address)
		}
	}
	a.cluster.File = a.all
	useRegistry(a.cluster)
	return nil
}
