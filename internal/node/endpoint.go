// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sealerio/sealer/internal/balance"
	"github.com/sealerio/sealer/internal/ipvs"
)

// EndpointUnit is the systemd unit that runs `sealer-node endpoint serve`.
const EndpointUnit = "sealer-endpoint.service"

// EndpointConfig says where a host reaches the API servers through a balancer of its own.
type EndpointConfig struct {
	Listen  string   `json:"listen"`         // host:port
	Servers []string `json:"servers"`        // host:port of each API server
	IPVS    bool     `json:"ipvs,omitempty"` // the kernel balances, at Listen, which is a virtual address then; Servers are IP addresses
}

// virtual is Listen with IPVS.
func (c EndpointConfig) virtual() netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.Listen)
	return a
}

func (c EndpointConfig) validate() error {
	if len(c.Servers) == 0 {
		return errors.New("servers: there is none")
	}
	for _, a := range append([]string{c.Listen}, c.Servers...) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("%q is not host:port", a)
		}
		if _, err := netip.ParseAddrPort(a); c.IPVS && err != nil {
			return fmt.Errorf("%q is not an IP address with a port", a)
		}
	}
	return nil
}

func (n *Node) endpointDir() string  { return filepath.Join(n.root, "endpoint") }
func (n *Node) endpointFile() string { return filepath.Join(n.endpointDir(), "config.json") }

// SetEndpoint keeps the configuration. A balancer that runs follows it.
func (n *Node) SetEndpoint(c EndpointConfig) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("preparing the endpoint: %w", err)
	}
	if err := os.MkdirAll(n.endpointDir(), 0o700); err != nil {
		return fmt.Errorf("preparing the endpoint: %w", err)
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeIfOther(n.endpointFile(), append(data, '\n'))
}

func (n *Node) endpointConfig() (c EndpointConfig, err error) {
	f, err := os.Open(n.endpointFile())
	if err != nil {
		return c, fmt.Errorf("finding the endpoint's configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := readJSON(f, "the endpoint's configuration", &c); err != nil {
		return c, err
	}
	return c, c.validate()
}

// ServeEndpoint balances connections until ctx ends. The list of servers is read again as it changes, and follows what the cluster says.
func (n *Node) ServeEndpoint(ctx context.Context) error {
	c, err := n.endpointConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { n.follow(ctx) })
	defer following.Wait()
	defer cancel()
	if c.IPVS {
		return ipvs.Serve(ctx, ipvs.Options{Service: c.virtual(), Servers: n.endpointServers, Logger: n.log})
	}
	return balance.Serve(ctx, balance.Options{Listen: c.Listen, Servers: n.endpointServers, Logger: n.log})
}

// InstallEndpoint keeps the configuration, runs the balancer as a unit, and waits until it takes connections.
func (n *Node) InstallEndpoint(ctx context.Context, c EndpointConfig, o UnitOptions) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	if c.IPVS {
		if err := n.prepareIPVS(); err != nil {
			return err
		}
	}
	old, oldErr := n.endpointConfig()
	if err := n.SetEndpoint(c); err != nil {
		return err
	}
	u := systemUnit{
		name:    EndpointUnit,
		command: "endpoint serve",
		text:    func(sandbox bool) string { return n.endpointUnit(o.Program, sandbox, c.IPVS) },
		answers: func(ctx context.Context) error {
			if c.IPVS {
				return ipvs.Held(c.virtual())
			}
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", c.Listen)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
	if oldErr == nil && old.Listen != c.Listen {
		u.since = n.endpointFile()
	}
	if err := n.install(ctx, u, o); err != nil {
		return err
	}
	switch { // what was there has served until now
	case oldErr == nil && old.IPVS && !c.IPVS:
		return n.removeIPVS(old)
	case oldErr == nil && old.IPVS && old.Listen != c.Listen:
		return ipvs.Remove(old.virtual())
	}
	return nil
}

// ipvsFile keeps the kernel's settings as they were.
func (n *Node) ipvsFile() string { return filepath.Join(n.endpointDir(), "ipvs.json") }

// prepareIPVS makes sure that the kernel has IPVS. What it changes is noted, for removeIPVS.
func (n *Node) prepareIPVS() error {
	before, err := ipvs.Prepare()
	if err != nil {
		return err
	}
	if _, err := os.Stat(n.ipvsFile()); err == nil {
		return nil
	}
	if err := os.MkdirAll(n.endpointDir(), 0o700); err != nil {
		return fmt.Errorf("preparing the endpoint: %w", err)
	}
	data, err := json.Marshal(before)
	if err != nil {
		return err
	}
	return writeIfOther(n.ipvsFile(), append(data, '\n'))
}

// removeIPVS leaves the kernel as it was.
func (n *Node) removeIPVS(c EndpointConfig) error {
	if err := ipvs.Remove(c.virtual()); err != nil {
		return err
	}
	f, err := os.Open(n.ipvsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the kernel's settings: %w", err)
	}
	var before ipvs.Settings
	if err := errors.Join(readJSON(f, "the kernel's settings", &before), f.Close()); err != nil {
		return err
	}
	if err := before.Set(); err != nil {
		return err
	}
	return os.Remove(n.ipvsFile())
}

// UninstallEndpoint stops and removes the unit, its configuration and its rules. What is not there is no error.
func (n *Node) UninstallEndpoint(ctx context.Context) error {
	if err := n.uninstall(ctx, EndpointUnit); err != nil {
		return err
	}
	if c, err := n.endpointConfig(); err == nil && c.IPVS {
		if err := n.removeIPVS(c); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(n.endpointDir()); err != nil {
		return fmt.Errorf("removing the endpoint: %w", err)
	}
	return nil
}

func (n *Node) endpointUnit(program string, sandbox, ipvs bool) string {
	text := fmt.Sprintf(`# Written by sealer-node; "sealer-node endpoint uninstall" removes it.
[Unit]
Description=sealer's way to the API servers of this cluster
Wants=network-online.target
After=network-online.target
Before=kubelet.service
StartLimitIntervalSec=0

[Service]
ExecStart=%s --root %s endpoint serve
Restart=always
RestartSec=1
LimitNOFILE=1048576
UMask=0077
`, quoteUnit(program), n.quotedRoot())
	switch {
	case sandbox && ipvs:
		text += changingNetwork(sandboxing(0))
	case sandbox:
		text += sandboxing(0)
	}
	if sandbox {
		text += "ReadWritePaths=" + quoteUnit(n.endpointDir()) + "\n"
	}
	return text + "\n[Install]\nWantedBy=multi-user.target\n"
}

// changingNetwork allows a sandbox what IPVS takes: rules, routes, a module and settings of the kernel.
func changingNetwork(sandbox string) string {
	return strings.NewReplacer(
		"CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n", "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_SYS_MODULE\n",
		"ProtectKernelTunables=yes\n", "", "ProtectKernelModules=yes\n", "",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n",
	).Replace(sandbox)
}
