// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The list knows the flags with which a build chooses images, and says what leaves an image out.
func TestImagesList_FlagsOfBuild(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList .\n",
		"imageList": "nginx:1\nquay.io/a/b:2\n",
		"auth.yaml": "- registry: r.example.com\n  username: u\n  password: p\n  images: [team/app:v1]\n",
		"skip.txt":  "# not these\n**/b\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	skip := filepath.Join(dir, "skip.txt")
	args := []string{
		"images", "list", "--platform", "linux/amd64",
		"--image-list-with-auth", filepath.Join(dir, "auth.yaml"), "--ignored-image-list", skip, dir,
	}
	stdout, stderr, code := sealer(t, "", args...)
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^r\.example\.com/team/app:v1 +linux/amd64 +wanted `, stdout)
	require.Contains(t, stdout, "ignored ("+skip+":2)")

	stdout, stderr, code = sealer(t, "", append(args, "-o", "json")...)
	require.Zero(t, code, stderr)
	var list struct {
		Images []struct {
			Name, Status string
			IgnoredBy    *struct {
				File, Pattern string
				Line          int
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	require.Len(t, list.Images, 3)
	last := list.Images[2]
	require.Equal(t, "quay.io/a/b:2 ignored", last.Name+" "+last.Status)
	require.NotNil(t, last.IgnoredBy)
	require.Equal(t, skip, last.IgnoredBy.File)
	require.Equal(t, 2, last.IgnoredBy.Line)
	require.Equal(t, "**/b", last.IgnoredBy.Pattern)
	require.Nil(t, list.Images[0].IgnoredBy)
}
