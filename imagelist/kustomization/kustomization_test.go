// SPDX-License-Identifier: Apache-2.0

package kustomization_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist/kustomization"
)

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: web}]}}}
`

func tree(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

func TestBuild(t *testing.T) {
	fsys := tree(
		"manifests/base/kustomization.yaml", "resources: [web.yaml]\n",
		"manifests/base/web.yaml", deployment,
		"manifests/base/unused.yaml", deployment,
		"manifests/prod/kustomization.yml", `resources: [../base]
images: [{name: web, newName: quay.io/shop/web, newTag: "2"}]
patches:
- patch: |
    - {op: add, path: /spec/template/spec/containers/-, value: {name: log, image: "quay.io/shop/log:1"}}
  target: {kind: Deployment}
configMapGenerator: [{name: settings, literals: [a=https://example.com/x]}]
`)
	result := kustomization.Build(fsys, "manifests/prod/kustomization.yml")
	require.Empty(t, result.Problems)
	require.Len(t, result.Rendered, 2)
	require.Equal(t, "manifests/base/web.yaml", result.Rendered[0].File)
	require.Contains(t, result.Rendered[0].Text, "image: quay.io/shop/web:2\n")
	require.Contains(t, result.Rendered[0].Text, "image: quay.io/shop/log:1\n")
	require.Contains(t, result.Rendered[1].Text, "kind: ConfigMap")
	require.True(t, result.Read["manifests/base/web.yaml"])
	require.False(t, result.Read["manifests/base/unused.yaml"])
	require.Equal(t, []string{"manifests/base"}, kustomization.Bases("manifests/prod/kustomization.yml", fsys["manifests/prod/kustomization.yml"].Data))
}

// Nothing is fetched: what lies elsewhere is reported with its line, and the rest is built.
func TestBuild_Remote(t *testing.T) {
	result := kustomization.Build(tree(
		"kustomization.yaml", `resources:
- web.yaml
- https://example.com/all.yaml
- github.com/example/repo//config?ref=v1
- git@example.com:a/b.git
- gone.yaml
patches:
- path: https://example.com/patch.yaml
  target: {kind: Deployment}
configMapGenerator:
- name: x
  files: [a=https://example.com/file]
helmCharts:
- {name: x, repo: https://example.com}
`,
		"web.yaml", deployment), "kustomization.yaml")
	var texts []string
	for _, p := range result.Problems {
		texts = append(texts, p.File+":"+string(rune('0'+p.Line/10))+string(rune('0'+p.Line%10))+" "+strings.SplitN(p.Message, ":", 2)[0])
	}
	require.Subset(t, texts, []string{
		"kustomization.yaml:03 resources names https",
		"kustomization.yaml:04 resources names github.com/example/repo//config?ref=v1, which lies in a network and is not fetched",
		"kustomization.yaml:06 resources names gone.yaml, which is not there",
		"kustomization.yaml:08 https",
		"kustomization.yaml:12 https",
		"kustomization.yaml:13 helmCharts is not rendered",
	})
}

func TestBuild_Mistakes(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":       "a: b: c",
		"unknown field": "resuorces: [x.yaml]",
		"empty":         "",
		"itself":        "resources: [.]",
	} {
		t.Run(name, func(t *testing.T) {
			result := kustomization.Build(tree("k/kustomization.yaml", text), "k/kustomization.yaml")
			require.NotEmpty(t, result.Problems)
			require.Empty(t, result.Rendered)
			require.Empty(t, result.Read)
		})
	}
}

// Whatever a kustomization says, nothing outside of the files is asked for, and nothing panics.
func FuzzBuild(f *testing.F) {
	f.Add("resources: [web.yaml]\nimages: [{name: web, newTag: '1'}]\n", deployment)
	f.Add("resources: [https://example.com/x, ../a, github.com/a/b]\npatches: [{path: http://x}]\nhelmCharts: [{name: x}]\n", "a: [b]")
	f.Fuzz(func(t *testing.T, kustomizationText, resource string) {
		if strings.Contains(kustomizationText, "Charts") {
			t.Skip()
		}
		result := kustomization.Build(tree("k/kustomization.yaml", kustomizationText, "k/web.yaml", resource), "k/kustomization.yaml")
		for name := range result.Read {
			require.Contains(t, []string{"k/kustomization.yaml", "k/web.yaml"}, name)
		}
	})
}
