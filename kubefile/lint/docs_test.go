// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/kubefile/lint"
)

// The table in docs/lint.md is that of the code.
func TestRules_Docs(t *testing.T) {
	const page, begin, end = "../../docs/lint.md", "<!-- rules: written by go test ./kubefile/lint -update -->\n", "<!-- end of rules -->\n"
	src, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(src), begin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	var table strings.Builder
	table.WriteString("| rule | severity | finds |\n|---|---|---|\n")
	for _, rule := range lint.Rules() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", rule.Name, rule.Severity, rule.Summary)
	}
	want := before + begin + table.String() + end + after
	if goldenfile.Updating() {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(src))
}
