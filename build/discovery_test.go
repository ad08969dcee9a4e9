// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

// A build renders the charts and kustomizations of its rootfs, and packs of the texts that read like images those that
// exist; the others are told.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	for _, repo := range []string{"operator:1", "db:1", "agent:1", "chart:v1.33.0", "kustomized:2", "settings:1"} {
		u.push(repo)
	}
	files := map[string]string{
		"Kubefile": "FROM scratch\nCOPY . .\n",
		"manifests/operator.yaml": `apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: a
        image: HOST/operator:1
        args: [--agent-image=HOST/agent:1]
        env:
        - {name: RELATED_IMAGE_DB, value: "HOST/db:1"}
        - {name: RELATED_IMAGE_GONE, value: "HOST/gone:1"}
---
apiVersion: v1
kind: ConfigMap
data: {x: "image: HOST/settings:1"}
`,
		"manifests/k/kustomization.yaml": "resources: [pod.yaml]\nimages: [{name: web, newName: HOST/kustomized, newTag: '2'}]\n",
		"manifests/k/pod.yaml":           "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: web}]}\n",
		"charts/web/Chart.yaml":          "apiVersion: v2\nname: web\nversion: 1.0.0\n",
		"charts/web/values.yaml":         "image: nobody/has-this:1\n",
		"charts/web.values.yaml":         "image: HOST/chart\n",
		"charts/web/templates/web.yaml":  "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {{ .Values.image }}:{{ .Capabilities.KubeVersion.Version }}\n",
	}
	for name, text := range files {
		files[name] = strings.ReplaceAll(text, "HOST", u.host)
	}
	b := newBench(t, files)
	img := b.mustBuild(func(o *build.Options) { o.KubeVersion, o.ConfigMaps = "v1.33.0", true })
	var names []string
	for _, pi := range img.Images {
		names = append(names, strings.TrimPrefix(pi.Name, u.host+"/")+" "+strings.Join(pi.Origins, " "))
	}
	require.ElementsMatch(t, []string{
		"agent:1 manifests/operator.yaml:9", "chart:v1.33.0 charts/web/templates/web.yaml", "db:1 manifests/operator.yaml:11",
		"kustomized:2 manifests/k/pod.yaml", "operator:1 manifests/operator.yaml:8", "settings:1 manifests/operator.yaml:16",
	}, names)
	require.Len(t, b.warned, 1)
	require.Contains(t, b.warned[0], u.host+"/gone:1")
	require.Contains(t, b.warned[0], "manifests/operator.yaml:12")
}
