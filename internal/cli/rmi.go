// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/store"
)

func newRmi(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rmi IMAGE...",
		Short: "Remove names of images from the local store",
		Long: `rmi removes names. An image is named, or given by its digest or the first four or more digits of it; one that has
several names is then removed only with --force, from all of them. The content that no other image needs stays until 'sealer prune',
so that an image removed by mistake is pulled again without a byte. The names are printed.`,
		Example: "  sealer rmi shop:v1\n  sealer rmi --force 419cf02a\n  sealer rmi shop:v1 shop:v2 && sealer prune",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(cmd, "IMAGE is missing")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove all names of an image that is given by its digest, and do not mind names that are not there")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		return a.removeAll(cmd.Context(), args, force)
	}
	return cmd
}

// removeAll removes what it can of the names.
func (a *app) removeAll(ctx context.Context, names []string, force bool) error {
	st, err := a.openStore()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, a.removeNames(ctx, st, name, force))
	}
	return errors.Join(errs...)
}

// removeNames removes the name that is meant or, for a digest, every name of the image.
func (a *app) removeNames(ctx context.Context, st *store.Store, what string, force bool) error {
	image, err := st.Resolve(ctx, what)
	if _, absent := errors.AsType[*store.NotFoundError](err); absent && force {
		return nil
	}
	if err != nil {
		return err
	}
	names := []string{image.Name}
	if full, err := familiar(what); err != nil || full != image.Name {
		if names, err = namesOf(ctx, st, image); err != nil {
			return err
		}
	}
	if len(names) > 1 && !force {
		return &severalNamesError{what: what, names: names}
	}
	for _, name := range names {
		if err := st.Untag(ctx, name); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.streams.Out, name); err != nil {
			return err
		}
	}
	return nil
}

func namesOf(ctx context.Context, st *store.Store, image store.Tagged) ([]string, error) {
	all, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range all {
		if t.Descriptor.Digest == image.Descriptor.Digest {
			names = append(names, t.Name)
		}
	}
	return names, nil
}

// severalNamesError is a digest that is not meant as one name.
type severalNamesError struct {
	what  string
	names []string
}

func (e *severalNamesError) Error() string {
	return fmt.Sprintf("removing %q: the image has %d names: %s", e.what, len(e.names), joinWords(e.names))
}
func (e *severalNamesError) Hint() string { return "name one of them, or remove all with --force" }

func joinWords(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
