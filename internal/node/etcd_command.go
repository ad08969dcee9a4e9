// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"

	"github.com/spf13/cobra"
)

func (c *commands) etcd() *cobra.Command {
	var client EtcdClient
	members := c.leaf("members", "List the members of etcd", func(ctx context.Context, _ *Node) (any, error) {
		members, err := client.Members(ctx)
		if err != nil {
			return nil, err
		}
		return members, nil
	})
	var id string
	remove := c.leaf("remove", "Take a member out of etcd", func(ctx context.Context, _ *Node) (any, error) {
		return nil, client.Remove(ctx, id)
	})
	remove.Flags().StringVar(&id, "id", "", "number of the member, as members prints it")
	cmd := group("etcd", "The etcd of this host", members, remove)
	for _, sub := range cmd.Commands() {
		sub.Flags().StringVar(&client.Endpoint, "endpoint", "https://127.0.0.1:2379", "where it listens")
		sub.Flags().StringVar(&client.CACert, "cacert", "", "file of its CA")
		sub.Flags().StringVar(&client.Cert, "cert", "", "file of the client's certificate")
		sub.Flags().StringVar(&client.KeyPEM, "key", "", "file of the client's key")
		required := []string{"cacert", "cert", "key"}
		if sub == remove {
			required = append(required, "id")
		}
		require(sub, required...)
	}
	return cmd
}
