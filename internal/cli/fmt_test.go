// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/cli"
)

// sealer runs a command line with a folder of its own.
func sealer(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Setenv("SEALER_ROOT", t.TempDir())
	t.Setenv("SEALER_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
	require.NoError(t, os.WriteFile(os.Getenv("SEALER_CONFIG"), nil, 0o600))
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs})
	return out.String(), errs.String(), code
}

func TestFmt(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "Kubefile")
	require.NoError(t, os.WriteFile(file, []byte("from  scratch\ncopy a   b\n"), 0o640))
	const want = "FROM scratch\nCOPY a b\n"

	stdout, stderr, code := sealer(t, "", "fmt", dir)
	require.Zero(t, code, stderr)
	require.Equal(t, want, stdout)
	stdout, stderr, code = sealer(t, "from x", "fmt", "-f", "-")
	require.Zero(t, code, stderr)
	require.Equal(t, "FROM x\n", stdout)

	stdout, stderr, code = sealer(t, "", "fmt", "--check", dir)
	require.Equal(t, 1, code)
	require.Equal(t, file+"\n", stdout)
	require.Empty(t, stderr)
	stdout, _, code = sealer(t, "", "fmt", "--diff", "-f", file)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "-from  scratch\n-copy a   b\n+FROM scratch\n+COPY a b\n")

	_, stderr, code = sealer(t, "", "fmt", "--write", dir)
	require.Zero(t, code, stderr)
	src, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(src))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	for _, flag := range []string{"--check", "--diff", "--write"} {
		stdout, stderr, code = sealer(t, "", "fmt", flag, dir)
		require.Zero(t, code, stderr)
		require.Empty(t, stdout)
	}
}

func TestFmt_Mistakes(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPI a b\n"), 0o600))
	for want, c := range map[string]struct {
		args []string
		code int
	}{
		"Kubefile:2: unknown instruction COPI": {[]string{"fmt", dir}, 1},
		"no such file":                         {[]string{"fmt", "-f", filepath.Join(dir, "none")}, 1},
		"unexpected argument":                  {[]string{"fmt", "a", "b"}, 2},
		"exclude each other":                   {[]string{"fmt", "--check", "--write", dir}, 2},
		"no file to write to":                  {[]string{"fmt", "--write", "-f", "-"}, 2},
	} {
		stdout, stderr, code := sealer(t, "FROM scratch", c.args...)
		require.Equal(t, c.code, code, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
	}
}
