// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"slices"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// The login and the CA of the control planes' registries change without a moment in which any host is refused: first all registries accept
// what is new beside what they have, then all hosts are told of it, and trust both CAs, then the registries change, and at last
// the login and the CA before are left. A run that was cut does all of it again: what is done already changes nothing.

// rotationMark is on a control plane while its registry accepts more than one login: internal/node's trustedFile.
const rotationMark = "/var/lib/sealer/node/registry/trusted.crt"

// rotates tells whether the registries of a cluster that runs are to have another login or CA than the hosts know, or whether such a change
// has not come to its end.
func (r *run) rotates(ctx context.Context) (bool, error) {
	contact := r.cluster.Contact
	if r.external() || contact == nil || contact.Facts.State == nil || !contact.Facts.State.Complete || contact.Facts.State.Steps[stepRegistryInit] == "" {
		return false, nil
	}
	for _, h := range r.cluster.ControlPlanes() {
		if begun, err := rotating(ctx, h); begun || err != nil {
			return begun, err
		}
	}
	was, err := readDefinition(ctx, contact)
	if err != nil || was == nil || was.Registry.External != nil {
		return false, err
	}
	want, have := r.cluster.File.Registry, was.Registry
	login := want.Username != "" && (want.Username != have.Username || want.Password != have.Password)
	return login || want.CA != "" && want.CA != have.CA, nil
}

// rotating tells whether a control plane's registry accepts another login beside its own.
func rotating(ctx context.Context, h *runtime.Host) (bool, error) {
	if h.Lost != nil || h.Facts.State == nil || h.Facts.State.Steps[stepRegistryInit] == "" {
		return false, nil
	}
	none, err := asks(ctx, h, "test", "!", "-e", rotationMark)
	return !none && err == nil, err
}

// next is what the registries are to have: the Clusterfile's own, or what they have.
func (r *registries) next() registryAccess {
	own, next := r.cluster.File.Registry, r.made
	next.CAKey = ""
	next.CA = cmp.Or(own.CA, next.CA)
	if own.Username != "" {
		next.Username, next.Password = own.Username, own.Password.Reveal()
	}
	return next
}

// accept has a control plane's registry take the new login beside the one before.
func (r *registries) accept(h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "accepting the registry's new login and CA beside those before",
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log, In: r.next(), Secret: true}.Run(ctx, h, "registry", "accept")
		},
	}}
}

// both is what hosts have from then on: the new login, and both CAs.
func (r *registries) both() {
	next, reg := r.next(), &r.cluster.Registry
	reg.Username, reg.Password = next.Username, host.Secret(next.Password)
	reg.CA = []byte(next.CA)
	if was := bytes.TrimSpace([]byte(r.made.CA)); !bytes.Contains(reg.CA, was) {
		reg.CA = slices.Concat(bytes.TrimSpace(reg.CA), []byte("\n"), was, []byte("\n"))
	}
}

// change gives a control plane's registry its new login and CA, now that all hosts know them.
func (r *registries) change(h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "changing the registry's login and CA",
		Do: func(ctx context.Context, log io.Writer) error {
			return r.prepare(ctx, h, true, log)
		},
	}}
}

// leave takes the login before away from a control plane's registry.
func (r *registries) leave(h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "leaving the registry's login and CA before",
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "registry", "leave")
		},
	}}
}

// trustNew has a host trust the new CA alone. Container runtimes read its file at every pull.
func (r *run) trustNew(h *runtime.Host) []runtime.Step {
	d, ok := r.distribution.(runtime.Truster)
	if !ok {
		return r.docker(h)
	}
	return append([]runtime.Step{{
		Name: "trusting the registry's new CA alone",
		Done: func(ctx context.Context) (bool, error) {
			return runtime.SameFile(ctx, h.Runner, d.RegistryCAFile(), r.cluster.Registry.CA)
		},
		Do: func(ctx context.Context, _ io.Writer) error {
			return host.WriteFile(ctx, h.Runner, d.RegistryCAFile(), r.cluster.Registry.CA, 0o644)
		},
	}}, r.docker(h)...)
}
