// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/kubefile"
	"github.com/sealerio/sealer/kubefile/format"
	"github.com/sealerio/sealer/kubefile/lint"
)

var fileHeader = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// example reads a Kubefile with its context from one file.
func example(t *testing.T, archive string) lint.Example {
	t.Helper()
	src, err := os.ReadFile(archive)
	require.NoError(t, err)
	e := lint.Example{Files: map[string]string{}}
	headers := fileHeader.FindAllSubmatchIndex(src, -1)
	require.NotEmpty(t, headers)
	for i, at := range headers {
		end := len(src)
		if i+1 < len(headers) {
			end = headers[i+1][0]
		}
		name, content := string(src[at[2]:at[3]]), string(src[at[1]:end])
		switch name {
		case "Kubefile":
			e.Kubefile = content
			e.Files[name] = content
		case ".sealerignore":
			e.Ignore = content
		default:
			e.Files[name] = content
		}
	}
	return e
}

// The shapes that are in use in the field parse as they stand. What they mean,
// what lint says of them and how fmt writes them is in the golden files.
func TestField(t *testing.T) {
	archives, err := filepath.Glob("../testdata/field/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, archives)
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			e := example(t, archive)
			file, err := kubefile.Parse("Kubefile", []byte(e.Kubefile))
			require.NoError(t, err)
			var text strings.Builder
			for _, one := range file.All() {
				raw, err := json.Marshal(one)
				require.NoError(t, err)
				fmt.Fprintf(&text, "%T %s\n", one, raw)
			}
			text.WriteString("\n-- lint --\n")
			for _, one := range run(t, e, lint.Options{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}}) {
				fmt.Fprintln(&text, one.Show())
			}
			text.WriteString("\n-- fmt --\n")
			formatted, err := format.Source("Kubefile", []byte(e.Kubefile))
			require.NoError(t, err)
			text.Write(formatted)
			again, err := format.Source("Kubefile", formatted)
			require.NoError(t, err)
			require.Equal(t, string(formatted), string(again))

			golden := strings.TrimSuffix(archive, ".txtar") + ".golden"
			if goldenfile.Updating() {
				require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), text.String())
		})
	}
}
