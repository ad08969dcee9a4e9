// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist/chart/helm"
	"github.com/sealerio/sealer/kubefile/lint"
)

// run lints an example as the command does.
func run(t *testing.T, e lint.Example, o lint.Options) []lint.Finding {
	t.Helper()
	if e.Files != nil {
		files := fstest.MapFS{}
		for name, content := range e.Files {
			files[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
		}
		o.Context = files
	}
	if e.Ignore != "" {
		patterns, err := ignorefile.ReadAll(strings.NewReader(e.Ignore))
		require.NoError(t, err)
		o.Ignore, o.IgnoreName = patterns, ".sealerignore"
	}
	o.Charts = helm.Renderer{}
	findings, err := lint.Source(t.Context(), "Kubefile", []byte(e.Kubefile), o)
	require.NoError(t, err)
	return findings
}

func names(findings []lint.Finding) []string {
	list := []string{}
	for _, one := range findings {
		list = append(list, one.Rule)
	}
	return list
}

// The examples of a rule are what they say: the bad one is found, by this rule
// alone, and the good one is clean.
func TestRules_Examples(t *testing.T) {
	seen := map[string]bool{}
	for _, rule := range lint.Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			require.False(t, seen[rule.Name])
			seen[rule.Name] = true
			require.NotEmpty(t, rule.Summary)
			require.NotEmpty(t, rule.Why)
			bad := run(t, rule.Bad, lint.Options{})
			require.Contains(t, names(bad), rule.Name)
			for _, one := range bad {
				if one.Rule == rule.Name {
					require.Equal(t, rule.Severity, one.Severity)
					require.Positive(t, one.Line)
				}
			}
			good := run(t, rule.Good, lint.Options{})
			require.Empty(t, good)
		})
	}
}
