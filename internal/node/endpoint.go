// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sealerio/sealer/internal/balance"
)

// EndpointUnit is the systemd unit that runs `sealer-node endpoint serve`.
const EndpointUnit = "sealer-endpoint.service"

// EndpointConfig says where a host reaches the API servers through a balancer of its own.
type EndpointConfig struct {
	Listen  string   `json:"listen"`  // host:port
	Servers []string `json:"servers"` // host:port of each API server
}

func (c EndpointConfig) validate() error {
	if len(c.Servers) == 0 {
		return errors.New("servers: there is none")
	}
	for _, a := range append([]string{c.Listen}, c.Servers...) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("%q is not host:port", a)
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

// ServeEndpoint balances connections until ctx ends. The list of servers is read again as it changes.
func (n *Node) ServeEndpoint(ctx context.Context) error {
	c, err := n.endpointConfig()
	if err != nil {
		return err
	}
	return balance.Serve(ctx, balance.Options{
		Listen: c.Listen,
		Servers: func() ([]string, error) {
			c, err := n.endpointConfig()
			return c.Servers, err
		},
		Logger: n.log,
	})
}

// InstallEndpoint keeps the configuration, runs the balancer as a unit, and waits until it takes connections.
func (n *Node) InstallEndpoint(ctx context.Context, c EndpointConfig, o UnitOptions) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	old, oldErr := n.endpointConfig()
	if err := n.SetEndpoint(c); err != nil {
		return err
	}
	u := systemUnit{
		name:    EndpointUnit,
		command: "endpoint serve",
		text:    func(sandbox bool) string { return n.endpointUnit(o.Program, sandbox) },
		answers: func(ctx context.Context) error {
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
	return n.install(ctx, u, o)
}

// UninstallEndpoint stops and removes the unit and its configuration. What is not there is no error.
func (n *Node) UninstallEndpoint(ctx context.Context) error {
	if err := n.uninstall(ctx, EndpointUnit); err != nil {
		return err
	}
	if err := os.RemoveAll(n.endpointDir()); err != nil {
		return fmt.Errorf("removing the endpoint: %w", err)
	}
	return nil
}

func (n *Node) endpointUnit(program string, sandbox bool) string {
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
	if sandbox {
		text += sandboxing(0)
	}
	return text + "\n[Install]\nWantedBy=multi-user.target\n"
}
