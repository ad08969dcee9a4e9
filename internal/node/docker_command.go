// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// dockerImages are the commands about the host's own docker, where that runs the cluster's containers.
func (c *commands) dockerImages() *cobra.Command {
	wanted := func() (a DockerAccess, err error) {
		return a, readJSON(c.In, "the list of images", &a)
	}
	lacks := c.leaf("lacks", "Tell which of the images on standard input docker does not have", func(ctx context.Context, n *Node) (any, error) {
		a, err := wanted()
		if err != nil {
			return nil, err
		}
		return n.LackedByDocker(ctx, a)
	})
	bring := c.leaf("bring", "Have docker pull the images on standard input, under their own names", func(ctx context.Context, n *Node) (any, error) {
		a, err := wanted()
		if err != nil {
			return nil, err
		}
		return nil, n.BringToDocker(ctx, a)
	})
	list := c.leaf("list", "Print the images that were brought to docker", func(_ context.Context, n *Node) (any, error) { return n.DockerImages() })
	lost := c.leaf("lost", "Print the images that were brought to docker, and that it has no more", func(ctx context.Context, n *Node) (any, error) {
		return n.LostByDocker(ctx)
	})
	var image string
	drop := c.leaf("drop", "Take back what was brought to docker for a ClusterImage alone", func(ctx context.Context, n *Node) (any, error) {
		d, err := digest.Parse(image)
		if err != nil {
			return nil, usageError{fmt.Errorf("--image %q: %w", image, err)}
		}
		return nil, n.DropFromDocker(ctx, d)
	})
	drop.Flags().StringVar(&image, "image", "", "digest of the ClusterImage")
	require(drop, "image")
	return group("docker", "The host's own docker", lacks, bring, list, lost, drop)
}
