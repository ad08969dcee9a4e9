// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/kubefile"
)

// The samples of the documents parse, and between them show every instruction.
func TestDocs(t *testing.T) {
	src, err := os.ReadFile("../docs/kubefile.md")
	require.NoError(t, err)
	samples := strings.Split(string(src), "```dockerfile\n")[1:]
	require.NotEmpty(t, samples)
	for _, sample := range samples {
		text, _, _ := strings.Cut(sample, "```")
		f, err := kubefile.Parse("docs/kubefile.md", []byte(text))
		require.NoError(t, err, text)
		require.Empty(t, f.Warnings, text)
	}
	for _, word := range kubefile.Words() {
		require.Contains(t, string(src), "`"+word, word)
	}
}
