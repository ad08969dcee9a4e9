// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// A cluster that runs may have its images from another registry: from the control planes' own to one of the user's, with all that the
// control planes serve, or back to the control planes, which then have what the cluster's image packs.

// place is where images are, for people and for comparing.
func place(r clusterfile.Registry) string {
	if e := r.External; e != nil {
		return path.Join(e.Host(), e.Path)
	}
	return runtime.Registry{Domain: r.Domain, Port: r.Port}.Endpoint()
}

// switched is the change of where images come from.
func switched(was, want clusterfile.Registry) Change {
	c := Change{Op: OpChange, About: AboutRegistry, From: place(was), To: place(want)}
	switch {
	case was.External == nil && want.External == nil:
		return Change{} // a change for each control plane says so
	case c.From == c.To:
		return Change{Op: OpChange, About: AboutRegistry, Note: "its login or CA"}
	case was.External == nil:
		c.Note = "all that the control planes serve is brought there first"
	case want.External == nil:
		c.Note = "the control planes serve what the image packs; what else is in the registry before is not brought along"
	default:
		c.Note = "what the image packs is brought there; what else is in the registry before is not brought along"
	}
	return c
}

// SwitchError is a registry that cannot be left, since applications have images there that nobody else has.
type SwitchError struct {
	Cluster, Registry string
	Applications      []string
}

func (e *SwitchError) Error() string {
	return fmt.Sprintf("the cluster %q cannot leave the registry %s: only that has the images of %s", e.Cluster, e.Registry, strings.Join(e.Applications, ", "))
}

// Hint says how it can be left.
func (e *SwitchError) Hint() string {
	return "take these applications off with sealer app delete, and run them again when the cluster has the other registry"
}

// checkSwitch makes sure that an external registry which the cluster leaves has nothing that is needed: control planes do not
// have the images that applications have brought there.
func (r *run) checkSwitch(ctx context.Context) error {
	contact := r.cluster.Contact
	if contact == nil || contact.Facts.State == nil || !contact.Facts.State.Complete {
		return nil
	}
	was, err := readDefinition(ctx, contact)
	if err != nil || was == nil || was.Registry.External == nil || place(was.Registry) == place(r.cluster.File.Registry) {
		return err
	}
	records, err := r.inventory().Records(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, a := range records {
		if !a.OfCluster {
			names = append(names, a.Name)
		}
	}
	if len(names) > 0 {
		return &SwitchError{Cluster: r.cluster.File.Name, Registry: place(was.Registry), Applications: names}
	}
	return nil
}

// serving are the control planes whose registries an external one replaces.
func (r *run) serving() []*runtime.Host {
	if !r.external() {
		return nil
	}
	return slices.DeleteFunc(r.cluster.ControlPlanes(), func(h *runtime.Host) bool {
		return h.Facts.State == nil || h.Facts.State.Steps[stepRegistryInit] == ""
	})
}

// moveRegistry brings all that a control plane serves to the external registry, before any host asks that.
func (r *run) moveRegistry(h *runtime.Host) []runtime.Step {
	reg := r.cluster.Registry
	return []runtime.Step{{
		Name: "bringing what it serves to " + reg.Name(),
		Do: func(ctx context.Context, log io.Writer) error {
			in := registryAccess{CA: string(reg.CA), Username: reg.Username, Password: reg.Password.Reveal()}
			var moved struct{ Images, Others int }
			err := program.Call{Log: log, In: in, Out: &moved, Secret: true}.Run(ctx, h, "registry", "push", "--to", reg.Name(), "--prefix", reg.Path)
			if err == nil {
				say(log, "%d packed images and %d others are there", moved.Images, moved.Others)
			}
			return err
		},
	}}
}

// retire takes away a control plane's registry, once no host asks it any more.
func (r *run) retire(h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "removing the registry",
		Do: func(ctx context.Context, log io.Writer) error {
			if err := (program.Call{Log: log}).Run(ctx, h, "registry", "remove"); err != nil {
				return err
			}
			for _, step := range []string{stepRegistryInit, stepRegistryPublish, stepRegistryStart} {
				delete(r.executor.states[h].Steps, step) // they are not done any more, should it come back
			}
			return r.executor.writeState(ctx, h, true)
		},
	}}
}
