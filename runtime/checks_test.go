// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime"
)

// Every check that the sources make is explained, in order, and none that they do not make.
func TestChecks(t *testing.T) {
	made := map[string]bool{}
	named := regexp.MustCompile(`(?:Check: *|[. \t]add\(|h\.String\(\), )"([a-z][a-z-]*)"`)
	tree := os.DirFS(".")
	require.NoError(t, fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		src, err := fs.ReadFile(tree, name)
		for _, m := range named.FindAllStringSubmatch(string(src), -1) {
			made[m[1]] = true
		}
		return err
	}))
	var explained []string
	for _, c := range runtime.Checks() {
		explained = append(explained, c.Name)
		delete(made, c.Name)
	}
	require.True(t, slices.IsSorted(explained))
	require.Empty(t, made, "checks that are not explained")
}
