// SPDX-License-Identifier: Apache-2.0

// Package cli turns arguments into options and prints results: results on stdout, all else on stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/test/components/internal/build"
	"github.com/sealerio/sealer/test/components/internal/push"
	"github.com/sealerio/sealer/test/components/internal/recipe"
)

// Exit codes of Run.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError marks a mistake in the arguments.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "Error:", err)
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		fmt.Fprintln(stderr, "Hint:", hint.Hint())
	}
	var usage usageError
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &usage):
		return exitUsage
	default:
		return exitFailed
	}
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "components",
		Short:         "Build the programs and images of a real Kubernetes cluster for tests",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q (see --help)", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	source := root.PersistentFlags().String("source", ".", "folder of the components module")
	root.AddCommand(newBuild(source), newDouble(source), newPush(source))
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func newBuild(source *string) *cobra.Command {
	var out, release string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build all that has not been built yet, and print the folder it is in",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(recipe.Releases(), recipe.Release(release)) {
				return usageError{fmt.Errorf("--release %q is not one of %v", release, recipe.Releases())}
			}
			dir, err := build.Run(cmd.Context(), build.Options{Source: *source, Release: recipe.Release(release), Out: out, Messages: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
	cmd.Flags().StringVar(&release, "release", string(recipe.Current), "which Kubernetes: current, or previous, one minor version before it")
	cmd.Flags().StringVar(&out, "out", "", "folder to build (default: one in the user's cache, named after all that it is built from)")
	return cmd
}

func newPush(source *string) *cobra.Command {
	var to, dir string
	var jobs int
	cmd := &cobra.Command{
		Use:   "push --to URL",
		Short: "Push the images that were built to a registry, as <domain>/<path>:<tag>, and print where they are",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usageError{errors.New("--to: a registry is needed, such as http://127.0.0.1:5000")}
			}
			if jobs < 1 {
				return usageError{fmt.Errorf("--jobs: %d is less than 1", jobs)}
			}
			if dir == "" {
				located, built, err := build.Locate(cmd.Context(), build.Options{Source: *source, Messages: cmd.ErrOrStderr()})
				if err != nil {
					return err
				}
				if !built {
					return errors.New("finding the images: nothing has been built from these sources: run components build first, or name a folder with --dir")
				}
				dir = located
			}
			pushed, err := push.All(cmd.Context(), filepath.Join(dir, build.ImagesFolder), to, jobs)
			if err != nil {
				return err
			}
			sent := 0
			for _, p := range pushed {
				if !p.Existed {
					sent++
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s@%s\n", p.Reference, p.Digest); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "pushed %d of %d images, the registry had the others\n", sent, len(pushed))
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "address of the registry: an http or https URL without a path")
	cmd.Flags().StringVar(&dir, "dir", "", "folder that build printed (default: the one for the sources as they are)")
	cmd.Flags().IntVar(&jobs, "jobs", 4, "how many images and blobs are pushed at once")
	return cmd
}
