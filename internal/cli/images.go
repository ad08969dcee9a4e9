// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// imageRow is one line of 'sealer images'.
type imageRow struct {
	Name      string   `json:"name"`
	Digest    string   `json:"digest"`
	Runtime   string   `json:"runtime,omitempty"`
	Platforms []string `json:"platforms,omitempty"`
	Images    int      `json:"images"` // container images inside
	Size      int64    `json:"size"`   // bytes of all blobs, each once
}

func newImages(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "images",
		Aliases: []string{"ls"},
		Short:   "List the images of the local store",
		Example: "  sealer images\n  sealer images -o json",
		Args:    noArgs,
	}
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		defer a.close(&err)
		st, err := a.openStore()
		if err != nil {
			return err
		}
		tags, err := st.List(cmd.Context())
		if err != nil {
			return err
		}
		rows := make([]imageRow, 0, len(tags))
		for _, tag := range tags {
			if _, ok := store.Signed(tag.Name); ok {
				continue // shown by inspect, with what they sign
			}
			row, err := describe(cmd.Context(), st, tag)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return a.print(cmd, output, rows, func(t *table) {
			t.line("NAME", "DIGEST", "RUNTIME", "PLATFORMS", "IMAGES", "SIZE")
			for _, r := range rows {
				t.line(r.Name, short(r.Digest), r.Runtime, strings.Join(r.Platforms, ","), fmt.Sprint(r.Images), size(r.Size))
			}
		})
	}
	return cmd
}

// short cuts a digest to what people compare.
func short(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok || len(hex) < 12 {
		return d
	}
	return hex[:12]
}

func describe(ctx context.Context, st *store.Store, tag store.Tagged) (imageRow, error) {
	row := imageRow{Name: tag.Name, Digest: tag.Descriptor.Digest.String()}
	img, err := clusterimage.Read(ctx, st.Content(), tag.Descriptor)
	if _, ok := errors.AsType[*clusterimage.NotClusterImageError](err); ok { // an ordinary image, pulled to be built from
		row.Size = tag.Descriptor.Size
		return row, nil
	}
	if err != nil {
		return imageRow{}, fmt.Errorf("reading image %q: %w", tag.Name, err)
	}
	row.Images = len(img.Images)
	for _, r := range img.Rootfs {
		row.Platforms = append(row.Platforms, platforms.Format(r.Platform))
		if kind := r.Config.Config.Labels[clusterimage.LabelClusterRuntime]; kind != "" {
			row.Runtime = strings.TrimSpace(kind + " " + r.Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion])
		}
	}
	blobs, err := img.Descriptors(ctx, st.Content(), nil)
	if err != nil {
		return imageRow{}, fmt.Errorf("reading image %q: %w", tag.Name, err)
	}
	for _, b := range blobs {
		row.Size += b.Size
	}
	return row, nil
}

// inspection is what 'sealer inspect' prints.
type inspection struct {
	Name      string             `json:"name"`
	Digest    string             `json:"digest"`
	MediaType string             `json:"mediaType"`
	Rootfs    []rootfsInspection `json:"rootfs"`
	Images    []imageInspection  `json:"images"`
}

type rootfsInspection struct {
	Platform  string                 `json:"platform"`
	Digest    string                 `json:"digest"`
	Labels    map[string]string      `json:"labels,omitempty"`
	Env       []string               `json:"env,omitempty"`
	Extension clusterimage.Extension `json:"clusterImage"`
	Layers    []ocispec.Descriptor   `json:"layers"`
}

type imageInspection struct {
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Digest   string   `json:"digest"`
	Index    string   `json:"index,omitempty"`
	Size     int64    `json:"size"`
	Origins  []string `json:"origins,omitempty"`
	App      string   `json:"app,omitempty"`
}

func newInspect(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "inspect IMAGE",
		Short:   "Show what a ClusterImage of the local store holds",
		Example: "  sealer inspect shop:v1\n  sealer inspect shop:v1 -o json | jq '.images[].name'",
		Args:    exactArgs("IMAGE"),
	}
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		st, err := a.openStore()
		if err != nil {
			return err
		}
		tag, err := st.Resolve(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		img, err := clusterimage.Read(cmd.Context(), st.Content(), tag.Descriptor)
		if err != nil {
			return fmt.Errorf("reading image %q: %w", args[0], err)
		}
		value := inspect(tag, img)
		return a.print(cmd, output, value, func(t *table) { value.write(t) })
	}
	return cmd
}

func inspect(tag store.Tagged, img *clusterimage.Image) inspection {
	value := inspection{
		Name: tag.Name, Digest: tag.Descriptor.Digest.String(), MediaType: tag.Descriptor.MediaType,
		Rootfs: []rootfsInspection{}, Images: []imageInspection{},
	}
	for _, r := range img.Rootfs {
		value.Rootfs = append(value.Rootfs, rootfsInspection{
			Platform: platforms.Format(r.Platform), Digest: r.Descriptor.Digest.String(),
			Labels: r.Config.Config.Labels, Env: r.Config.Config.Env, Extension: r.Extension, Layers: r.Manifest.Layers,
		})
	}
	for _, i := range img.Images {
		row := imageInspection{
			Name: i.Name, Platform: i.Platform, Digest: i.Manifest.Digest.String(),
			Size: i.Size, Origins: i.Origins, App: i.App,
		}
		if i.Index != nil {
			row.Index = i.Index.Digest.String()
		}
		value.Images = append(value.Images, row)
	}
	return value
}

func (i inspection) write(t *table) {
	t.line("Name:", i.Name)
	t.line("Digest:", i.Digest)
	for _, r := range i.Rootfs {
		t.line("Rootfs:", r.Platform+"  "+r.Digest)
		t.line("  Runtime:", strings.TrimSpace(r.Labels[clusterimage.LabelClusterRuntime]+" "+r.Labels[clusterimage.LabelClusterRuntimeVersion]))
		t.line("  Type:", r.Extension.Type)
		for _, c := range r.Extension.Launch.Cmds {
			t.line("  Command:", c)
		}
	}
	t.line()
	t.line("IMAGE", "PLATFORM", "DIGEST", "SIZE", "FROM")
	for _, image := range i.Images {
		t.line(image.Name, image.Platform, short(image.Digest), size(image.Size), strings.Join(image.Origins, ", "))
	}
}

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "tag IMAGE NAME",
		Short:   "Give an image of the local store another name",
		Example: "  sealer tag shop:v1 registry.example.com/team/shop:v1",
		Args:    exactArgs("IMAGE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			defer a.close(&err)
			st, err := a.openStore()
			if err != nil {
				return err
			}
			image, err := st.Resolve(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return st.Tag(cmd.Context(), args[1], image.Descriptor)
		},
	}
}

func newRmi(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rmi IMAGE...",
		Short: "Remove names of images from the local store",
		Long: `rmi removes names. The content that no other image needs stays until 'sealer prune',
so that an image removed by mistake is pulled again without a byte.`,
		Example: "  sealer rmi shop:v1\n  sealer rmi shop:v1 shop:v2 && sealer prune",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(cmd, "IMAGE is missing")
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		st, err := a.openStore()
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range args {
			errs = append(errs, a.removeName(cmd.Context(), st, name))
		}
		return errors.Join(errs...)
	}
	return cmd
}

func (a *app) removeName(ctx context.Context, st *store.Store, name string) error {
	image, err := st.Resolve(ctx, name)
	if err != nil {
		return err
	}
	if err := st.Untag(ctx, image.Name); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.streams.Out, image.Name)
	return err
}
