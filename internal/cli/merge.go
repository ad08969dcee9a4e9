// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/join"
	"github.com/sealerio/sealer/store"
)

// The values of merge's --on-conflict.
const (
	conflictError = "error"
	conflictLast  = "last"
)

func newMerge(a *app) *cobra.Command {
	var tag, onConflict string
	var wanted []string
	cmd := &cobra.Command{
		Use:   "merge IMAGE IMAGE... -t NAME",
		Short: "Make one ClusterImage of several",
		Long: `merge stacks ClusterImages in the order in which they are named: the layers of their rootfs, what they launch,
their variables and their packed images. Nothing is written again, and layers that they share count once.
All in which the images disagree is listed: files, packed images of one name, applications, variables, versions of Kubernetes.`,
		Example: `  sealer merge kubernetes:v1.36.3 calico:v3 shop:v1 -t shop-complete:v1
  sealer merge base:v1 patch:v1 -t base:v2 --on-conflict last`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef(cmd, "merge wants two images or more")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&tag, "tag", "t", "", "name of the merged image")
	f.StringVar(&onConflict, "on-conflict", conflictError, "error, or last: take what the later image has")
	f.StringSliceVar(&wanted, "platform", nil, "only these platforms, such as linux/amd64 (default: all that the images have)")
	mustComplete(cmd, "on-conflict", []string{conflictError, conflictLast})
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if tag == "" {
			return usagef(cmd, "--tag is missing")
		}
		if onConflict != conflictError && onConflict != conflictLast {
			return usagef(cmd, "--on-conflict %q is not one of %s, %s", onConflict, conflictError, conflictLast)
		}
		list, err := parsePlatforms(cmd, wanted)
		if err != nil {
			return err
		}
		return a.changeList(cmd, tag, func(ctx context.Context, st *store.Store) (_ ocispec.Descriptor, err error) {
			images := make([]store.Tagged, 0, len(args))
			for _, name := range args {
				image, err := a.have(ctx, cmd, st, name)
				if err != nil {
					return ocispec.Descriptor{}, err
				}
				images = append(images, image)
			}
			task := a.display.Task("merge " + tag)
			defer func() { task.Done(err) }()
			return join.Merge(ctx, st.Content(), images, join.MergeOptions{Platforms: list, Last: onConflict == conflictLast})
		})
	}
	return cmd
}
