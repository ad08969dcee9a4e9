// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/signature"
	"github.com/sealerio/sealer/store"
)

func newCopy(a *app) *cobra.Command {
	var wanted []string
	var signatures bool
	cmd := &cobra.Command{
		Use:   "copy SOURCE TARGET",
		Short: "Copy an image from one registry, or repository, to another",
		Long: `copy copies an image between registries without a copy on this machine: layers are sent on as they
are read, each verified on the way, and within one registry they are taken over there. The digest stays the same, and is
printed; with --platform it is that of an image of these platforms alone.`,
		Example: `  sealer copy registry.example.com/team/shop:v1 mirror.site.example.com/team/shop:v1
  sealer copy registry.example.com/team/shop:v1 registry.example.com/released/shop:v1`,
		Args: exactArgs("SOURCE", "TARGET"),
	}
	cmd.Flags().StringSliceVar(&wanted, "platform", nil, "only these platforms, such as linux/amd64 (default: all that the image has)")
	cmd.Flags().BoolVar(&signatures, "signatures", true, "copy the image's signatures too")
	a.addJobs(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		list, err := parsePlatforms(cmd, wanted)
		if err != nil {
			return err
		}
		defer a.close(&err)
		st, err := a.openWork(cmd)
		if err != nil {
			return err
		}
		from, to := args[0], args[1]
		task := a.display.Task("copy " + from + " to " + to)
		defer func() { task.Done(err) }()
		client, err := a.openRegistry(cmd, task)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		desc, err := client.Copy(ctx, st, from, to, registry.CopyOptions{Platforms: list})
		if err != nil {
			return err
		}
		if signatures {
			if err := copySignatures(ctx, client, st, from, to, desc); err != nil {
				return err
			}
		}
		return a.printDigest(desc)
	}
	return cmd
}

// copySignatures takes the way through the store, where signatures are joined
// with those that the target has.
func copySignatures(ctx context.Context, client *registry.Client, st *store.Store, from, to string, desc ocispec.Descriptor) error {
	if _, err := signature.Pull(ctx, client, st, from, desc); err != nil {
		return err
	}
	_, err := signature.Push(ctx, client, st, desc, to)
	return err
}

// pushImage pushes an image, or some platforms of it. For one that is not whole
// it says which platforms are there.
func pushImage(ctx context.Context, client *registry.Client, st *store.Store, image store.Tagged, list []ocispec.Platform, target string) (desc ocispec.Descriptor, err error) {
	release, err := st.Hold(ctx) // the index of some platforms has no tag
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	desc, err = clusterimage.Select(ctx, st.Content(), image.Descriptor, list)
	if pe, ok := errors.AsType[*clusterimage.PlatformError](err); ok {
		pe.Image = image.Name
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pushing %s: %w", image.Name, err)
	}
	pushed, err := client.Push(ctx, st, desc, target)
	if ie, ok := errors.AsType[*registry.IncompleteError](err); ok {
		have, named, perr := ship.Platforms(ctx, st, image.Descriptor)
		if perr == nil || errdefs.IsNotFound(perr) {
			return ocispec.Descriptor{}, &ship.IncompleteError{Image: image.Name, Missing: ie.Missing, Have: formatPlatforms(have), Named: formatPlatforms(named)}
		}
	}
	return pushed, err
}

func formatPlatforms(list []ocispec.Platform) []string {
	out := make([]string, 0, len(list))
	for _, p := range list {
		out = append(out, platforms.Format(platforms.Normalize(p)))
	}
	return out
}
