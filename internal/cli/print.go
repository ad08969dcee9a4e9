// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// addOutput declares -o for a command that lists or shows something.
func addOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "format of the result: table, json, yaml")
	mustComplete(cmd, "output", []string{"table", "json", "yaml"})
}

// table is the human's form of a result.
type table struct{ w io.Writer }

// line writes one row.
func (t *table) line(cells ...string) {
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// print writes a result to stdout in the format that was asked for. The JSON
// and YAML forms have the same keys.
func (a *app) print(cmd *cobra.Command, format string, value any, human func(*table)) error {
	switch format {
	case "table":
		w := tabwriter.NewWriter(a.streams.Out, 0, 0, 3, ' ', 0)
		human(&table{w: w})
		return w.Flush()
	case "json":
		enc := json.NewEncoder(a.streams.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("writing the result as YAML: %w", err)
		}
		_, err = a.streams.Out.Write(text)
		return err
	}
	return usagef(cmd, "--output %q is not one of table, json, yaml", format)
}

// size writes bytes for people, in units of 1000 as disks and registries count.
func size(n int64) string { return units.HumanSize(float64(n)) }
