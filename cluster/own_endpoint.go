// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/vip"
	"github.com/sealerio/sealer/runtime"
)

// stepEndpoint notes on control planes how the API servers are found; its key is clusterfile.Endpoint's String. A cluster with balancers has none.
const stepEndpoint = "noting how the API servers are found"

// EndpointChangeError is a cluster whose API servers are to be found otherwise than it was made with.
type EndpointChangeError struct{ Cluster, Have, Want string }

func (e *EndpointChangeError) Error() string {
	return fmt.Sprintf("the cluster %q was made with the endpoint %q, and only sealer apply makes it %q; nothing was touched", e.Cluster, e.Have, e.Want)
}

// Hint says what can be done.
func (e *EndpointChangeError) Hint() string {
	return "leave the controlPlaneEndpoint as it was; or change it with sealer apply -f, once the cluster is complete"
}

// keepEndpoint takes over the endpoint that the cluster has where none is asked for, and refuses another one to all but an Apply.
func (r *run) keepEndpoint(ctx context.Context) error {
	if err := r.findMove(); err != nil {
		return err
	}
	return addressPassword(ctx, r.cluster)
}

// addressPassword finds the password by which control planes hand on the virtual address, or makes one.
func addressPassword(ctx context.Context, c *runtime.Cluster) error {
	if c.File.Endpoint.VIP == "" || c.AddressPassword != "" {
		return nil
	}
	for _, h := range c.ControlPlanes() {
		if h.Lost != nil || h.Facts.State == nil {
			continue
		}
		data, err := host.ReadFile(ctx, h.Runner, addressPasswordFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if text := strings.TrimSpace(string(data)); text != "" {
			c.AddressPassword = host.Secret(text)
			return nil
		}
	}
	raw := make([]byte, vip.PasswordLength/2)
	if _, err := rand.Read(raw); err != nil {
		return fmt.Errorf("making a password for the virtual address: %w", err)
	}
	c.AddressPassword = host.Secret(hex.EncodeToString(raw))
	return nil
}

// addressPasswordFile has the password, for control planes that join and for who asks later. Mode 0600.
const addressPasswordFile = vip.Dir + "/password"

// inUse asks whether a machine has the address $1 already: by a ping, by the port $2, and by what the network has told meanwhile. It prints
// what has answered. A host may lack any of the programs.
const inUse = `
if command -v ping >/dev/null && ping -c 2 -W 1 "$1" >/dev/null 2>&1; then echo "it answers pings"; exit 0; fi
if command -v bash >/dev/null && timeout 3 bash -c ": </dev/tcp/$1/$2" 2>/dev/null; then echo "it takes connections at port $2"; exit 0; fi
if command -v ip >/dev/null; then
	ip neigh show to "$1" 2>/dev/null | awk '/lladdr/ && !/FAILED|INCOMPLETE/ { for (i = 1; i < NF; i++) if ($i == "lladdr") print "the machine with the hardware address " $(i + 1) " has it"; exit }'
fi`

// noName asks whether the name $1 has no address here.
const noName = `command -v getent >/dev/null || exit 1; ! getent ahosts "$1" >/dev/null`

// AddressTakenError is a virtual address that something else has.
type AddressTakenError struct{ Address, Host, What string }

func (e *AddressTakenError) Error() string {
	return fmt.Sprintf("the virtual address %s is in use, as seen from %s: %s; nothing was touched", e.Address, e.Host, e.What)
}

// Hint says what is needed.
func (e *AddressTakenError) Hint() string {
	return "choose an address of the control planes' network that nothing has, and that no DHCP server gives out"
}

// NoNameError is an external endpoint whose name hosts do not know.
type NoNameError struct {
	Name  string
	Hosts []string
}

func (e *NoNameError) Error() string {
	return fmt.Sprintf("the external endpoint's name %s has no address on %s; nothing was touched", e.Name, strings.Join(e.Hosts, ", "))
}

// Hint says where names come from.
func (e *NoNameError) Hint() string {
	return "have the hosts' nameserver know it, or name it in the Clusterfile: hostAliases: [{ip: ADDRESS, hostnames: [" + e.Name + "]}]"
}

// checkEndpoint looks at what a new endpoint needs, before anything is touched.
func (r *run) checkEndpoint(ctx context.Context) error {
	c, e := r.cluster, r.cluster.File.Endpoint
	n, err := notedEndpoint(c.Hosts)
	if err != nil || n.half || n.made && r.move == nil { // what was begun may be there
		return err
	}
	switch first := c.First(); {
	case e.VIP != "" && (first.Facts.State == nil || r.move != nil):
		out, err := host.Output(ctx, first.Runner, host.Command{Argv: []string{"sh", "-c", inUse, "sh", e.Address().String(), strconv.Itoa(apiPort(c, r.distribution))}})
		if err != nil {
			return fmt.Errorf("asking whether the virtual address is free: %w", err)
		}
		if what := strings.TrimSpace(string(out)); what != "" {
			return &AddressTakenError{Address: e.Address().String(), Host: first.String(), What: what}
		}
	case e.External != "":
		return r.checkName(ctx, e.Host())
	}
	return nil
}

// checkName: every host finds the address of the name, or will, by the Clusterfile's aliases.
func (r *run) checkName(ctx context.Context, name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	for _, a := range r.cluster.File.Aliases {
		for _, alias := range a.Hostnames {
			if strings.EqualFold(alias, name) {
				return nil
			}
		}
	}
	unknown := make([]bool, len(r.cluster.Hosts))
	err := onAll(r.cluster.Hosts, func(h *runtime.Host) (err error) { // one that has no nameserver waits for it
		unknown[slices.Index(r.cluster.Hosts, h)], err = asks(ctx, h, "sh", "-c", noName, "sh", name)
		return err
	})
	if err != nil {
		return err
	}
	without := &NoNameError{Name: name}
	for i, h := range r.cluster.Hosts {
		if unknown[i] {
			without.Hosts = append(without.Hosts, h.String())
		}
	}
	if len(without.Hosts) > 0 {
		return without
	}
	return nil
}

// apiPort is that of the cluster's API servers.
func apiPort(c *runtime.Cluster, d runtime.Distribution) int {
	if a, ok := d.(runtime.Addressed); ok {
		return a.APIPort(c)
	}
	return 6443
}

// noteEndpoint keeps on a control plane what the cluster is made with. One that follows a change is noted at the end of that.
func (r *run) noteEndpoint(h *runtime.Host) []runtime.Step {
	if e := r.cluster.File.Endpoint; !e.Own() && !e.IPVS || r.follows(h) || h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	return []runtime.Step{{Name: stepEndpoint, Key: r.cluster.File.Endpoint.String(), Do: func(context.Context, io.Writer) error { return nil }}}
}

// recallEndpoint is for commands that are not told what the cluster was made with: the hosts know it.
func (r *run) recallEndpoint(ctx context.Context) error {
	n, err := notedEndpoint(r.cluster.Hosts)
	if err != nil {
		return err
	}
	if n.half {
		return &HalfMovedError{Cluster: r.cluster.File.Name, Have: n.have.String(), Next: n.next.String()}
	}
	f := *r.Clusterfile
	f.Endpoint = n.have
	r.Clusterfile, r.cluster.File = &f, &f
	return addressPassword(ctx, r.cluster)
}
