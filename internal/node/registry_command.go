// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"

	"github.com/spf13/cobra"
)

// registryMoves are the commands by which another registry takes the place of this host's, or another login and CA that of its own.
func (c *commands) registryMoves() []*cobra.Command {
	var to, prefix string
	push := c.leaf("push", "Send all images to another registry, with the credentials on standard input", func(ctx context.Context, n *Node) (any, error) {
		var access RegistryAccess
		if err := readJSON(c.In, "the registry's credentials", &access); err != nil {
			return nil, err
		}
		return n.PushRegistry(ctx, to, prefix, access)
	})
	push.Flags().StringVar(&to, "to", "", "the registry, as references name it")
	push.Flags().StringVar(&prefix, "prefix", "", "prefix of its repositories")
	require(push, "to")
	remove := c.leaf("remove", "Stop the registry, and take away all that it has", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.RemoveRegistry(ctx)
	})
	accept := c.leaf("accept", "Take the login on standard input beside the registry's own, and trust its CA", func(_ context.Context, n *Node) (any, error) {
		var access RegistryAccess
		if err := readJSON(c.In, "the registry's credentials", &access); err != nil {
			return nil, err
		}
		return nil, n.AcceptRegistry(access)
	})
	leave := c.leaf("leave", "Take no other login than the registry's own any more", func(_ context.Context, n *Node) (any, error) {
		return nil, n.LeaveRegistry()
	})
	return []*cobra.Command{push, remove, accept, leave}
}
