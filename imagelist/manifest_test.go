// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
)

const object = "apiVersion: v1\nkind: Pod\n"

// found lists images with their lines, candidates with a question mark, and problems as text, one a line.
func found(images []imagelist.Image, problems []imagelist.Problem) string {
	var text strings.Builder
	for _, image := range images {
		fmt.Fprint(&text, image.Name)
		if image.Candidate {
			fmt.Fprint(&text, "?")
		}
		for _, origin := range image.Origins {
			fmt.Fprintf(&text, " %d", origin.Line)
		}
		fmt.Fprintln(&text)
	}
	for _, problem := range problems {
		fmt.Fprintln(&text, "!", problem)
	}
	return text.String()
}

func TestParseManifests(t *testing.T) {
	for name, test := range map[string]struct{ src, want string }{
		// sealer packed one of these (a scan of lines) and said nothing
		"ways to write a pod": {`apiVersion: v1
kind: Pod
spec:
  initContainers:
  - {name: b, image: quay.io/inline/flow:1}
  containers:
  - name: a
    image: quay.io/trailing/comment:1 # the proxy
  - image: 'quay.io/single/quoted:1'
    name: c
  - name: d
    image: quay.io/plain/value:1
  - name: e
    image: >-
      quay.io/block/scalar:1
  - "image": "quay.io/double/quoted:1"
  ephemeralContainers:
  - name: f
    image: |
      quay.io/literal/block:1
  volumes:
  - name: v
    image:
      reference: quay.io/image/volume:1
      pullPolicy: Always
`, `quay.io/block/scalar:1 14
quay.io/double/quoted:1 16
quay.io/image/volume:1 24
quay.io/inline/flow:1 5
quay.io/literal/block:1 19
quay.io/plain/value:1 12
quay.io/single/quoted:1 9
quay.io/trailing/comment:1 8
`},
		"shapes that Kubernetes does not take": {`apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers: {image: quay.io/no/list:1, env: {RELATED_IMAGE_A: quay.io/no/list-either:1}}
      initContainers:
      - image: {repository: quay.io/no/string, tag: v1}
---
apiVersion: v1
kind: Pod
spec:
- containers: [{image: quay.io/no/map:1}]
`, `quay.io/no/list-either:1? 6
quay.io/no/list:1 6
quay.io/no/map:1 13
quay.io/no/string:v1 8
`},
		"maps that are an image": {`apiVersion: example.com/v1
kind: Shop
spec:
  a: {image: {registry: quay.io, name: by/name, tag: v1}}
  b: {image: {registry: quay.io, name: without/tag}}
  c: {img: {repository: quay.io/by/version, version: v1}}
  d: {imagePullSecrets: [{name: login}], image: {name: left alone}}
  e: {chart: {repository: quay.io/some/chart, name: x, version: v1}}
`, `quay.io/by/name:v1 4
quay.io/by/version:v1 6
! m.yaml:5: the image "quay.io/without/tag" has no tag and no digest here: write it into imageList
`},
		"many documents, lists, cron jobs": {`# one
---
apiVersion: batch/v1
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: job}]}}}}}
---
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  spec:
    template:
      spec:
        containers:
        - image: job:latest
...
---
apiVersion: x.example.com/v1
kind: Thing
spec:
  deep:
  - er: {image: registry.example.com:5000/cr}
  proxyImage: quay.io/a/proxy:2
  machineImage: ubuntu-24.04
  showImage: true
  image:
    repository: quay.io/a/map
    tag: v1
`, `docker.io/library/job:latest 5 17
quay.io/a/map:v1 29
quay.io/a/proxy:2 25
registry.example.com:5000/cr:latest? 24
`},
		"anchors": {object + `x: &image quay.io/a/b:1
base: &base
  image: quay.io/a/base:1
spec:
  containers:
  - image: *image
  - *base
  - <<: *base
    name: x
`, "quay.io/a/b:1 3 8\nquay.io/a/base:1 5\n"},
		"not an image": {`apiVersion: v1
kind: Pod
metadata: {labels: {image: web}, annotations: {image: not one}}
spec: {selector: {image: web}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec: {versions: [{schema: {properties: {image: {type: string, default: x}}}}]}
`, ""},
		"problems": {object + `spec:
  containers:
  - image: ${REGISTRY}/nginx:1
  - image: Nginx
  - image: 7
  - image: ""
  - image:
  - image: https://quay.io/a/b
  - image: quay.io/a/b:1
cr: {image: "", other: {image: null}, more: {image: {repository: a/b}}}
`, `quay.io/a/b:1 11
! m.yaml:5: "${REGISTRY}/nginx:1" is not the name of an image: invalid reference format
! m.yaml:6: "Nginx" is not the name of an image: invalid reference format: repository name (library/Nginx) must be lowercase
! m.yaml:7: the image 7 is no string
! m.yaml:8: the image is empty: if something fills it in later, write that image into imageList
! m.yaml:9: the image is empty: if something fills it in later, write that image into imageList
! m.yaml:10: "https://quay.io/a/b" is not the name of an image: a reference has no https:// in front
! m.yaml:12: the image "a/b" has no tag and no digest here: write it into imageList
`},
		"no objects": {`image: {repository: a/b, tag: "1"}
controller: {image: x}
---
just: values
---
- image: y
---
a string
`, `! m.yaml:1: no Kubernetes object (apiVersion or kind is missing): what it calls image, 2 times, is not packed; write it into imageList
! m.yaml:6: no Kubernetes object (apiVersion or kind is missing): what it calls image, 1 times, is not packed; write it into imageList
`},
		"template": {`apiVersion: v1
kind: Pod
spec:
{{- if .Values.x }}
  containers:
  - image: quay.io/a/fixed:1
  {{- /* a
  comment */}}
  - image: {{ .Registry }}/nginx:1
  - image: "{{ .Registry }}/redis:1"
    args: ["--x={{ .X }}"]
{{- end }}
---
apiVersion: v1
kind: ConfigMap
data: {rule: "{{ $labels.x }}", image: quay.io/a/c:1}
`, `quay.io/a/fixed:1 6
! m.yaml:9: the image depends on a template's values: write it into imageList
! m.yaml:10: the image depends on a template's values: write it into imageList
! m.yaml:14: the ConfigMap "" names 1 images, quay.io/a/c:1 first, which are not packed: pack them, too (--config-maps), or write them into imageList
`},
		"template without sense": {`a: b
  c: {{ .X }}
 - image: x
`, `! m.yaml:2: the template is no YAML without its values (mapping values are not allowed in this context): write its images into imageList
`},
		"json": {"{\n \"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\t\"spec\": {\"containers\": [\n\t\t{\"image\": \"quay.io\\/a\\/b:1\", \"name\": \"\\ud83d\\ude00\"},\n\t\t{\"image\": 3}]}\n}\n", `quay.io/a/b:1 4
! m.yaml:5: the image 3 is no string
`},
		"flow that is no json":             {"{apiVersion: v1, kind: Pod, image: quay.io/a/b:1}", "quay.io/a/b:1 1\n"},
		"markers in strings end documents": {object + "image: quay.io/a/b:1 \n--- # next\n" + object + "image: quay.io/a/c:1\n--- {apiVersion: v1, kind: Pod, image: d}\n", "docker.io/library/d:latest? 8\nquay.io/a/b:1 3\nquay.io/a/c:1 7\n"},
		"directive":                        {"%YAML 1.1\n---\n" + object + "image: quay.io/a/b:1\n", "quay.io/a/b:1 5\n"},
		"windows":                          {"\ufeffapiVersion: v1\r\nkind: Pod\r\nimage: quay.io/a/b:1\r\n---\r\nkind: Pod\r\napiVersion: v1\r\nimage: quay.io/a/c:1\r\n", "quay.io/a/b:1 3\nquay.io/a/c:1 7\n"},
		"long line":                        {object + "data: \"" + strings.Repeat("x", 200<<10) + "\"\nimage: quay.io/a/b:1\n", "quay.io/a/b:1 4\n"},
		"digests":                          {object + "image: quay.io/a/b:1@" + sum + "\n", "quay.io/a/b:1@" + sum + " 3\n"},
		"nothing":                          {"", ""},
		"comments only":                    {"# image: x\n---\n# y\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			images, problems, err := imagelist.ParseManifests("m.yaml", []byte(test.src))
			require.NoError(t, err)
			require.Equal(t, test.want, found(images, problems))
		})
	}
}

// A mistake in one document hides neither the others nor their mistakes.
func TestParseManifests_Mistakes(t *testing.T) {
	src := object + "image: quay.io/a/b:1\n---\na: b: c\n---\n" + object + "spec:\n\timage: x\n---\n" + object + "image: quay.io/a/c:1\n---\nx: [1\n"
	images, problems, err := imagelist.ParseManifests("m.yaml", []byte(src))
	require.Equal(t, "quay.io/a/b:1 3\nquay.io/a/c:1 14\n", found(images, problems))
	var errs imagelist.Errors
	require.ErrorAs(t, err, &errs)
	require.Equal(t, `m.yaml:5: reading YAML: mapping values are not allowed in this context
   5 | a: b: c
m.yaml:10: reading YAML: a tab indents the line, where YAML takes spaces only: found character that cannot start any token
  10 |  image: x
m.yaml:16: reading YAML: did not find expected ',' or ']'
  16 | x: [1`, errs.Show())
}

func TestParseManifests_Bounds(t *testing.T) {
	_, _, err := imagelist.ParseManifests("m.yaml", make([]byte, imagelist.MaxFile+1))
	require.ErrorContains(t, err, "more than the 33554432 that are read")

	var bomb strings.Builder
	bomb.WriteString(object + "a0: &a0 [quay.io/a/b:1]\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1)
	}
	bomb.WriteString("spec: {containers: *a59, image: quay.io/a/c:1}\n")
	images, problems, err := imagelist.ParseManifests("m.yaml", []byte(bomb.String()))
	require.NoError(t, err)
	require.Equal(t, "quay.io/a/b:1? 3\nquay.io/a/c:1 63\n", found(images, problems))

	for _, deep := range []string{strings.Repeat("[", 200000), strings.Repeat(`{"a":`, 200000), strings.Repeat("- ", 200000)} {
		_, _, err := imagelist.ParseManifests("m.yaml", []byte(deep))
		require.ErrorContains(t, err, "m.yaml:1: reading YAML")
	}
}
