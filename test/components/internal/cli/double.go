// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/test/components/internal/build"
)

func newDouble(source *string) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:     "double k3s|k0s VERSION",
		Short:   "Make a double of k3s or k0s with its images, and print the folder it is in",
		Example: "  components double k3s v1.36.1+k3s1\n  components double k0s v1.36.3+k0s.2",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || !regexp.MustCompile(`^v1\.\d+\.\d+\+`+regexp.QuoteMeta(args[0])).MatchString(args[1]) || args[0] != "k3s" && args[0] != "k0s" {
				return usageError{fmt.Errorf("a program and a version of it are needed, such as k3s v1.36.1+k3s1, not %q", args)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := build.Double(cmd.Context(), build.Options{Source: *source, Out: out, Messages: cmd.ErrOrStderr()}, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder to make (default: one in the user's cache)")
	return cmd
}
