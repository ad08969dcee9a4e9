// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// lintContext is a context with an error in the Kubefile, one in a list, and a
// warning.
func lintContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kubefile":         "FROM registry.example.com/kubernetes\nARG FOLDER=manifests\nCOPY ${FOLDER} manifests\nCOPY no.yaml manifests/\n",
		"manifests/a.yaml": "a: [\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestLint(t *testing.T) {
	dir := lintContext(t)
	file := filepath.Join(dir, "Kubefile")
	stdout, stderr, code := sealer(t, "", "lint", dir)
	require.Equal(t, 1, code)
	require.Empty(t, stderr)
	require.Contains(t, stdout, file+`:1: warning: the base registry.example.com/kubernetes has no tag, which means latest: name a version [base-unpinned]
   1 | FROM registry.example.com/kubernetes
     |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
`)
	require.Contains(t, stdout, file+":4: error: no.yaml is not in the build context [copy-source-missing]\n")
	require.Contains(t, stdout, filepath.Join(dir, "manifests/a.yaml")+":1: error: ", "named from here, like the Kubefile")

	build, _, code := sealer(t, "", "build", "--check", dir)
	require.Equal(t, 1, code)
	require.Equal(t, stdout, build)
	stdout, _, code = sealer(t, "", "build", "--check", "--build-arg", "FOLDER=none", dir)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, file+":3: error: ${FOLDER} is not in the build context")

	quiet := []string{"lint", dir, "--ignore", "copy-source-missing", "--ignore", "manifest-invalid"}
	stdout, stderr, code = sealer(t, "", quiet...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "[base-unpinned]")
	require.NotContains(t, stdout, "[copy-source-missing]")
	_, _, code = sealer(t, "", append(quiet, "--strict")...)
	require.Equal(t, 1, code)
	stdout, stderr, code = sealer(t, "FROM scratch\nLABEL a=b\nCMD kubectl get nodes\n", "lint", "-f", "-", dir)
	require.Zero(t, code, stderr)
	require.Empty(t, stdout)
}

func TestLint_Formats(t *testing.T) {
	dir := lintContext(t)
	var findings []struct {
		Rule, Severity, File, Message string
		Line                          int
	}
	stdout, _, code := sealer(t, "", "lint", "-o", "json", dir)
	require.Equal(t, 1, code)
	require.NoError(t, json.Unmarshal([]byte(stdout), &findings))
	require.Len(t, findings, 3)
	require.Equal(t, "base-unpinned", findings[0].Rule)
	require.Equal(t, "warning", findings[0].Severity)
	require.Equal(t, 1, findings[0].Line)
	stdout, _, _ = sealer(t, "", "lint", "-o", "table", dir)
	require.Contains(t, stdout, "SEVERITY   RULE")
	stdout, _, _ = sealer(t, "", "lint", "-o", "yaml", dir)
	require.Contains(t, stdout, "  rule: base-unpinned\n")

	var sarif struct {
		Runs []struct {
			Results []struct{ RuleID, Level string }
		}
	}
	stdout, _, _ = sealer(t, "", "lint", "-o", "sarif", dir)
	require.NoError(t, json.Unmarshal([]byte(stdout), &sarif))
	require.Len(t, sarif.Runs[0].Results, 3)
	require.Equal(t, "base-unpinned", sarif.Runs[0].Results[0].RuleID)

	stdout, _, code = sealer(t, "FROM scratch\nCMD kubectl get nodes", "lint", "-o", "json", "-f", "-", dir)
	require.Zero(t, code)
	require.Equal(t, "[]\n", stdout)
}

func TestLint_Rules(t *testing.T) {
	stdout, _, code := sealer(t, "", "lint", "--list")
	require.Zero(t, code)
	require.Contains(t, stdout, "copy-source-missing       error      a file that is to be copied is not in the build context\n")
	stdout, _, code = sealer(t, "", "lint", "--explain", "copy-source-missing")
	require.Zero(t, code)
	require.Contains(t, stdout, "This is found:\n\n    FROM scratch\n    COPY imagelist manifests/\n")
	stdout, _, code = sealer(t, "", "lint", "--explain", "copy-source-missing", "-o", "json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"name": "copy-source-missing"`)
}

func TestLint_Mistakes(t *testing.T) {
	dir := lintContext(t)
	for want, c := range map[string]struct {
		args []string
		code int
	}{
		"there is no rule base-unpined (did you mean base-unpinned?)": {[]string{"lint", "--ignore", "base-unpined", dir}, 2},
		"there is no rule nothing":                                    {[]string{"lint", "--explain", "nothing"}, 2},
		"is not one of text, table":                                   {[]string{"lint", "-o", "xml", dir}, 2},
		"is no folder":                                                {[]string{"lint", filepath.Join(dir, "Kubefile")}, 1},
		"reading the Kubefile":                                        {[]string{"lint", t.TempDir()}, 1},
		"reading the image list":                                      {[]string{"lint", "--image-list", "none", dir}, 1},
		"--build-arg \"=x\" has no name":                              {[]string{"lint", "--build-arg", "=x", dir}, 2},
	} {
		stdout, stderr, code := sealer(t, "", c.args...)
		require.Equal(t, c.code, code, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
	}
}
