// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
)

// checkResult holds whatever the input: every name is normal, every position
// lies inside the file, and an error has one.
func checkResult(t *testing.T, src string, images []imagelist.Image, problems []imagelist.Problem, err error) {
	t.Helper()
	last := strings.Count(src, "\n") + 1
	for _, image := range images {
		again, err := imagelist.Normalize(image.Name)
		require.NoError(t, err)
		require.Equal(t, image.Name, again)
		require.NotEmpty(t, image.Origins)
		for _, origin := range image.Origins {
			require.True(t, origin.Line >= 1 && origin.Line <= last, "%v of %d lines", origin, last)
		}
	}
	for _, problem := range problems {
		require.True(t, problem.Line >= 1 && problem.Line <= last, "%v of %d lines", problem, last)
		require.NotEmpty(t, problem.Show())
	}
	if err == nil {
		return
	}
	var errs imagelist.Errors
	require.True(t, errors.As(err, &errs), "%v", err)
	require.NotEmpty(t, errs)
	for _, one := range errs {
		require.True(t, one.Line >= 1 && one.Line <= last, "%v of %d lines", one, last)
		require.NotEmpty(t, one.Show())
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("nginx # x\n'quay.io/a/b@" + sum + "' platform=linux/arm64,linux/amd64\n")
	f.Add("\ufeffnginx platform=\r\n- x\r\nA\n")
	f.Fuzz(func(t *testing.T, src string) {
		images, err := imagelist.ParseList("imageList", []byte(src))
		checkResult(t, src, images, nil, err)
		if err != nil {
			return
		}
		var written strings.Builder
		for _, image := range images {
			written.WriteString(image.Name)
			if image.Platform != "" {
				written.WriteString(" platform=" + image.Platform)
			}
			written.WriteString("\n")
		}
		again, err := imagelist.ParseList("imageList", []byte(written.String()))
		require.NoError(t, err)
		require.Len(t, again, len(images))
		for i := range again {
			require.Equal(t, images[i].Name, again[i].Name)
			require.Equal(t, images[i].Platform, again[i].Platform)
		}
	})
}

func FuzzParseManifests(f *testing.F) {
	f.Add("m.yaml", object+"spec:\n  containers:\n  - image: &a nginx # x\n  - {image: *a}\n---\n- image: >-\n    x\n")
	f.Add("m.yaml.tmpl", object+"{{ if .x }}\nimage: \"{{ .r }}/x\"\n{{ end }}\n")
	f.Add("m.json", `{"apiVersion":"v1","kind":"List","items":[{"image":{"repository":"a/b","tag":"1"}}]}`)
	f.Add("m.yaml", "%YAML 1.1\n--- {image: 1}\n...\nb: {a: &x [*x]}\n\t- c\n")
	f.Add("m.yaml", "apiVersion: v1\nkind: ConfigMap\ndata:\n  x: |\n    apiVersion: v1\n    kind: Pod\n    image: a\n  y: \"quay.io/a/b:1\\nx\"\n")
	f.Add("m.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers: [&c {image: x, env: [{name: X_IMAGE, value: a/b}], args: [--image, c:1]}, *c, {<<: [*c]}]\n")
	f.Add("m.yaml", "apiVersion: e/v1\nkind: C\nmetadata: {annotations: {image: quay.io/a/b:1}}\nspec: {registry: r.io, repository: a, tag: 1, sha: x, y: {image: a, tag: *b}}\n")
	f.Fuzz(func(t *testing.T, file, src string) {
		images, problems, err := imagelist.ParseManifests(file, []byte(src))
		checkResult(t, src, images, problems, err)
		more, problems, err := imagelist.ParseManifests(file, []byte(src), imagelist.WithConfigMaps())
		checkResult(t, src, more, problems, err)
		require.GreaterOrEqual(t, len(more), len(images))
	})
}
