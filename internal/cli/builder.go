// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build/gatewayimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/internal/version"
	"github.com/sealerio/sealer/store"
)

func newBuilder(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "builder",
		Short: "Serve several builds at once, and other BuildKits",
		Example: `  sealer builder serve --idle 10m
  sealer builder frontend -t registry.example.com/sealer-frontend:v1`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBuilderServe(a), newBuilderStatus(a), newBuilderStop(a), newBuilderPrune(a), newBuilderFrontend(a))
	return cmd
}

func newBuilderFrontend(a *app) *cobra.Command {
	var tag, output, program string
	cmd := &cobra.Command{
		Use:   "frontend -t NAME",
		Short: "Make the image behind '# syntax=' for docker buildx and buildctl",
		Long: `frontend makes the image that BuildKit runs for a Kubefile that begins with '# syntax=NAME'.
It goes into the local store, from where 'sealer push' sends it to a registry; with --output
it is written as an OCI archive instead. The image's digest is printed.`,
		Example: `  sealer builder frontend -t registry.example.com/sealer-frontend:v1
  sealer builder frontend -t sealer-frontend:v1 --output sealer-frontend.tar`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVarP(&tag, "tag", "t", "", "name of the image (required)")
	f.StringVarP(&output, "output", "o", "", "write an OCI archive to this file, and nothing into the store")
	f.StringVar(&program, "program", "", "the program sealer-frontend (default: beside this one)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if tag == "" {
			return usagef(cmd, "--tag is missing: the image needs a name")
		}
		name, err := imagelist.Normalize(tag)
		if err != nil {
			return usagef(cmd, "--tag: %w", err)
		}
		if program == "" {
			if program, err = frontendProgram(); err != nil {
				return err
			}
		}
		defer a.close(&err)
		desc, err := a.makeFrontend(cmd.Context(), name, program, output)
		if err != nil {
			return err
		}
		return a.printDigest(desc)
	}
	return cmd
}

func (a *app) makeFrontend(ctx context.Context, name, program, output string) (_ ocispec.Descriptor, err error) {
	o := gatewayimage.Options{Program: program, Version: version.Version(), ToolboxDir: filepath.Join(a.root, "build", "toolbox")}
	if output != "" {
		return a.archiveFrontend(ctx, name, output, o)
	}
	st, err := a.openStore()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	desc, err := gatewayimage.Make(ctx, st.Content(), o)
	if err != nil {
		return desc, err
	}
	return desc, st.Tag(ctx, name, desc)
}

// archiveFrontend makes the image in a store of its own, which ends with it.
func (a *app) archiveFrontend(ctx context.Context, name, output string, o gatewayimage.Options) (_ ocispec.Descriptor, err error) {
	dir, err := os.MkdirTemp("", "sealer-frontend-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	st, err := store.Open(dir)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := gatewayimage.Make(ctx, st.Content(), o)
	if err != nil {
		return desc, err
	}
	file, err := atomicfile.Output(output, 0o644)
	if err != nil {
		return desc, err
	}
	defer func() { err = errors.Join(err, file.Abort()) }()
	if err := gatewayimage.Archive(ctx, st.Content(), desc, name, file); err != nil {
		return desc, err
	}
	return desc, file.Commit()
}

// frontendProgram finds sealer-frontend beside this program.
func frontendProgram() (string, error) {
	dir, err := programFolder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sealer-frontend")
	if _, err := os.Stat(path); err != nil {
		return "", &frontendProgramError{err: err}
	}
	return path, nil
}

// frontendProgramError says that the program for BuildKit is not installed.
type frontendProgramError struct{ err error }

func (e *frontendProgramError) Error() string {
	return "looking for the program that BuildKit runs: " + e.err.Error()
}
func (e *frontendProgramError) Unwrap() error { return e.err }

func (e *frontendProgramError) Hint() string {
	return "install sealer-frontend beside sealer ('make build' makes both), or name it with --program"
}
