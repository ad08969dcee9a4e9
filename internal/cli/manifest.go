// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/join"
	"github.com/sealerio/sealer/store"
)

func newManifest(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "Join images for several platforms under one name",
		Long: `manifest makes and changes indexes: one name for images of several platforms. ClusterImages make one
ClusterImage, with the rootfs and the packed images of each.`,
		Example: `  sealer manifest create shop:v1 shop:v1-amd64 shop:v1-arm64
  sealer manifest push shop:v1 registry.example.com/team/shop:v1`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newManifestCreate(a), newManifestAdd(a), newManifestAnnotate(a), newManifestRemove(a),
		newManifestInspect(a), newManifestPush(a), newManifestRm(a))
	return cmd
}

// entryFlags say how an image stands in an index.
type entryFlags struct {
	platform    ocispec.Platform
	annotations []string
}

func (e *entryFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.platform.OS, "os", "", "operating system of the entry")
	f.StringVar(&e.platform.Architecture, "arch", "", "architecture of the entry")
	f.StringVar(&e.platform.Variant, "variant", "", "variant of the architecture")
	f.StringVar(&e.platform.OSVersion, "os-version", "", "version of the operating system")
	f.StringSliceVar(&e.platform.OSFeatures, "os-features", nil, "features of the operating system")
	f.StringArrayVar(&e.annotations, "annotation", nil, "annotation of the entry (KEY=VALUE, repeatable; an empty value takes one away)")
}

func (e *entryFlags) entry(cmd *cobra.Command) (join.Entry, error) {
	out := join.Entry{Platform: e.platform, Annotations: map[string]string{}}
	for _, text := range e.annotations {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return join.Entry{}, usagef(cmd, "--annotation %q is not KEY=VALUE", text)
		}
		out.Annotations[key] = value
	}
	return out, nil
}

// changeList is a command that writes an index under a name and prints its digest.
func (a *app) changeList(cmd *cobra.Command, name string, change func(context.Context, *store.Store) (ocispec.Descriptor, error)) (err error) {
	defer a.close(&err)
	st, err := a.openWork(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	desc, err := change(ctx, st)
	if err != nil {
		return err
	}
	if err := st.Tag(ctx, name, desc); err != nil {
		return err
	}
	return a.printDigest(desc)
}

func newManifestCreate(a *app) *cobra.Command {
	var amend bool
	cmd := &cobra.Command{
		Use:     "create LIST [IMAGE...]",
		Short:   "Make an index, of images if some are given",
		Example: "  sealer manifest create shop:v1 shop:v1-amd64 shop:v1-arm64",
		Args:    atLeast("LIST"),
	}
	cmd.Flags().BoolVarP(&amend, "amend", "a", false, "add to the index where there is one of the name")
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.changeList(cmd, args[0], func(ctx context.Context, st *store.Store) (ocispec.Descriptor, error) {
			list, err := startList(ctx, st, args[0], amend)
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			for _, name := range args[1:] {
				image, err := a.have(ctx, cmd, st, name)
				if err != nil {
					return ocispec.Descriptor{}, err
				}
				if list.Descriptor, err = join.Add(ctx, st.Content(), list, image, join.Entry{}); err != nil {
					return ocispec.Descriptor{}, err
				}
			}
			return list.Descriptor, nil
		})
	}
	return cmd
}

// startList is an index of nothing, or the one of the name with amend.
func startList(ctx context.Context, st *store.Store, name string, amend bool) (store.Tagged, error) {
	have, err := st.Resolve(ctx, name)
	if err == nil && amend {
		return have, nil
	}
	if err == nil {
		return store.Tagged{}, fmt.Errorf("creating %s: there is an image of that name; --amend adds to it", have.Name)
	}
	if _, ok := errors.AsType[*store.NotFoundError](err); !ok {
		return store.Tagged{}, err
	}
	desc, err := join.NewIndex(ctx, st.Content())
	return store.Tagged{Name: name, Descriptor: desc}, err
}

// have finds an image in the store, or pulls it.
func (a *app) have(ctx context.Context, cmd *cobra.Command, st *store.Store, name string) (store.Tagged, error) {
	image, err := st.Resolve(ctx, name)
	if _, ok := errors.AsType[*store.NotFoundError](err); !ok {
		return image, err
	}
	if _, err := a.pull(ctx, cmd, st, name, nil); err != nil {
		return store.Tagged{}, err
	}
	return st.Resolve(ctx, name)
}

func newManifestAdd(a *app) *cobra.Command {
	var e entryFlags
	cmd := &cobra.Command{
		Use:     "add LIST IMAGE",
		Short:   "Add an image, with all its platforms, to an index",
		Example: "  sealer manifest add shop:v1 shop:v1-arm64",
		Args:    exactArgs("LIST", "IMAGE"),
	}
	e.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entry, err := e.entry(cmd)
		if err != nil {
			return err
		}
		return a.changeList(cmd, args[0], func(ctx context.Context, st *store.Store) (ocispec.Descriptor, error) {
			list, err := st.Resolve(ctx, args[0])
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			image, err := a.have(ctx, cmd, st, args[1])
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			return join.Add(ctx, st.Content(), list, image, entry)
		})
	}
	return cmd
}

func newManifestAnnotate(a *app) *cobra.Command {
	var e entryFlags
	cmd := &cobra.Command{
		Use:     "annotate LIST ENTRY",
		Short:   "Change what an index says of an entry, named by platform or digest",
		Example: "  sealer manifest annotate shop:v1 linux/arm64 --annotation com.example.tested=yes",
		Args:    exactArgs("LIST", "ENTRY"),
	}
	e.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entry, err := e.entry(cmd)
		if err != nil {
			return err
		}
		return a.changeList(cmd, args[0], func(ctx context.Context, st *store.Store) (ocispec.Descriptor, error) {
			list, err := st.Resolve(ctx, args[0])
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			return join.Annotate(ctx, st.Content(), list, args[1], entry)
		})
	}
	return cmd
}

func newManifestRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove LIST ENTRY",
		Short:   "Take an entry, named by platform or digest, out of an index",
		Example: "  sealer manifest remove shop:v1 linux/arm64",
		Args:    exactArgs("LIST", "ENTRY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeList(cmd, args[0], func(ctx context.Context, st *store.Store) (ocispec.Descriptor, error) {
				list, err := st.Resolve(ctx, args[0])
				if err != nil {
					return ocispec.Descriptor{}, err
				}
				return join.Remove(ctx, st.Content(), list, args[1])
			})
		},
	}
}

func newManifestInspect(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "inspect LIST",
		Short:   "Print an index or manifest, of the local store or else of the registry",
		Example: "  sealer manifest inspect registry.example.com/team/shop:v1",
		Args:    exactArgs("LIST"),
	}
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		st, err := a.openStore()
		if err != nil {
			return err
		}
		data, err := a.readManifest(cmd, st, args[0])
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := json.Indent(&text, data, "", "  "); err != nil {
			return fmt.Errorf("reading %s: %w", args[0], err)
		}
		_, err = fmt.Fprintln(a.streams.Out, text.String())
		return err
	}
	return cmd
}

func (a *app) readManifest(cmd *cobra.Command, st *store.Store, name string) ([]byte, error) {
	ctx := cmd.Context()
	image, err := st.Resolve(ctx, name)
	if err == nil {
		return clusterimage.ReadBlob(ctx, st.Content(), image.Descriptor)
	}
	if _, ok := errors.AsType[*store.NotFoundError](err); !ok {
		return nil, err
	}
	client, err := a.openRegistry(cmd, nil)
	if err != nil {
		return nil, err
	}
	repo, err := client.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return nil, err
	}
	return clusterimage.ReadBlob(ctx, repo, desc)
}

func newManifestPush(a *app) *cobra.Command {
	var rm, signatures bool
	cmd := &cobra.Command{
		Use:     "push LIST [TARGET]",
		Short:   "Send an index with all its images to a registry",
		Example: "  sealer manifest push shop:v1 registry.example.com/team/shop:v1",
		Args:    atLeast("LIST"),
	}
	cmd.Flags().BoolVar(&rm, "rm", false, "remove the index's name here once it is there")
	cmd.Flags().BoolVar(&signatures, "signatures", true, "send the image's signatures too")
	a.addJobs(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if len(args) > 2 {
			return usagef(cmd, "unexpected argument %q", args[2])
		}
		defer a.close(&err)
		st, err := a.openWork(cmd)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		list, err := st.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		target := args[len(args)-1]
		if len(args) == 1 {
			target = list.Name
		}
		desc, err := a.push(ctx, cmd, st, list, nil, target, signatures)
		if err != nil {
			return err
		}
		if rm {
			if err := st.Untag(ctx, list.Name); err != nil {
				return err
			}
		}
		return a.printDigest(desc)
	}
	return cmd
}

func newManifestRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm LIST...",
		Aliases: []string{"delete"},
		Short:   "Remove names of indexes from the local store",
		Example: "  sealer manifest rm shop:v1",
		Args:    atLeast("LIST"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			defer a.close(&err)
			return a.removeAll(cmd.Context(), args, false)
		},
	}
}

// atLeast wants one argument or more.
func atLeast(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(cmd, "%s is missing", name)
		}
		return nil
	}
}
