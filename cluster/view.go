// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// ViewOptions say which cluster is looked at, and how its hosts are reached.
type ViewOptions struct {
	Clusterfile   *clusterfile.File // its name and hosts; ClusterfilePath has it after a run
	StateDir      string            // what this machine keeps of clusters tells those of one name apart; may be empty
	Dial          DialFunc
	Distributions runtime.Distributions
	Display       *progress.Display // nil: silent
	// Lookup finds the addresses of host names by which hosts are chosen; nil: they have only those of hostAliases.
	Lookup func(name string) ([]netip.Addr, error)
	// Desired: the Clusterfile says what the cluster is to be, and not only where its hosts are. Status compares with it, or else
	// with what the cluster was made from.
	Desired bool
	// FindImage finds an image on this machine, whose defaults the Clusterfile goes over: by name, or where that is empty by the digest of
	// its index. Where there is none it returns nil, and Status says what it has not compared.
	FindImage func(ctx context.Context, digest, name string) (*clusterimage.Image, error)
}

// View is a running cluster as this machine reaches it. Nothing is changed by looking, so hosts are not held.
type View struct {
	cluster      *runtime.Cluster
	distribution runtime.Distribution
	closeHosts   func() error
	want, was    *clusterfile.File // the cluster as it is to be, and as it was made; was is nil where that is not known
	desired      bool
	lookup       func(string) ([]netip.Addr, error)
	findImage    func(ctx context.Context, digest, name string) (*clusterimage.Image, error)
}

// Open connects to the hosts of a cluster. Those that cannot be reached are kept as lost; that none can is an
// error. Close the View.
func Open(ctx context.Context, o ViewOptions) (_ *View, err error) {
	if o.Clusterfile == nil || o.Dial == nil {
		return nil, errors.New("looking at a cluster: Clusterfile and dial are needed")
	}
	if err := o.Clusterfile.Validate(); err != nil {
		return nil, fmt.Errorf("looking at a cluster: %w", err)
	}
	lost := map[string]error{}
	c, closeHosts, err := connect(ctx, o.Clusterfile, o.Dial, o.Distributions.Marks(), o.Display, func(h clusterfile.Host, err error) {
		lost[h.Address] = err
	})
	if err != nil {
		return nil, err
	}
	v := &View{cluster: c, closeHosts: closeHosts, want: o.Clusterfile, desired: o.Desired, lookup: o.Lookup, findImage: o.FindImage}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	var all []*runtime.Host
	for _, m := range o.Clusterfile.Machines() {
		i := slices.IndexFunc(c.Hosts, func(h *runtime.Host) bool { return h.Spec.Address == m.Address })
		if i >= 0 {
			all = append(all, c.Hosts[i])
			continue
		}
		all = append(all, &runtime.Host{Spec: m, Lost: lost[m.Address]})
	}
	if len(c.Hosts) == 0 {
		errs := make([]error, 0, len(all))
		for _, h := range all {
			errs = append(errs, h.Lost)
		}
		return nil, &ConnectError{Errs: errs}
	}
	c.Hosts = all
	if err := owned(o.StateDir, o.Clusterfile.Name, c.Hosts); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		s := h.Facts.State
		if s == nil {
			continue
		}
		d := o.Distributions[s.Runtime]
		if d == nil {
			return nil, fmt.Errorf("%s: it runs %q, which this sealer does not know", h, s.Runtime)
		}
		v.distribution = d
		c.Digest = s.ImageDigest
	}
	if v.distribution == nil {
		return nil, &NotInstalledError{Cluster: o.Clusterfile.Name}
	}
	if c.Contact, err = findContact(ctx, c, v.distribution); err != nil {
		return v, err
	}
	keeper := c.Contact
	for _, h := range c.ControlPlanes() { // where none answers it is kept there all the same
		if keeper == nil && h.Lost == nil && h.Facts.State != nil {
			keeper = h
		}
	}
	if keeper == nil {
		return v, nil
	}
	defined, err := readDefinition(ctx, keeper)
	if err != nil || defined == nil {
		return v, err
	}
	c.File, v.was = over(defined, c.File), defined
	if err := addressPassword(ctx, c); err != nil {
		return v, err
	}
	if !v.desired {
		v.want = c.File
	}
	for _, h := range c.Hosts {
		for _, m := range c.File.Machines() {
			if m.Address == h.Spec.Address {
				h.Spec = m
			}
		}
	}
	return v, nil
}

// NotInstalledError is a cluster of which nothing is on the hosts.
type NotInstalledError struct{ Cluster string }

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("none of the hosts holds anything of the cluster %q", e.Cluster)
}

// Hint is to run it.
func (e *NotInstalledError) Hint() string { return "make it with sealer run" }

// Close leaves the hosts.
func (v *View) Close() error { return v.closeHosts() }

// contact is a control plane that answers.
func (v *View) contact() (*runtime.Host, error) {
	if v.cluster.Contact == nil {
		return nil, noContact(v.cluster, v.distribution)
	}
	return v.cluster.Contact, nil
}

// Selection says which hosts are meant. The zero value is all of them.
type Selection struct {
	Addresses []string // in the words of clusterfile.ParseAddresses; names are those of nodes, or else lead to addresses
	Role      clusterfile.Role
}

// choose are the hosts of a selection, in the cluster's order.
func (v *View) choose(s Selection) ([]*runtime.Host, error) {
	var wanted []string
	for _, text := range s.Addresses {
		list, err := clusterfile.ParseAddresses(text)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, list...)
	}
	named := map[*runtime.Host]bool{}
	for _, word := range wanted {
		found := v.named(word)
		if len(found) == 0 {
			return nil, &NoHostError{Cluster: v.cluster.File.Name, Address: word}
		}
		for _, h := range found {
			named[h] = true
		}
	}
	var chosen []*runtime.Host
	for _, h := range v.cluster.Hosts {
		if (len(wanted) == 0 || named[h]) && (s.Role == "" || s.Role == h.Spec.Role) {
			chosen = append(chosen, h)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("the cluster %q has no such host", v.cluster.File.Name)
	}
	return chosen, nil
}

// named are the hosts that an address, the name of a node or a host name means.
func (v *View) named(word string) []*runtime.Host {
	var found []*runtime.Host
	for _, h := range v.cluster.Hosts {
		if h.Spec.Address == word || h.Facts.NodeName() == word {
			found = append(found, h)
		}
	}
	if _, err := netip.ParseAddr(word); err == nil || len(found) > 0 {
		return found
	}
	var addresses []netip.Addr
	for _, f := range []*clusterfile.File{v.want, v.was} {
		if f != nil && len(addresses) == 0 {
			addresses, _ = f.AddressesOf(word, func(string) ([]netip.Addr, error) { return nil, nil }) // hostAliases were checked when they were read
		}
	}
	if len(addresses) == 0 && v.lookup != nil {
		addresses, _ = v.lookup(word) // a name without address means none of the hosts, which is said
	}
	for _, h := range v.cluster.Hosts {
		if slices.ContainsFunc(addresses, func(a netip.Addr) bool { return a.Unmap().String() == h.Spec.Address }) {
			found = append(found, h)
		}
	}
	return found
}

// NoHostError is an address that is none of the cluster's.
type NoHostError struct{ Cluster, Address string }

func (e *NoHostError) Error() string {
	return fmt.Sprintf("%s is no host of the cluster %q", e.Address, e.Cluster)
}

// Hint says who knows.
func (e *NoHostError) Hint() string { return "sealer status lists the hosts" }

// HostErrors is what went wrong on some of several hosts.
type HostErrors []error

func (e HostErrors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error of each host.
func (e HostErrors) Unwrap() []error { return e }

// each does something on hosts at once; the error is a HostErrors, in the order of the hosts.
func each(chosen []*runtime.Host, do func(*runtime.Host) error) error {
	errs := make([]error, len(chosen))
	_ = onAll(chosen, func(h *runtime.Host) error {
		for i, c := range chosen {
			if c != h {
				continue
			}
			if h.Lost != nil {
				errs[i] = h.Lost
			} else {
				errs[i] = do(h)
			}
		}
		return nil
	})
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failed) == 0 {
		return nil
	}
	return HostErrors(failed)
}

// kubectl runs kubectl on the contact and gives what it prints.
func (v *View) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	contact, err := v.contact()
	if err != nil {
		return nil, err
	}
	return host.Output(ctx, contact.Runner, v.distribution.Kubectl().Command(append(args, "--request-timeout", "30s")...))
}
