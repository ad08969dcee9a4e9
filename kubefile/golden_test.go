// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/kubefile"
)

// golden compares text with a file beside the input, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

func inputs(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.kubefile"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// TestParse_Mistakes holds the text of every message that a user can see.
func TestParse_Mistakes(t *testing.T) {
	for _, file := range inputs(t, "mistakes") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			_, err = kubefile.Parse("Kubefile", src)
			var errs kubefile.Errors
			require.ErrorAs(t, err, &errs)
			var text strings.Builder
			for _, one := range errs {
				fmt.Fprintln(&text, one.Show())
				if hint := one.Hint(); hint != "" {
					fmt.Fprintln(&text, "hint:", hint)
				}
			}
			golden(t, strings.TrimSuffix(file, ".kubefile")+".golden", text.String())
		})
	}
}

// TestParse_Good holds what files mean, before and after expansion for
// linux/arm64 on linux/amd64.
func TestParse_Good(t *testing.T) {
	for _, file := range inputs(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			f, err := kubefile.Parse("Kubefile", src)
			require.NoError(t, err)
			golden(t, strings.TrimSuffix(file, ".kubefile")+".golden", describe(t, f))
		})
	}
}

func describe(t *testing.T, f *kubefile.File) string {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "directives syntax=%q escape=%q toolbox=%q\n", f.Directives.Syntax, f.Directives.Escape, f.Directives.Toolbox)
	for _, w := range f.Warnings {
		fmt.Fprintln(&text, "warning", w)
	}
	scope, err := kubefile.NewScope(f, kubefile.ScopeOptions{
		BuildArgs: map[string]string{"GIVEN": "from the command line", "NOBODY": "1", "HTTP_PROXY": "http://proxy"},
		Target:    platform("arm64"),
		Build:     platform("amd64"),
	})
	require.NoError(t, err)
	fmt.Fprintf(&text, "unused %q proxy %q\n", scope.UnusedBuildArgs(), scope.Proxy())
	for _, stage := range f.Stages {
		image, platform, err := scope.From(stage)
		require.NoError(t, err)
		fmt.Fprintf(&text, "\nstage %d %q %d-%d image=%q platform=%q | %s\n",
			stage.Index, stage.Name, stage.From.Range.First, stage.From.Range.Last, image, platform, stage.From.Text())
		vars := scope.Stage([]string{"PATH=/bin"})
		for _, instruction := range stage.Instructions {
			expanded, err := vars.Expand(instruction)
			if err != nil {
				var position *kubefile.PositionError
				require.True(t, errors.As(err, &position))
				fmt.Fprintln(&text, "error", err)
				continue
			}
			lines := instruction.Lines()
			fmt.Fprintf(&text, "%d-%d %s\n  %T %s\n", lines.First, lines.Last, instruction.Text(), expanded, asJSON(t, expanded))
			if run, ok := expanded.(*kubefile.Run); ok && run.Shell {
				fmt.Fprintf(&text, "  script %q\n", run.Script())
			}
		}
		fmt.Fprintf(&text, "env %q\nrun env %q\n", vars.Env(), vars.RunEnv())
		for _, w := range vars.Warnings() {
			fmt.Fprintln(&text, "warning", w)
		}
	}
	return text.String()
}

// asJSON shows the fields that differ from nothing.
func asJSON(t *testing.T, instruction kubefile.Instruction) string {
	t.Helper()
	raw, err := json.Marshal(instruction)
	require.NoError(t, err)
	fields := map[string]any{}
	require.NoError(t, json.Unmarshal(raw, &fields))
	for name, value := range fields {
		if value == nil || value == "" || value == false || name == "Range" {
			delete(fields, name)
		}
	}
	raw, err = json.Marshal(fields)
	require.NoError(t, err)
	return string(raw)
}
