// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/imagelist/chart/helm"
)

func pod(image string) *fstest.MapFile { return text(object + "image: " + image + "\n") }

func text(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// packed is an archive with files below a folder.
func packed(t *testing.T, folder string, files ...string) *fstest.MapFile {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: folder + "/" + files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return &fstest.MapFile{Data: buf.Bytes()}
}

const chartYAML = "apiVersion: v2\nname: web\nversion: 1.0.0\n"

func TestDiscover_Charts(t *testing.T) {
	template := object + "image: quay.io/c/{{ .Values.name }}:{{ .Chart.Version }}\n"
	chart := func(name string) *fstest.MapFile {
		return packed(t, "web", "Chart.yaml", chartYAML, "values.yaml", "name: "+name+"\n", "templates/a.yaml", template)
	}
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{
		"charts/web-1.0.0.tgz":             chart("one"),
		"charts/web-1.0.0.values.yaml":     text("name: full"),
		"charts/db-2.0.0-rc.1.tgz":         chart("two"),
		"charts/db.values.yaml":            text("name: short"),
		"charts/folder/Chart.yaml":         text(chartYAML),
		"charts/folder/templates/a.yaml":   text(template),
		"charts/folder.values.yaml":        text("name: folder"),
		"charts/note.tgz":                  packed(t, "x", "readme", "hello"),
		"charts/pod.yaml":                  pod("quay.io/not/read:1"),
		"manifests/deep/in.tgz":            chart("in-manifests"),
		"manifests/deep/files.tgz":         packed(t, "x", "readme", "hello"),
		"application/apps/a/web-1.0.0.tgz": chart("app"),
		"application/apps/a/pod.yaml":      pod("quay.io/c/app-pod:1"),
		"application/apps/note.yaml":       pod("quay.io/not/read:1"),
		"images/shim/list":                 text("quay.io/c/shim:1"),
		"root.yaml":                        pod("quay.io/c/root:1"),
		"root.json":                        text("{"),
		"etc/x.yaml":                       pod("quay.io/not/read:1"),
	}, imagelist.WithCharts(helm.Renderer{}))
	require.NoError(t, err)
	require.Equal(t, `quay.io/c/app-pod:1 3
quay.io/c/app:1.0.0 0
quay.io/c/folder:1.0.0 0
quay.io/c/full:1.0.0 0
quay.io/c/in-manifests:1.0.0 0
quay.io/c/root:1 3
quay.io/c/shim:1 1
quay.io/c/short:1.0.0 0
! charts/note.tgz:1: the archive holds no chart
`, found(result.Images, result.Problems))
	require.Equal(t, "application/apps/a/web-1.0.0.tgz/templates/a.yaml", result.Images[1].Origins[0].String())
	require.Equal(t, []string{"a", "a", "", "", "", "", "", ""}, []string{
		result.Images[0].App, result.Images[1].App, result.Images[2].App, result.Images[3].App,
		result.Images[4].App, result.Images[5].App, result.Images[6].App, result.Images[7].App,
	})
}

func TestDiscover_KubeVersion(t *testing.T) {
	fsys := fstest.MapFS{
		"imageList":                  text("registry.k8s.io/kube-apiserver:v1.29.3\n"),
		"charts/web/Chart.yaml":      text(chartYAML),
		"charts/web/templates/a.yml": text(object + "image: quay.io/c/web:{{ .Capabilities.KubeVersion.Version }}\n{{ if .Capabilities.APIVersions.Has \"a/v1\" }}more: {image: quay.io/c/more:1}{{ end }}\n"),
	}
	names := func(options ...imagelist.Option) string {
		result, err := imagelist.Discover(t.Context(), fsys, append(options, imagelist.WithCharts(helm.Renderer{}))...)
		require.NoError(t, err)
		var all []string
		for _, image := range result.Images {
			all = append(all, image.Name)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	require.Equal(t, "quay.io/c/web:v1.29.3 registry.k8s.io/kube-apiserver:v1.29.3", names())
	require.Equal(t, "quay.io/c/more:1 quay.io/c/web:v1.33.0 registry.k8s.io/kube-apiserver:v1.29.3",
		names(imagelist.WithKubeVersion("1.33.0"), imagelist.WithAPIVersions("a/v1")))
	_, err := imagelist.Discover(t.Context(), fsys, imagelist.WithKubeVersion("new"))
	require.ErrorContains(t, err, `"new" is no version of Kubernetes`)
}

// Where a kustomization cannot be built, its files count as they stand there.
func TestDiscover_Kustomizations(t *testing.T) {
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{
		"manifests/good/kustomization.yaml":   text("resources: [a.yaml]\nimages: [{name: quay.io/k/a, newTag: '2'}]\n"),
		"manifests/good/a.yaml":               text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: 'quay.io/k/a:1'}]}\n"),
		"manifests/good/beside.yaml":          pod("quay.io/k/beside:1"),
		"manifests/broken/kustomization.yaml": text("resuorces: [b.yaml]\n"),
		"manifests/broken/b.yaml":             pod("quay.io/k/b:1"),
	})
	require.NoError(t, err)
	require.Equal(t, "quay.io/k/a:2 0\nquay.io/k/b:1 3\nquay.io/k/beside:1 3\n", found(result.Images, nil))
	require.Equal(t, "manifests/good/a.yaml", result.Images[0].Origins[0].String())
	require.Len(t, result.Problems, 1)
	require.Contains(t, result.Problems[0].String(), "manifests/broken/kustomization.yaml: the kustomization cannot be built")
	require.Contains(t, result.Problems[0].Message, "resuorces")
}
