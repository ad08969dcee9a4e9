// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

// parseOutputs adds --push to --output. Only one of them can have standard output.
func (a *app) parseOutputs(cmd *cobra.Command, o buildFlags) ([]build.Output, error) {
	list, err := parseEach(cmd, "--output", o.outputs, build.ParseOutput)
	if err != nil {
		return nil, err
	}
	if o.push && !slices.ContainsFunc(list, func(out build.Output) bool { return out.Type == build.OutputRegistry }) {
		list = append(list, build.Output{Type: build.OutputRegistry})
	}
	streams := 0
	for _, out := range list {
		if out.Dest == "-" {
			streams++
		}
	}
	switch {
	case streams > 1:
		return nil, usagef(cmd, "--output: standard output can have one of them")
	case streams == 1 && isTerminalWriter(a.streams.Out):
		return nil, usagef(cmd, "--output: an archive is not written to a terminal: give dest=FILE")
	}
	return list, nil
}

// deliver does what the flags ask for with an image that is built and tagged, and prints its digest where stdout is free.
func (a *app) deliver(cmd *cobra.Command, o buildFlags, outputs []build.Output, st *store.Store, result build.Result) (err error) {
	release, err := st.Hold(cmd.Context())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	streamed := false
	for _, out := range outputs {
		if err := a.output(cmd, st, result, out); err != nil {
			return err
		}
		streamed = streamed || out.Dest == "-"
	}
	if o.iidFile != "" {
		if err := writeResult(o.iidFile, []byte(result.Descriptor.Digest)); err != nil {
			return err
		}
	}
	if o.metadataFile != "" {
		data, err := json.MarshalIndent(newBuildMetadata(result), "", "  ")
		if err == nil {
			err = writeResult(o.metadataFile, append(data, '\n'))
		}
		if err != nil {
			return err
		}
	}
	if streamed {
		return nil
	}
	return a.printDigest(result.Descriptor)
}

func (a *app) output(cmd *cobra.Command, st *store.Store, result build.Result, out build.Output) (err error) {
	ctx := cmd.Context()
	if out.Type == build.OutputRegistry {
		for _, name := range result.Names {
			if err := a.pushBuilt(cmd, st, result.Descriptor, name); err != nil {
				return err
			}
		}
		return nil
	}
	task := a.display.Task("writing " + out.Dest)
	defer func() { task.Done(err) }()
	switch out.Type {
	case build.OutputOCI:
		images := make([]store.Tagged, len(result.Names))
		for i, name := range result.Names {
			images[i] = store.Tagged{Name: name, Descriptor: result.Descriptor}
		}
		plan, err := ship.NewPlan(ctx, st, images, ship.Options{})
		if err != nil {
			return err
		}
		track := func(name string, total int64) ship.Tracker { return task.Track(name, total) }
		if out.Dest == "-" {
			return plan.WriteTo(ctx, a.streams.Out, track)
		}
		return plan.SaveFile(ctx, out.Dest, track)
	case build.OutputTar:
		if out.Dest == "-" {
			return build.WriteTar(ctx, st, result.Descriptor, a.streams.Out)
		}
		return writeTarFile(ctx, st, result.Descriptor, out.Dest)
	}
	return build.WriteFolder(ctx, st, result.Descriptor, out.Dest)
}

func writeTarFile(ctx context.Context, st *store.Store, desc ocispec.Descriptor, path string) (err error) {
	f, err := atomicfile.Output(path, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Abort()) }()
	if err := build.WriteTar(ctx, st, desc, f); err != nil {
		return err
	}
	return f.Commit()
}

func (a *app) pushBuilt(cmd *cobra.Command, st *store.Store, desc ocispec.Descriptor, name string) (err error) {
	task := a.display.Task("push " + name)
	defer func() { task.Done(err) }()
	client, err := a.openRegistry(cmd, task)
	if err != nil {
		return err
	}
	_, err = client.Push(cmd.Context(), st, desc, name)
	return err
}

// buildMetadata is what --metadata-file holds; the keys with a dot are docker buildx's.
type buildMetadata struct {
	Digest     string             `json:"containerimage.digest"`
	Descriptor ocispec.Descriptor `json:"containerimage.descriptor"`
	Names      string             `json:"image.name"` // with commas between
}

func newBuildMetadata(r build.Result) buildMetadata {
	return buildMetadata{Digest: r.Descriptor.Digest.String(), Descriptor: r.Descriptor, Names: strings.Join(r.Names, ",")}
}

// writeResult writes a file for the program that called sealer.
func writeResult(path string, data []byte) error {
	if err := atomicfile.WriteOutput(path, data, os.FileMode(0o644)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
