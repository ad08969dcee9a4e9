// SPDX-License-Identifier: Apache-2.0

// Package goldenfile compares what tests get with files that hold what they want. It is for tests alone: go test -update
// writes the files anew.
package goldenfile

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files") //nolint:gochecknoglobals // a flag of the test binary

// Updating says that files are to be written, not compared.
func Updating() bool { return *update }

// Equal holds got against the file at path, or writes it there.
func Equal(t *testing.T, path, got string) {
	t.Helper()
	if Updating() {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
