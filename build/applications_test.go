// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// newSite serves files by path; others are not found. Requests are counted.
func newSite(t *testing.T, files map[string]string) (address string, asked func() []string) {
	t.Helper()
	return newSiteOf(t, func(path string) (string, bool) {
		text, ok := files[path]
		return text, ok
	})
}

func newSiteOf(t *testing.T, file func(path string) (string, bool)) (address string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var log []string
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		log = append(log, r.Method+" "+r.URL.Path)
		mu.Unlock()
		text, ok := file(r.URL.Path)
		if !ok {
			http.Error(w, "<html>no such page</html>", http.StatusNotFound)
			return
		}
		_, _ = fmt.Fprint(w, text)
	}))
	t.Cleanup(site.Close)
	return site.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(log)
	}
}

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(digest[:])
}

const deployment = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"

func TestApplications(t *testing.T) {
	t.Parallel()
	site, asked := newSite(t, map[string]string{"/a/first.yaml": deployment, "/pinned.yml": deployment})
	b := newBench(t, map[string]string{
		"kubeadm": "x", "calico.sh": "#!/bin/bash\n", "yaml/b.yaml": deployment, "yaml/a.yml": deployment, "yaml/c.yaml.tmpl": "x: {{ .X }}\n",
		"chart/Chart.yaml": "name: web\nversion: 1.0.0\n", "chart/values.yaml": "a: 1\n", "chart/templates/x.tpl": "x", "mixed/a.txt": "text",
	})
	b.write(map[string]string{"Kubefile": strings.Join([]string{
		"FROM scratch", "COPY kubeadm bin/kubeadm", "LABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.30.2",
		"CNI calico local://calico.sh", "CSI nfs local://yaml", `LAUNCH ["calico"]`, "",
	}, "\n")})
	base := b.mustBuild(func(o *build.Options) { o.Tag = "test/base:v1" }).Rootfs[0]
	require.Equal(t, []clusterimage.Application{
		{Name: "calico", Type: "shell", Files: []string{"calico.sh"}},
		{Name: "nfs", Type: "kube", Files: []string{"a.yml", "b.yaml", "c.yaml"}},
	}, base.Extension.Applications)
	require.Equal(t, clusterimage.Launch{AppNames: []string{"calico"}}, base.Extension.Launch)
	require.Equal(t, "true", base.Config.Config.Labels["cluster.alpha.sealer.io/kube-cni-calico"])
	require.Equal(t, "true", base.Config.Config.Labels["cluster.alpha.sealer.io/kube-csi-nfs"])

	b.write(map[string]string{"Kubefile": `FROM test/base:v1
ARG SITE
APP plain local://yaml/b.yaml $SITE/a/first.yaml
APP --checksum=` + sum(deployment) + ` pinned $SITE/pinned.yml
APP web local://chart
APPCMDS mixed ["cat a.txt", "true || false"]
APP mixed local://mixed local://calico.sh
APPENV mixed WORD="two words"
APPENV calico MTU=1400
APP nfs local://calico.sh
KUBEVERSION >=1.28, <1.31
LAUNCH calico plain pinned web mixed
`})
	child := b.mustBuild(func(o *build.Options) { o.BuildArgs = map[string]string{"SITE": site} })
	r := child.Rootfs[0]
	require.Equal(t, []clusterimage.Application{
		{Name: "calico", Type: "shell", Files: []string{"calico.sh"}, Env: map[string]string{"MTU": "1400"}},
		{Name: "plain", Type: "kube", Files: []string{"b.yaml", "first.yaml"}},
		{Name: "pinned", Type: "kube", Files: []string{"pinned.yml"}},
		{Name: "web", Type: "helm", Files: []string{"."}},
		{Name: "mixed", Cmds: []string{"cat a.txt", "true || false"}, Env: map[string]string{"WORD": "two words"}},
		{Name: "nfs", Type: "shell", Files: []string{"calico.sh"}},
	}, r.Extension.Applications)
	require.Equal(t, clusterimage.Launch{AppNames: []string{"calico", "plain", "pinned", "web", "mixed"}}, r.Extension.Launch)
	require.Equal(t, clusterimage.KubeInstaller, r.Extension.Type)
	require.Equal(t, ">=1.28, <1.31", r.Config.Config.Labels[clusterimage.LabelKubeVersion])
	require.Equal(t, "true", r.Config.Config.Labels["cluster.alpha.sealer.io/kube-cni-calico"], "inherited")
	files := b.files(child, 0)
	for _, name := range []string{
		"calico/calico.sh", "plain/b.yaml", "plain/first.yaml", "pinned/pinned.yml", "web/Chart.yaml", "web/templates/x.tpl", "mixed/a.txt", "mixed/calico.sh", "nfs/calico.sh",
	} {
		require.Contains(t, files, "application/apps/"+name)
	}
	require.Equal(t, deployment, files["application/apps/plain/first.yaml"].text)
	require.Contains(t, strings.Join(names(files), "\n"), "application/apps/nfs/.wh.", "the base's files of this application are gone")
	require.Equal(t, []string{"/bin/sh", "-ec", strings.Join([]string{
		`(cd application/apps/calico || exit; "$(command -v bash || echo sh)" calico.sh`, ")",
		"(cd application/apps/plain || exit; kubectl apply -f b.yaml && kubectl apply -f first.yaml", ")",
		"(cd application/apps/pinned || exit; kubectl apply -f pinned.yml", ")",
		"(cd application/apps/web || exit; helm upgrade --install web .", ")",
		"(cd application/apps/mixed || exit; { cat a.txt", "} && { true || false", "}", ")",
	}, "\n")}, r.Config.Config.Cmd)

	before := len(asked())
	again, err := b.build(func(o *build.Options) { o.BuildArgs = map[string]string{"SITE": site} })
	require.NoError(t, err)
	require.Equal(t, child.Descriptor.Digest, again.Descriptor.Digest)
	require.NotContains(t, asked()[before:], "GET /pinned.yml", "what has a checksum is not fetched again")
}

func TestApplications_Mistakes(t *testing.T) {
	t.Parallel()
	site, _ := newSite(t, map[string]string{"/a.yaml": deployment})
	b := newBench(t, map[string]string{"mixed/a.txt": "x", "mixed/b.yaml": deployment, "a.yaml": deployment, "kubeadm": "x"})
	b.write(map[string]string{"Kubefile": "FROM scratch\nCOPY kubeadm bin/kubeadm\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.30.2\nAPP web local://a.yaml\n"})
	b.mustBuild(func(o *build.Options) { o.Tag = "test/base:v1" })
	for _, c := range []struct{ lines, want string }{
		{"APP a SITE/gone.yaml", "Kubefile:2: downloading " + site + "/gone.yaml: invalid response status 404"},
		{"APP --checksum=" + sum("other") + " a SITE/a.yaml", "Kubefile:2: " + site + "/a.yaml came with the digest " + sum(deployment) + ", and --checksum expects " + sum("other")},
		{"APP a local://a.yml", `Kubefile:2: "a.yml" is not in the build context (did you mean "a.yaml"?)`},
		{"APP mixed local://mixed\nLAUNCH mixed", "Kubefile:2: APP mixed: its files are neither all manifests (.yaml, .yml), nor all scripts (.sh), nor a chart (Chart.yaml, values.yaml, templates), so it is not known how to launch it: a.txt, b.yaml"},
		{"LAUNCH wbe", "Kubefile:2: LAUNCH wbe: no APP, CNI or CSI has this name (did you mean web?); there are web"},
		{`APPCMDS other ["x"]`, "Kubefile:2: APPCMDS other: no APP, CNI or CSI has this name; there are web"},
		{"KUBEVERSION >=1.31", "Kubefile:2: KUBEVERSION: it is for Kubernetes >=1.31, not for v1.30.2"},
	} {
		b.write(map[string]string{"Kubefile": "FROM test/base:v1\n" + strings.ReplaceAll(c.lines, "SITE", site) + "\n"})
		_, err := b.build()
		require.ErrorContains(t, err, c.want, c.lines)
		var position *kubefile.PositionError
		require.ErrorAs(t, err, &position, c.lines)
	}
	b.warned = nil
	b.write(map[string]string{"Kubefile": "FROM test/base:v1\nAPP mixed local://mixed\n"})
	b.mustBuild()
	require.Contains(t, strings.Join(b.warned, "\n"), "Kubefile:2: APP mixed: its files are neither", "it can still be used by a CMD")
}

// Commands of a base go before those of what is built on it, however either writes them.
func TestLaunchOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"a.yaml": deployment, "Kubefile": "FROM scratch\nCMD one\nENTRYPOINT zero\n"})
	b.mustBuild(func(o *build.Options) { o.Tag = "test/one:v1" })
	b.write(map[string]string{"Kubefile": "FROM test/one:v1\nAPP a local://a.yaml\nLAUNCH a\n"})
	b.mustBuild(func(o *build.Options) { o.Tag = "test/two:v1" })
	b.write(map[string]string{"Kubefile": "FROM test/two:v1\nWORKDIR /etc/x\nCMDS [\"three\", \"four\"]\n"})
	r := b.mustBuild().Rootfs[0]
	require.Equal(t, clusterimage.Launch{Cmds: []string{"zero", "one", "cd etc/x || exit; three", "cd etc/x || exit; four"}, AppNames: []string{"a"}, After: 2}, r.Extension.Launch)
	require.Equal(t, []string{
		"zero", "one", "(cd application/apps/a || exit; kubectl apply -f a.yaml\n)", "(cd etc/x || exit; three\n)", "(cd etc/x || exit; four\n)",
	}, r.Extension.Script())
	require.Equal(t, "/etc/x", r.Config.Config.WorkingDir)
}
