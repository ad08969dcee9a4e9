// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/imagelist/chart/helm"
)

const shop = "apiVersion: v2\nname: shop\nversion: 1.0.0\n"

func files(pairs ...string) []chart.File {
	var out []chart.File
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, chart.File{Name: pairs[i], Data: []byte(pairs[i+1])})
	}
	return out
}

func pack(t *testing.T, top string, all []chart.File) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, f := range all {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: top + "/" + f.Name, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(f.Data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return buf.Bytes()
}

func render(t *testing.T, all []chart.File, o chart.Options) ([]chart.Rendered, []chart.Problem) {
	t.Helper()
	result, err := helm.Renderer{}.Render(t.Context(), all, o)
	require.NoError(t, err)
	return result.Rendered, result.Problems
}

func TestRender(t *testing.T) {
	db := files("Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.0.0\n", "values.yaml", "image: db\nglobal: {}\n",
		"templates/db.yaml", "image: {{ .Values.global.registry }}/{{ .Values.image }}\n")
	all := append(files(
		"Chart.yaml", shop+`dependencies:
- {name: db, version: 1.0.0, condition: db.enabled}
- {name: db, version: 1.0.0, alias: replica, condition: replica.enabled}
- {name: cache, version: 1.0.0, condition: cache.enabled}
`,
		"values.yaml", "image: web\nglobal: {registry: quay.io}\ndb: {enabled: true}\nreplica: {enabled: true, image: other}\ncache: {enabled: false}\nextra: 'image: {{ .Values.image }}-tpl'\n",
		"templates/_helpers.tpl", `{{- define "shop.image" -}}{{ .Values.global.registry }}/{{ .Values.image }}{{- end }}`,
		"templates/web.yaml", "image: {{ include \"shop.image\" . }}\nkube: {{ .Capabilities.KubeVersion.Version }}\nrelease: {{ .Release.Name }}\n{{ tpl .Values.extra . }}\n",
		"templates/monitor.yaml", "{{ if .Capabilities.APIVersions.Has \"monitoring.coreos.com/v1\" }}monitor: true{{ end }}",
		"templates/NOTES.txt", "thanks",
		"charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 1.0.0\n",
		"charts/cache/templates/x.yaml", "cache: true",
	), chart.File{Name: "charts/db-1.0.0.tgz", Data: pack(t, "db", db)})

	rendered, problems := render(t, all, chart.Options{
		KubeVersion: "1.30.2", APIVersions: []string{"monitoring.coreos.com/v1"}, Values: files("shop.values.yaml", "image: changed\n"),
	})
	require.Empty(t, problems)
	require.Equal(t, []chart.Rendered{
		{"charts/db/templates/db.yaml", "image: quay.io/db\n"},
		{"charts/replica/templates/db.yaml", "image: quay.io/other\n"},
		{"templates/monitor.yaml", "monitor: true"},
		{"templates/web.yaml", "image: quay.io/changed\nkube: v1.30.2\nrelease: shop\nimage: changed-tpl\n"},
	}, rendered)
}

// One mistake hides neither the other templates nor their mistakes.
func TestRender_Problems(t *testing.T) {
	rendered, problems := render(t, files(
		"Chart.yaml", shop+"kubeVersion: '>=1.31'\ndependencies: [{name: gone, version: 1.x}]\n",
		"templates/a.yaml", "\nhost: {{ required \"a host is needed\" .Values.host }}\nimage: a\n",
		"templates/b.yaml", "image: b\n{{ .Values.x.y.z }}\n",
		"templates/c.yaml", "image: c\n{{ if }}\n",
		"templates/d.yaml", "image: d\n",
		"templates/e.yaml", "image: e\n\n\n{{ include \"nobody\" . }}\n",
		"templates/f.yaml", "{{ repeat 100000000 \"x\" }}",
	), chart.Options{KubeVersion: "v1.30.0"})
	var texts, names []string
	for _, p := range problems {
		texts = append(texts, strings.TrimSpace(strings.Join([]string{p.File, string(rune('0' + p.Line)), p.Message}, " ")))
	}
	for _, r := range rendered {
		names = append(names, r.Name)
	}
	require.Equal(t, []string{"templates/a.yaml", "templates/d.yaml"}, names)
	all := strings.Join(texts, "\n")
	require.Contains(t, all, "Chart.yaml 0 the chart is for Kubernetes >=1.31, not for v1.30.0")
	require.Contains(t, all, `Chart.yaml 0 the dependency "gone" is not in charts/: run helm dependency build`)
	require.Contains(t, all, "templates/c.yaml 2 the template does not render")
	require.Contains(t, all, "templates/b.yaml 2 the template does not render")
	require.Contains(t, all, "templates/e.yaml 4 the template does not render")
	require.Contains(t, all, "templates/f.yaml 1 the template does not render")
	require.Len(t, problems, 6, all)
}

func TestRender_Required(t *testing.T) {
	rendered, problems := render(t, files("Chart.yaml", shop,
		"templates/a.yaml", "\nhost: {{ required \"a host is needed\" .Values.host }}\nimage: a\n{{ if not .Values.host }}{{ fail \"no\" }}{{ end }}"), chart.Options{})
	require.Len(t, rendered, 1)
	require.Contains(t, rendered[0].Text, "image: a")
	require.Len(t, problems, 1)
	require.Equal(t, 2, problems[0].Line)
	require.Contains(t, problems[0].Message, "a host is needed")
}

func TestRender_NoChart(t *testing.T) {
	for name, all := range map[string][]chart.File{
		"nothing":    nil,
		"no name":    files("Chart.yaml", "apiVersion: v2\n"),
		"no YAML":    files("Chart.yaml", "\t"),
		"bad values": files("Chart.yaml", shop, "values.yaml", "a: b: c"),
		"no archive": files("Chart.yaml", shop, "charts/x.tgz", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			rendered, problems := render(t, all, chart.Options{})
			require.Empty(t, rendered)
			require.Len(t, problems, 1)
		})
	}
}

// Archives in archives do not add up to more than one may hold.
func TestRender_Bomb(t *testing.T) {
	big := chart.File{Name: "templates/x.txt", Data: make([]byte, chart.MaxSize/2)}
	inner := pack(t, "sub", append(files("Chart.yaml", shop), big))
	all := files("Chart.yaml", shop)
	for _, name := range []string{"charts/a.tgz", "charts/b.tgz", "charts/c.tgz"} {
		all = append(all, chart.File{Name: name, Data: inner})
	}
	rendered, problems := render(t, all, chart.Options{})
	require.Empty(t, rendered)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].Message, "the chart holds more than 104857600 bytes")
}

func TestRead(t *testing.T) {
	got, err := chart.Read(fstest.MapFS{
		"charts/shop/Chart.yaml":       {Data: []byte(shop)},
		"charts/shop/.helmignore":      {Data: []byte("*.md\nci/\n")},
		"charts/shop/README.md":        {},
		"charts/shop/ci/values.yaml":   {},
		"charts/shop/templates/a.yaml": {Data: []byte("a")},
		"charts/other/Chart.yaml":      {},
	}, "charts/shop")
	require.NoError(t, err)
	var names []string
	for _, f := range got {
		names = append(names, f.Name)
	}
	require.Equal(t, []string{".helmignore", "Chart.yaml", "templates/a.yaml"}, names)
}

func TestUnpack(t *testing.T) {
	got, err := chart.Unpack(pack(t, "shop", files("Chart.yaml", shop)))
	require.NoError(t, err)
	require.Equal(t, files("Chart.yaml", shop), got)
	_, err = chart.Unpack([]byte("x"))
	require.Error(t, err)
}

// Templates may hold anything that ends by itself; values and archives anything at all.
func FuzzRender(f *testing.F) {
	f.Add("image: {{ .Values.a }}", "a: b", []byte("x"))
	f.Add("{{ range $i := until 5 }}{{ repeat 3 \"x\" | nindent 4 }}{{ end }}{{ tpl .Values.a . }}", "a: '{{ .Release.Name }}'", []byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, template, values string, archive []byte) {
		if strings.Contains(template, "define") || strings.Contains(template, "until") || strings.Contains(template, "gen") || strings.Contains(template, "crypt") {
			t.Skip() // recursion, loops and keys take their time
		}
		rendered, problems := render(t, files("Chart.yaml", shop, "templates/a.yaml", template, "values.yaml", values), chart.Options{})
		if len(rendered) == 0 && len(problems) == 0 {
			return // it renders to nothing
		}
		for _, p := range problems {
			require.NotEmpty(t, p.File)
			require.NotEmpty(t, p.Message)
		}
		_, _ = chart.Unpack(archive)
		chart.IsPackage(archive)
	})
}
