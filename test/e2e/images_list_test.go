//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What would be packed is listed without a registry, a builder and a network; what the list cannot know is told apart.
func TestImagesList(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kubefile":                       "FROM registry.example.com/none:v1\nCOPY . .\nRUN touch x\n",
		"imageList":                      "registry.example.com/listed:1 # why\n",
		"manifests/pod.yaml":             "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    image: registry.example.com/pod:1\n    env: [{name: RELATED_IMAGE_X, value: 'registry.example.com/related:1'}]\n",
		"charts/web/Chart.yaml":          "apiVersion: v2\nname: web\nversion: 1.0.0\nappVersion: '7'\n",
		"charts/web/templates/a.yaml":    "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: \"registry.example.com/web:{{ .Chart.AppVersion }}\"}]}\n",
		"charts/web/templates/b.yaml":    "x: {{ .Values.y.z }}\n",
		"manifests/k/kustomization.yaml": "resources: [https://example.com/x.yaml]\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	stdout, stderr, code := runAny(t, "list", "images", "list", "--platform", "linux/arm64", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "manifests/pod.yaml:7 (env RELATED_IMAGE_X)")
	require.NotContains(t, stdout, "not seen")
	require.Contains(t, stderr, "problem: charts/web/templates/b.yaml:1: the template does not render")
	require.Contains(t, stderr, "problem: manifests/k/kustomization.yaml:1:")
	require.Contains(t, stderr, "not seen: Kubefile:1:")
	require.Contains(t, stderr, "not seen: Kubefile:3:")

	stdout, stderr, code = runAny(t, "list", "images", "list", "-o", "json", "--platform", "linux/arm64", dir)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	var list struct {
		Images []struct{ Name, Platform, Status string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	var rows []string
	for _, i := range list.Images {
		rows = append(rows, i.Name+" "+i.Platform+" "+i.Status)
	}
	require.Equal(t, []string{
		"registry.example.com/listed:1 linux/arm64 wanted", "registry.example.com/pod:1 linux/arm64 wanted",
		"registry.example.com/related:1 linux/arm64 candidate", "registry.example.com/web:7 linux/arm64 wanted",
	}, rows)

	_, stderr, code = runAny(t, "list", "images", "list", "--kube-version", "x", dir)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "--kube-version")
}
