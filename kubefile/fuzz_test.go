// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/kubefile"
)

func platform(arch string) ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: arch} }

// FuzzParse holds whatever the input: no panic, every error and warning has a
// line inside the file, and so has every error of an expansion.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "mistakes"} {
		files, err := os.ReadDir("testdata/" + folder)
		require.NoError(f, err)
		for _, file := range files {
			if strings.HasSuffix(file.Name(), ".kubefile") {
				src, err := os.ReadFile("testdata/" + folder + "/" + file.Name())
				require.NoError(f, err)
				f.Add(src, "BASE", "x")
			}
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, name, value string) {
		last := strings.Count(string(src), "\n") + 1
		file, err := kubefile.Parse("Kubefile", src)
		if err != nil {
			checkErrors(t, err, last)
			return
		}
		require.NotEmpty(t, file.Stages)
		checkWarnings(t, file.Warnings, last)
		scope, err := kubefile.NewScope(file, kubefile.ScopeOptions{
			BuildArgs: map[string]string{name: value}, Target: platform("arm64"), Build: platform("amd64"),
		})
		if err != nil {
			checkErrors(t, err, last)
			return
		}
		scope.UnusedBuildArgs()
		before := 0
		for _, stage := range file.Stages {
			if _, _, err := scope.From(stage); err != nil {
				checkErrors(t, err, last)
			}
			vars := scope.Stage([]string{"PATH=/bin"})
			for _, instruction := range stage.Instructions {
				lines := instruction.Lines()
				require.True(t, before < lines.First && lines.First <= lines.Last && lines.Last <= last, "%v of %d", lines, last)
				before = lines.Last
				require.NotEmpty(t, instruction.Text())
				require.NotContains(t, instruction.Text(), "\n")
				expanded, err := vars.Expand(instruction)
				if err != nil {
					checkErrors(t, err, last)
					continue
				}
				require.Equal(t, lines, expanded.Lines())
				if copied, ok := expanded.(*kubefile.Copy); ok {
					require.NotContains(t, copied.Sources, "")
					require.NotEmpty(t, copied.Dest)
					require.NotZero(t, len(copied.Sources)+len(copied.Heredocs))
				}
				checkExpanded(t, expanded)
			}
			checkWarnings(t, vars.Warnings(), last)
			seen := map[string]bool{}
			for _, entry := range vars.RunEnv() {
				name, _, ok := strings.Cut(entry, "=")
				require.True(t, ok)
				require.False(t, seen[name], "%s stands twice", name)
				seen[name] = true
			}
		}
	})
}

// checkExpanded holds what builds rely on in instructions without variables.
func checkExpanded(t *testing.T, expanded kubefile.Instruction) {
	t.Helper()
	switch c := expanded.(type) {
	case *kubefile.Run:
		c.Script()
	case *kubefile.Cmd:
		require.True(t, c.ShellLines() == nil || len(c.ShellLines()) == len(c.Args))
	case *kubefile.App:
		require.NotContains(t, c.Name, "/")
		require.NotEmpty(t, c.Sources)
		for _, source := range c.Sources {
			if path, local := kubefile.LocalSource(source); local {
				require.NotEmpty(t, path)
			} else if !strings.Contains(source, "$") { // an escaped one is looked at when it is fetched
				name, err := kubefile.RemoteName(source)
				require.NoError(t, err)
				require.NotContains(t, name, "/")
			}
		}
	case *kubefile.AppCmds:
		require.NotEmpty(t, c.Cmds)
	case *kubefile.AppEnv:
		for _, v := range c.Vars {
			require.NotEmpty(t, v.Key)
			require.NotContains(t, v.Key, "=")
		}
	case *kubefile.Launch:
		require.NotEmpty(t, c.Apps)
	case *kubefile.Cmds:
		require.NotEmpty(t, c.Cmds)
	case *kubefile.KubeVersion:
		require.NotEmpty(t, c.Constraint)
	case *kubefile.Workdir:
		require.NotEmpty(t, c.Path)
	}
}

func checkErrors(t *testing.T, err error, last int) {
	t.Helper()
	var errs kubefile.Errors
	if !errors.As(err, &errs) {
		var one *kubefile.PositionError
		require.True(t, errors.As(err, &one), "%v", err)
		errs = kubefile.Errors{one}
	}
	require.NotEmpty(t, errs)
	for _, one := range errs {
		require.True(t, one.Line >= 1 && one.Line <= last, "%v of %d lines", one, last)
		require.True(t, utf8.ValidString(one.Show()) || !utf8.ValidString(one.Text))
	}
}

func checkWarnings(t *testing.T, warnings []kubefile.Warning, last int) {
	t.Helper()
	for _, one := range warnings {
		require.True(t, one.Line >= 1 && one.Line <= last, "%v of %d lines", one, last)
		require.NotEmpty(t, one.Show())
	}
}
