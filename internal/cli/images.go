// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/inspect"
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
	cmd.AddCommand(newImagesList(a))
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
	d, err := inspect.Summarize(ctx, inspect.InStore(st, tag))
	if err != nil {
		return imageRow{}, err
	}
	row.Images, row.Size = len(d.Images), d.Size
	for _, r := range d.Rootfs {
		row.Platforms = append(row.Platforms, r.Platform)
		if kind := r.Labels[clusterimage.LabelClusterRuntime]; kind != "" {
			row.Runtime = strings.TrimSpace(kind + " " + r.Labels[clusterimage.LabelClusterRuntimeVersion])
		}
	}
	return row, nil
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
