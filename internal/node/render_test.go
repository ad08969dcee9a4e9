// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(data), 0o640))
	}
	return dir
}

func TestRender(t *testing.T) {
	m := newMachine(t)
	dir := tree(t, map[string]string{
		"etc/a.yaml.tmpl":                  "port: {{ .port }} {{ add .port 1 }} big: {{ .big }} f: {{ .f }}\n",
		"scripts/deep/x.sh.tmpl":           "{{ range .hosts }}{{ .ip | quote }} {{ end }}{{ if eq .port 5000 }}same{{ end }}\n",
		"manifests/cm.yaml.tmpl":           `{{ "v" | b64enc }} {{ .nested.key }} {{ dig "none" "other" .nested }} {{ with index . "maybe" }}{{ . }}{{ end }}`,
		"charts/c/values.yaml.tmpl":        "x",
		"application/apps/web/a.yaml.tmpl": "{{ .nested.key }}",
		"bin/not.tmpl":                     "{{ .nothing }}",
		"etc/plain":                        "{{ untouched }}",
		"etc/.tmpl":                        "{{ .nothing }}",
	})
	require.NoError(t, os.Chmod(filepath.Join(dir, "scripts/deep/x.sh.tmpl"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/a.yaml"), []byte("old and much longer than the new one, so that a rest would show"), 0o600))
	values := `{"values":{"port":5000,"big":10000000,"f":1.5,"hosts":[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}],"nested":{"key":"deep"}}}`
	var out struct{ Files []string }
	require.NoError(t, json.Unmarshal([]byte(m.run(strings.NewReader(values), "render", "--dir", dir)), &out))
	require.Len(t, out.Files, 5)
	for file, want := range map[string]string{
		"etc/a.yaml":                  "port: 5000 5001 big: 10000000 f: 1.5\n",
		"scripts/deep/x.sh":           "\"10.0.0.1\" \"10.0.0.2\" same\n",
		"manifests/cm.yaml":           "dg== deep other ",
		"charts/c/values.yaml":        "x",
		"application/apps/web/a.yaml": "deep",
	} {
		require.Equal(t, want, string(must(os.ReadFile(filepath.Join(dir, file)))), file)
	}
	require.Equal(t, fs.FileMode(0o755), must(os.Stat(filepath.Join(dir, "scripts/deep/x.sh"))).Mode())
	require.Equal(t, fs.FileMode(0o640), must(os.Stat(filepath.Join(dir, "etc/a.yaml"))).Mode())
	require.NoFileExists(t, filepath.Join(dir, "bin/not"))
}

// Templates of an application see its own variables, the others do not.
func TestRender_Applications(t *testing.T) {
	m := newMachine(t)
	dir := tree(t, map[string]string{
		"application/apps/web/deep/a.yaml.tmpl": "{{ .a }} {{ .b }} {{ .n }}",
		"application/apps/website/a.yaml.tmpl":  `{{ .a }} {{ with index . "b" }}{{ . }}{{ end }}`,
		"etc/a.yaml.tmpl":                       "{{ .a }}",
	})
	m.run(strings.NewReader(`{"values":{"a":"all"},"applications":{"web":{"a":"web","b":"x","n":1000000}}}`), "render", "--dir", dir)
	for file, want := range map[string]string{
		"application/apps/web/deep/a.yaml": "web x 1000000", "application/apps/website/a.yaml": "all ", "etc/a.yaml": "all",
	} {
		require.Equal(t, want, string(must(os.ReadFile(filepath.Join(dir, file)))), file)
	}
}

func TestRender_NamesFileLineAndKeyOfEveryMistake(t *testing.T) {
	m := newMachine(t)
	dir := tree(t, map[string]string{
		"etc/a.tmpl":        "fine\nsecond {{ .registry.port }}\n{{ $.Hostname | quote }}{{ if .KubeVersion }}{{ .unseen }}{{ end }}\n{{ or .KubeVersion .Other }}{{ and .Sooner true }}\n",
		"etc/c.tmpl":        "{{ range .hosts }}{{ .ip }}{{ end }}{{ .hosts }}\n{{ with .KubeVersion }}{{ $.late }}{{ end }}",
		"etc/b.tmpl":        "{{ if }}",
		"manifests/ok.tmpl": "fine",
		"scripts/env.tmpl":  `{{ env "HOME" }}`,
	})
	r := m.try(strings.NewReader(`{"values":{"registry":{},"HostName":"a","KubeVersion":"v1","hosts":[]}}`), "render", "--dir", dir)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, `rendering "etc/a.tmpl"`)
	require.Contains(t, r.err, "etc/a.tmpl:2:")
	require.Contains(t, r.err, `etc/a.tmpl:2: no value is given for "registry.port"`+"\n")
	require.Contains(t, r.err, `etc/a.tmpl:3: no value is given for "Hostname" (did you mean HostName?)`)
	require.Contains(t, r.err, `etc/a.tmpl:4: no value is given for "Sooner"`)
	require.NotContains(t, r.err, `"Other"`)
	require.Regexp(t, `etc/c.tmpl:2:.*"late"`, r.err)
	require.Contains(t, r.err, `rendering "etc/b.tmpl"`)
	require.Contains(t, r.err, `function "env" not defined`)
	require.NoFileExists(t, filepath.Join(dir, "manifests/ok"), "nothing is written where anything is wrong")
}

func TestRender_FollowsNoLinkOutOfTheRootfs(t *testing.T) {
	m := newMachine(t)
	outside := tree(t, map[string]string{"x.tmpl": "evil", "target": "mine"})
	dir := tree(t, map[string]string{"etc/out.tmpl": "new"})
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "scripts")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "etc/sub")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "target"), filepath.Join(dir, "etc/out")))
	m.run(strings.NewReader(`{"values":{}}`), "render", "--dir", dir)
	require.NoFileExists(t, filepath.Join(outside, "x"))
	require.Equal(t, "mine", string(must(os.ReadFile(filepath.Join(outside, "target")))))
	require.Equal(t, "new", string(must(os.ReadFile(filepath.Join(dir, "etc/out")))))
}
