// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func (c *commands) endpoint() *cobra.Command {
	var unit UnitOptions
	install := c.leaf("install", "Run the balancer of the configuration on standard input as a systemd unit", func(ctx context.Context, n *Node) (any, error) {
		var config EndpointConfig
		if err := readJSON(c.In, "the endpoint's configuration", &config); err != nil {
			return nil, err
		}
		return nil, n.InstallEndpoint(ctx, config, unit)
	})
	install.Flags().DurationVar(&unit.Timeout, "timeout", time.Minute, "how long to wait for it to listen")
	serve := c.leaf("serve", "Balance connections until told to stop; the systemd unit runs it", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.ServeEndpoint(ctx)
	})
	uninstall := c.leaf("uninstall", "Stop the balancer and remove its unit", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.UninstallEndpoint(ctx)
	})
	var server string
	check := c.leaf("check", "Tell whether an API server is ready; keepalived asks this of the one beside it", func(ctx context.Context, _ *Node) (any, error) {
		return nil, CheckServer(ctx, server)
	})
	check.Flags().StringVar(&server, "server", "", "host:port of the API server")
	require(check, "server")
	reach := c.leaf("reach", "Tell whether the API servers of the cluster with the CA on standard input are reached", func(ctx context.Context, _ *Node) (any, error) {
		var way Way
		if err := readJSON(c.In, "the way to the API servers", &way); err != nil {
			return nil, err
		}
		return way.Try(ctx)
	})
	return group("endpoint", "This host's way to the API servers", install, serve, uninstall, check, reach)
}
