// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

// The values of save's --format.
const (
	formatOCI    = "oci-archive"
	formatDocker = "docker-archive"
)

// saving are the flags of 'sealer save'.
type saving struct {
	output, format   string
	platforms, since []string
	split            string
	signatures       bool
}

func newSave(a *app) *cobra.Command {
	var o saving
	cmd := &cobra.Command{
		Use:   "save IMAGE...",
		Short: "Write images of the local store to an archive",
		Long: `save writes one or more images to a file, a set of files or a pipe: a plain tar of an OCI layout,
which 'sealer load', skopeo (oci-archive:), docker and podman read. A file appears whole or not at all.
With --since, what another image has is left out; 'sealer load' then wants that image first.
The names of the files that were written are printed.`,
		Example: `  sealer save registry.example.com/team/shop:v1 -o shop.tar
  sealer save shop:v1 base:v1 -o - | ssh site sealer load
  sealer save shop:v1 -o shop.tar --split 4GiB
  sealer save shop:v2 -o shop-v1-v2.tar --since shop:v1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(cmd, "IMAGE is missing")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "file to write; - is standard output (default: standard output where it is no terminal)")
	f.StringVar(&o.format, "format", formatOCI, "oci-archive, or docker-archive: the rootfs of one platform alone, for tools that read nothing else")
	f.StringSliceVar(&o.platforms, "platform", nil, "only these platforms, such as linux/amd64 (default: all that the images have)")
	f.StringSliceVar(&o.since, "since", nil, "leave out what these images have")
	f.StringVar(&o.split, "split", "", "write parts of at most this size, such as 4GiB: FILE.000, FILE.001 and so on, with their digests in FILE.parts")
	f.BoolVar(&o.signatures, "signatures", true, "save the images' signatures too")
	mustComplete(cmd, "format", []string{formatOCI, formatDocker})
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := o.check(cmd, isTerminalWriter(a.streams.Out)); err != nil {
			return err
		}
		if err := a.openDisplay(cmd); err != nil {
			return err
		}
		defer a.close(&err)
		return a.save(cmd, args, o)
	}
	return cmd
}

func isTerminalWriter(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}

func (o *saving) check(cmd *cobra.Command, terminal bool) error {
	if o.output == "" {
		o.output = "-"
	}
	switch {
	case o.output == "-" && terminal:
		return usagef(cmd, "an archive is not written to a terminal: give a file with --output")
	case o.format != formatOCI && o.format != formatDocker:
		return usagef(cmd, "--format %q is not one of %s, %s", o.format, formatOCI, formatDocker)
	case o.format == formatDocker && len(o.since) > 0:
		return usagef(cmd, "--since works with --format %s only", formatOCI)
	case o.format == formatDocker && len(o.platforms) > 1:
		return usagef(cmd, "--format %s holds one platform, not %d", formatDocker, len(o.platforms))
	case o.split != "" && o.output == "-":
		return usagef(cmd, "--split wants a file: give one with --output")
	}
	return nil
}

// partSize reads a size such as 4GiB, 700MB or 1000000; 4G and 4GB are 4 × 1000³ bytes.
func partSize(text string) (int64, error) {
	if strings.Contains(strings.ToLower(text), "i") {
		return units.RAMInBytes(text)
	}
	return units.FromHumanSize(text)
}

func (a *app) save(cmd *cobra.Command, args []string, o saving) (err error) {
	platforms, err := parsePlatforms(cmd, o.platforms)
	if err != nil {
		return err
	}
	var limit int64
	if o.split != "" {
		if limit, err = partSize(o.split); err != nil {
			return usagef(cmd, "--split %q: %w", o.split, err)
		}
	}
	st, err := a.openStore()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	images, err := resolveAll(ctx, st, args)
	if err != nil {
		return err
	}
	if o.signatures && o.format == formatOCI {
		if images, err = withSignatures(ctx, st, images); err != nil {
			return err
		}
	}
	since, err := resolveAll(ctx, st, o.since)
	if err != nil {
		return err
	}
	task := a.display.Task("save " + strings.Join(args, " "))
	defer func() { task.Done(err) }()
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	plan, err := o.plan(ctx, st, images, since, platforms)
	if err != nil {
		return err
	}
	return a.write(ctx, plan, o.output, limit, task)
}

func (o *saving) plan(ctx context.Context, st *store.Store, images, since []store.Tagged, platforms []ocispec.Platform) (*ship.Plan, error) {
	if o.format == formatDocker {
		want := ocispec.Platform{OS: "linux", Architecture: goruntime.GOARCH}
		if len(platforms) > 0 {
			want = platforms[0]
		}
		return ship.NewDockerPlan(ctx, st, images, want)
	}
	return ship.NewPlan(ctx, st, images, ship.Options{Platforms: platforms, Since: since})
}

// write writes the archive and prints the names of its files.
func (a *app) write(ctx context.Context, plan *ship.Plan, output string, limit int64, task *progress.Task) error {
	track := shipTrack(task)
	names := []string{output}
	var err error
	switch {
	case output == "-":
		if err := plan.WriteTo(ctx, a.streams.Out, track); err != nil {
			return fmt.Errorf("writing the archive to standard output: %w", err)
		}
		return nil
	case limit > 0:
		names, err = plan.SaveSplit(ctx, output, limit, track)
	default:
		err = plan.SaveFile(ctx, output, track)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.streams.Out, strings.Join(names, "\n"))
	return err
}

func shipTrack(task *progress.Task) ship.TrackFunc {
	if task == nil {
		return nil
	}
	return func(name string, total int64) ship.Tracker { return task.Track(name, total) }
}

func resolveAll(ctx context.Context, st *store.Store, names []string) ([]store.Tagged, error) {
	var (
		images []store.Tagged
		errs   []error
	)
	for _, name := range names {
		img, err := st.Resolve(ctx, name)
		errs = append(errs, err)
		images = append(images, img)
	}
	return images, errors.Join(errs...)
}

// withSignatures adds to the images what the store has of their signatures.
func withSignatures(ctx context.Context, st *store.Store, images []store.Tagged) ([]store.Tagged, error) {
	out := images
	for _, img := range images {
		signatures, err := st.Signatures(ctx, img.Descriptor.Digest)
		if err != nil {
			return nil, err
		}
		out = append(out, signatures...)
	}
	return out, nil
}

func newLoad(a *app) *cobra.Command {
	var input, output, name string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Read images from an archive into the local store",
		Long: `load reads what 'sealer save' has written, and the archives of others: OCI layouts of skopeo, docker and podman,
compressed with gzip or zstd or not, and those of sealer 0.9 to 0.11. Of a split archive, name the first
part, or the name that was given to save. Every blob is verified; an image gets its name once all of it is there.
A load that was cut is continued by the same command: what the store has is not read again.`,
		Example: `  sealer load -i shop.tar
  ssh build sealer save shop:v1 | sealer load
  sealer load -i app.tar --tag registry.example.com/team/app:v1`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVarP(&input, "input", "i", "", "archive to read; - is standard input (default: standard input where it is no terminal)")
	f.StringVarP(&name, "tag", "t", "", "name for the archive's one image, instead of the name in it; for several that have tags alone: what stands before those")
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if input == "" {
			input = "-"
			if isTerminal(a.streams.In) {
				return usagef(cmd, "there is no archive to read: give one with --input")
			}
		}
		if err := a.openDisplay(cmd); err != nil {
			return err
		}
		defer a.close(&err)
		res, err := a.load(cmd.Context(), input, name)
		if err != nil {
			return err
		}
		return a.print(cmd, output, res.Images, func(t *table) {
			t.line("NAME", "DIGEST", "PLATFORMS")
			for _, img := range res.Images {
				if _, ok := store.Signed(img.Name); ok {
					continue // it belongs to another
				}
				t.line(img.Name, short(img.Digest.String()), strings.Join(img.Platforms, ","))
			}
		})
	}
	return cmd
}

func (a *app) load(ctx context.Context, input, name string) (res ship.Result, err error) {
	st, err := a.openStore()
	if err != nil {
		return ship.Result{}, err
	}
	task := a.display.Task("load " + input)
	defer func() { task.Done(err) }()
	o := ship.LoadOptions{Name: name, Track: shipTrack(task)}
	if input == "-" {
		return ship.LoadStream(ctx, st, a.streams.In, "standard input", o)
	}
	return ship.Load(ctx, st, input, o)
}
