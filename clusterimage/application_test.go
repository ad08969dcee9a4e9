// SPDX-License-Identifier: Apache-2.0

package clusterimage_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
)

func TestApplicationType(t *testing.T) {
	for _, c := range []struct {
		files, first []string
		kind         string
		launched     []string
	}{
		{nil, []string{"gone"}, "", nil},
		{[]string{"b.yaml", "a.yml", "c.YAML"}, nil, "kube", []string{"a.yml", "b.yaml", "c.YAML"}},
		{[]string{"a.yaml", "b.yaml", "deep/c.yaml"}, []string{"b.yaml", "deep"}, "kube", []string{"b.yaml", "a.yaml", "deep/c.yaml"}},
		{[]string{"a.yaml", "a.yaml.tmpl", "b.yml.tmpl"}, []string{"b.yml.tmpl"}, "kube", []string{"b.yml", "a.yaml"}},
		{[]string{"b.sh", "a.sh"}, []string{"b.sh", "b.sh"}, "shell", []string{"b.sh", "a.sh"}},
		{[]string{"a.sh", "a.yaml"}, nil, "", nil},
		{[]string{"a.sh", "README"}, nil, "", nil},
		{[]string{"Chart.yaml", "values.yaml", "templates/x.tpl", "README.md"}, []string{"chart"}, "helm", []string{"."}},
		{[]string{"Chart.yaml", "templates/x.yaml"}, nil, "helm", []string{"."}},
		{[]string{"chart/Chart.yaml", "chart/values.yaml", "chart/templates/x.tpl"}, nil, "", nil},
	} {
		kind, launched := clusterimage.ApplicationType(c.files, c.first)
		require.Equal(t, c.kind, kind, c.files)
		require.Equal(t, c.launched, launched, c.files)
	}
}

// What an image launches is run by a real shell, with programs that note how they were called.
func TestExtension_Script(t *testing.T) {
	dir := t.TempDir()
	note := "#!/bin/sh\necho \"$(basename \"$0\") $* in ${PWD#" + dir + "}\" >>" + dir + "/log\n"
	for name, text := range map[string]string{
		"bin/kubectl": note, "bin/helm": note, "etc/x": "", "application/apps/db/a b.yaml": "", "application/apps/web/Chart.yaml": "", "application/apps/own/x": "",
		"application/apps/sh/one.sh": "#!/bin/bash\nkubectl one\n", "application/apps/sh/two.sh": "exit 3\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o755))
	}
	run := func(e clusterimage.Extension) (string, error) {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "log")))
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.Join(e.Script(), "\n"))
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
		err := cmd.Run()
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return string(log), err
	}
	e := clusterimage.Extension{
		Applications: []clusterimage.Application{
			{Name: "db", Type: "kube", Files: []string{"a b.yaml", "c.yaml"}},
			{Name: "web", Type: "helm", Files: []string{"."}},
			{Name: "own", Type: "helm", Cmds: []string{"false || kubectl first", " ", "cat <<end | xargs kubectl\nsecond\nend"}},
			{Name: "sh", Type: "shell", Files: []string{"one.sh"}},
			{Name: "none"},
		},
		Launch: clusterimage.Launch{Cmds: []string{"kubectl before", "cd etc || exit; kubectl behind", "kubectl last"}, AppNames: []string{"db", "web", "own", "sh", "none", "gone"}, After: 1},
	}
	log, err := run(e)
	require.NoError(t, err)
	require.Equal(t, strings.Join([]string{
		"kubectl before in ",
		"kubectl apply -f a b.yaml in /application/apps/db",
		"kubectl apply -f c.yaml in /application/apps/db",
		"helm upgrade --install web . in /application/apps/web",
		"kubectl first in /application/apps/own",
		"kubectl second in /application/apps/own",
		"kubectl one in /application/apps/sh",
		"kubectl behind in /etc",
		"kubectl last in ", "",
	}, "\n"), log)

	e.Applications[3].Files = []string{"two.sh", "one.sh"}
	log, err = run(e)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.NotContains(t, log, "kubectl one", "what comes behind a failure is not run")

	_, err = e.Applications[4].LaunchCommand()
	require.ErrorIs(t, err, clusterimage.ErrNoLaunch)
	_, ok := e.Application("gone")
	require.False(t, ok)
}

func TestCheckKubeVersion(t *testing.T) {
	for _, c := range []struct{ constraint, version, want string }{
		{"", "", ""},
		{"", "nonsense", ""},
		{">=1.20", "v1.20.0", ""},
		{">=1.20", "v1.36.3+k3s1", ""},
		{">=1.30", "v1.30.0-rc.1", ""},
		{"v1.22.15", "v1.22.15", ""},
		{"1.20 - 1.24", "v1.24.9", ""},
		{">=1.20, <1.25 || >=1.30", "v1.31.0", ""},
		{"1.22.x", "v1.22.1", ""},
		{">=1.20", "v1.19.8", "it is for Kubernetes >=1.20, not for v1.19.8"},
		{">=1.20", "", "it is for Kubernetes >=1.20, and the version of Kubernetes is not known"},
		{">=1.20", "new", `reading the Kubernetes version "new": invalid semantic version`},
		{"new", "v1.20.0", `reading the Kubernetes versions "new" that the image is for: improper constraint: "new"`},
	} {
		err := clusterimage.CheckKubeVersion(c.constraint, c.version)
		if c.want == "" {
			require.NoError(t, err, c)
			continue
		}
		require.ErrorContains(t, err, c.want)
	}
}
