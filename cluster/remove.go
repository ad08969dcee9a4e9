// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

// RemoveOptions say which hosts are taken out of which cluster.
type RemoveOptions struct {
	Operator
	Name  string // of a cluster that this machine knows
	Hosts []clusterfile.Host
	// Force takes out hosts that cannot be reached, too, and deletes pods that would not leave a node.
	Force bool
	// DrainTimeout is how long pods may take to leave a node. Default kube.DefaultDrainTimeout.
	DrainTimeout time.Duration
	DryRun       bool
	// plugins are those whose phases of deletion are done; what is kept of a cluster has none.
	plugins []clusterfile.Plugin
}

// NotMemberError is hosts that are not part of the cluster.
type NotMemberError struct {
	Cluster string
	Hosts   []string
	Have    []string
}

func (e *NotMemberError) Error() string {
	return fmt.Sprintf("the cluster %q does not have %s; it has %s", e.Cluster, strings.Join(e.Hosts, ", "), strings.Join(e.Have, ", "))
}

// LastControlPlaneError is a removal after which a cluster would have no control plane.
type LastControlPlaneError struct{ Cluster string }

func (e *LastControlPlaneError) Error() string {
	return fmt.Sprintf("the cluster %q would have no control plane left", e.Cluster)
}

// Hint says what was meant, perhaps.
func (e *LastControlPlaneError) Hint() string {
	return "join another control plane first (sealer join --masters), or delete the whole cluster: sealer delete --all"
}

// GoneError is hosts to be removed that cannot be reached.
type GoneError struct{ Errs []error }

func (e *GoneError) Error() string {
	lines := []string{"connecting to the hosts that are to go, nothing was changed:"}
	for _, err := range e.Errs {
		lines = append(lines, "  "+err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives what happened to each host.
func (e *GoneError) Unwrap() []error { return e.Errs }

// Hint is --force.
func (e *GoneError) Hint() string {
	return "--force takes them out of the cluster all the same; what is on them stays, until they are back: sealer delete with --masters and --nodes then cleans them"
}

// Remove takes hosts out of a cluster, one after the other: their pods leave, the datastore gives up their member, the host is
// put back as it was before, and the cluster forgets it. A removal that was cut is continued by the same call.
func Remove(ctx context.Context, o RemoveOptions) (err error) {
	if o.Dial == nil || o.NodeBinary == nil || o.StateDir == "" || len(o.Hosts) == 0 {
		return errors.New("removing hosts: hosts, dial, node binary and state folder are needed")
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	kept, err := openFolder(o.StateDir, o.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	return o.carryOut(ctx, kept)
}

// carryOut is Remove from a cluster whose folder is open.
func (o RemoveOptions) carryOut(ctx context.Context, kept *folder) (err error) {
	known, err := kept.known()
	if err != nil {
		return err
	}
	if known == nil {
		return &UnknownError{o.Name}
	}
	known.Plugins = o.plugins
	strangers, err := o.members(known)
	if err != nil {
		return err
	}
	m := &removal{how: o, kept: kept, run: &run{RunOptions: RunOptions{
		Operator: o.Operator, Clusterfile: known,
	}.withDefaults()}}
	closeHosts, err := m.connect(ctx, &clusterfile.File{Hosts: []clusterfile.Host{{Address: "none"}}}) // any may be lost
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHosts()) }()
	if len(strangers) > 0 {
		file := *known
		file.Hosts = strangers
		var lost []error
		left, closeLeft, err := connect(ctx, &file, o.Dial, o.Distributions.Marks(), o.Display, func(h clusterfile.Host, err error) {
			lost = append(lost, err)
			m.leftLost = append(m.leftLost, h)
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeLeft()) }()
		if len(lost) > 0 && !o.Force {
			return &GoneError{lost}
		}
		m.leftOver = left.Hosts
	}
	return m.carryOut(ctx)
}

// members makes sure that what is to go is there in the role that it was named with, and that something stays. It
// returns the hosts that the cluster does not have: it may have had them.
func (o RemoveOptions) members(known *clusterfile.File) (strangers []clusterfile.Host, err error) {
	staying := len(known.ControlPlanes())
	for _, h := range o.Hosts {
		i := slices.IndexFunc(known.Hosts, func(k clusterfile.Host) bool { return k.Address == h.Address })
		switch {
		case i < 0:
			strangers = append(strangers, h)
		case known.Hosts[i].Role != h.Role:
			return nil, &RoleError{Host: h.Address, Has: known.Hosts[i].Role, Want: h.Role}
		case h.Role == clusterfile.ControlPlane:
			staying--
		}
	}
	if staying < 1 {
		return nil, &LastControlPlaneError{known.Name}
	}
	return strangers, nil
}

// removal is a Remove under way.
type removal struct {
	*run
	how   RemoveOptions
	kept  *folder
	going []*runtime.Host // workers first
	// defined is what the cluster was made from; nil where it has kept nothing.
	defined *clusterfile.File
	// leftOver are hosts that the cluster was taken off without them, and that are back.
	leftOver []*runtime.Host
	// leftLost are hosts that the cluster does not have, and that cannot be reached.
	leftLost []clusterfile.Host
	// gone are hosts that a removal before has taken out; its end was not seen, maybe.
	gone []string
}

func (m *removal) carryOut(ctx context.Context) error {
	if err := m.choose(ctx); err != nil {
		return err
	}
	p, err := m.plan()
	if err != nil {
		return err
	}
	if m.how.DryRun {
		_, err := io.WriteString(m.Out, p.String())
		return err
	}
	held, release, err := m.kept.hold(ctx, m.cluster, m.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	ctx = held
	if err := m.choose(ctx); err != nil { // another operator may have been there
		return err
	}
	if p, err = m.plan(); err != nil {
		return err
	}
	e := newExecutor(m.cluster, m.kept.journal, m.Display, m.LogFile)
	e.begin(func(h *runtime.Host) runtime.HostState {
		if h.Facts.State == nil {
			return runtime.HostState{}
		}
		return *h.Facts.State
	})
	for _, h := range slices.Concat(m.going, m.leftOver) {
		e.states[h] = &hostState{written: true} // lost ones, too: nothing is kept of them
	}
	if err := e.execute(ctx, p); err != nil {
		return err
	}
	return m.report()
}

// choose finds the hosts that go, and the control plane that is asked meanwhile: one that stays.
func (m *removal) choose(ctx context.Context) error {
	m.going = nil
	var gone []error
	for _, list := range [][]*runtime.Host{m.cluster.Hosts, m.lost} {
		for _, h := range list {
			if !slices.ContainsFunc(m.how.Hosts, func(g clusterfile.Host) bool { return g.Address == h.Spec.Address }) {
				continue
			}
			m.going = append(m.going, h)
			if h.Lost != nil {
				gone = append(gone, h.Lost)
			}
		}
	}
	if len(gone) > 0 && !m.how.Force {
		return &GoneError{gone}
	}
	slices.SortStableFunc(m.going, func(a, b *runtime.Host) int { return -strings.Compare(string(a.Spec.Role), string(b.Spec.Role)) })
	contact, err := m.recallContact(ctx, m.going...)
	if err != nil {
		return err
	}
	m.cluster.Contact = contact
	if err := m.recallEndpoint(ctx); err != nil {
		return err
	}
	if m.defined, err = readDefinition(ctx, contact); err != nil {
		return err
	}
	if m.defined != nil && len(m.how.plugins) == 0 { // what this machine keeps of the cluster has none
		m.cluster.File.Plugins = m.defined.Plugins
	}
	if err := m.checkLeftOver(); err != nil {
		return err
	}
	if external := m.defined != nil && m.defined.Registry.External != nil; !external && !slices.ContainsFunc(m.cluster.Hosts, func(h *runtime.Host) bool {
		s := h.Facts.State
		return !slices.Contains(m.going, h) && s != nil && s.Steps[stepRegistryInit] != ""
	}) {
		return &NoRegistryError{m.cluster.File.Name}
	}
	return m.nameLost(ctx)
}

// checkLeftOver makes sure that hosts which the cluster does not have were its own once, or are clean.
func (m *removal) checkLeftOver() error {
	missing := &NotMemberError{Cluster: m.cluster.File.Name}
	for _, h := range m.cluster.File.Machines() {
		missing.Have = append(missing.Have, h.String())
	}
	events, err := ReadJournal(m.StateDir, m.cluster.File.Name)
	if err != nil {
		return err
	}
	// That it was begun is enough, since the list does not have the host: whoever was killed right then could not say that it was done.
	struck := func(h clusterfile.Host) bool {
		return slices.ContainsFunc(events, func(e Event) bool { return e.Step == stepStrike(h) })
	}
	m.leftOver = slices.DeleteFunc(m.leftOver, func(h *runtime.Host) bool {
		gone := h.Facts.State == nil && struck(h.Spec)
		if gone {
			m.gone = append(m.gone, h.Spec.String())
		}
		return gone
	})
	for _, h := range m.leftLost {
		switch {
		case !struck(h):
			missing.Hosts = append(missing.Hosts, h.String())
		case !slices.Contains(m.gone, h.String()): // this is looked at twice
			m.gone = append(m.gone, h.String())
		}
	}
	for _, h := range m.leftOver {
		if s := h.Facts.State; s == nil || s.Cluster != m.cluster.File.Name || s.ClusterID != m.cluster.Contact.Facts.State.ClusterID {
			missing.Hosts = append(missing.Hosts, h.String())
		}
	}
	if len(missing.Hosts) > 0 {
		return missing
	}
	return nil
}

// NoRegistryError is a removal after which nothing would serve the packed images.
type NoRegistryError struct{ Cluster string }

func (e *NoRegistryError) Error() string {
	return fmt.Sprintf("no control plane of the cluster %q that stays serves the packed images: an earlier sealer made it", e.Cluster)
}

// Hint says how they come to serve.
func (e *NoRegistryError) Hint() string {
	return "run the cluster's image once more with this sealer: then all control planes do"
}

// nameLost finds the names of the nodes of hosts that cannot be asked for them: by their addresses, which name what has no node: a removal
// that was cut has deleted it, and it goes last of all that has its name.
func (m *removal) nameLost(ctx context.Context) error {
	if len(m.lost) == 0 {
		return nil
	}
	nodes, err := m.api().Nodes(ctx)
	if err != nil {
		return err
	}
	for _, h := range m.lost {
		h.Facts.Hostname = h.Spec.Address
		for _, n := range nodes {
			for _, a := range n.Status.Addresses {
				if a.Type == "InternalIP" && a.Address == h.Spec.Address {
					h.Facts.Hostname = n.Metadata.Name
				}
			}
		}
	}
	return nil
}

func (m *removal) report() error {
	lost := slices.Clone(m.leftLost)
	names := slices.Clone(m.gone)
	for _, h := range m.leftOver {
		names = append(names, h.Spec.String())
	}
	for _, h := range m.going {
		names = append(names, h.Spec.String())
		if h.Lost != nil {
			lost = append(lost, h.Spec)
		}
	}
	if _, err := fmt.Fprintf(m.Out, "cluster %q is without %s, and has %s\n", m.cluster.File.Name, strings.Join(names, ", "), hosts(len(m.Clusterfile.Machines()))); err != nil {
		return err
	}
	return reportLost(m.Out, m.cluster.File.Name, lost)
}

// reportLost names the hosts that were taken out without being reached. They are told one by one, since they may come back so.
func reportLost(out io.Writer, name string, lost []clusterfile.Host) error {
	for _, h := range lost {
		if _, err := fmt.Fprintf(out, "%s was not reached and is as it was; %s\n", h, cleanedLater(name, h)); err != nil {
			return err
		}
	}
	return nil
}

// cleanedLater says what puts a host back as it was before that was taken out of the cluster without being reached.
func cleanedLater(name string, h clusterfile.Host) string {
	flag := "--nodes"
	if h.Role == clusterfile.ControlPlane {
		flag = "--masters"
	}
	return fmt.Sprintf("when it is back: sealer delete --name %s %s %s", name, flag, h)
}
