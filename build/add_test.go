// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

func gzipped(t *testing.T, name, text string) string {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
	_, err := tw.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	return out.String()
}

func TestAdd(t *testing.T) {
	t.Parallel()
	packed := gzipped(t, "inside/f", "file")
	site, _ := newSite(t, map[string]string{"/a.yaml": deployment, "/deep/x.tgz": packed})
	b := newBench(t, map[string]string{"Kubefile": `FROM scratch
ARG SITE
ADD --checksum=` + sum(deployment) + ` --chmod=600 $SITE/a.yaml manifests/
ADD $SITE/deep/x.tgz?v=1 kept/
ADD --unpack=true $SITE/deep/x.tgz unpacked/
ADD local.tgz local/
ADD --unpack=false local.tgz packed/
ADD f.txt $SITE/a.yaml several/
`, "local.tgz": packed, "f.txt": "f"})
	files := b.files(b.mustBuild(func(o *build.Options) { o.BuildArgs = map[string]string{"SITE": site} }), 0)
	require.Equal(t, []string{
		"Metadata", "kept/x.tgz", "local/inside/f", "manifests/a.yaml", "packed/local.tgz", "several/a.yaml", "several/f.txt", "unpacked/inside/f",
	}, names(files))
	require.Equal(t, deployment, files["manifests/a.yaml"].text)
	require.EqualValues(t, 0o600, files["manifests/a.yaml"].mode)
	require.Equal(t, packed, files["kept/x.tgz"].text)

	b.write(map[string]string{"Kubefile": "FROM scratch\n\nADD --checksum=" + sum("other") + " " + site + "/a.yaml .\n"})
	_, err := b.build()
	require.EqualError(t, err, "Kubefile:3: "+site+"/a.yaml came with the digest "+sum(deployment)+", and --checksum expects "+sum("other"))
	b.write(map[string]string{"Kubefile": "FROM scratch\nADD " + site + "/gone.yaml .\n"})
	_, err = b.build()
	require.EqualError(t, err, "Kubefile:2: downloading "+site+"/gone.yaml: invalid response status 404")
	b.write(map[string]string{"Kubefile": "FROM scratch\nARG SITE\nAPP web $SITE/a.yaml $SITE/gone.yaml\n"})
	_, err = b.build(func(o *build.Options) { o.BuildArgs = map[string]string{"SITE": site} })
	require.EqualError(t, err, "Kubefile:3: downloading "+site+"/gone.yaml: invalid response status 404")
}

// newRepository serves a Git repository over HTTP, and returns its address and its commit.
func newRepository(t *testing.T) (address, commit string) {
	t.Helper()
	backend := "/usr/lib/git-core/git-http-backend"
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git's HTTP server is not installed")
	}
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = filepath.Join(dir, "work")
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return strings.TrimSpace(string(out))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "work", "charts", "web"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "work", "charts", "web", "Chart.yaml"), []byte("name: web\n"), 0o644))
	git("init", "--quiet", "--initial-branch=main")
	git("add", ".")
	git("commit", "--quiet", "--message=one")
	git("tag", "v1")
	git("clone", "--quiet", "--bare", ".", "../apps.git")
	srv := httptest.NewServer(&cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"}})
	t.Cleanup(srv.Close)
	return srv.URL + "/apps.git", git("rev-parse", "HEAD")
}

func TestAdd_Git(t *testing.T) {
	t.Parallel()
	address, commit := newRepository(t)
	b := newBench(t, map[string]string{"Kubefile": `FROM scratch
ARG REPO
ADD $REPO#v1:charts charts/
ADD --keep-git-dir=true --checksum=` + commit + ` $REPO#main all/
`})
	files := b.files(b.mustBuild(func(o *build.Options) { o.BuildArgs = map[string]string{"REPO": address} }), 0)
	require.Equal(t, "name: web\n", files["charts/web/Chart.yaml"].text)
	require.Equal(t, "name: web\n", files["all/charts/web/Chart.yaml"].text)
	require.Contains(t, files, "all/.git/HEAD")
	require.NotContains(t, files, "charts/.git/HEAD")

	b.write(map[string]string{"Kubefile": "FROM scratch\nADD --checksum=" + strings.Repeat("0", 40) + " " + address + "#v1 x/\n"})
	_, err := b.build()
	require.ErrorContains(t, err, "Kubefile:2: ")
}

// COPY --from takes stages by name and number, and images; RUN --mount binds them.
func TestCopy_From(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, map[string]string{"tool": "tool", "Kubefile": "FROM scratch\nCOPY tool bin/tool\n"})
	b.mustBuild(func(o *build.Options) { o.Tag = "test/tools:v1" })
	b.write(map[string]string{"Kubefile": `FROM scratch AS made
RUN echo made > f
FROM scratch
COPY --from=made f one
COPY --from=0 f two
COPY --from=test/tools:v1 bin/tool bin/
RUN --mount=type=bind,from=made,target=/made --mount=type=bind,from=test/tools:v1,source=bin,target=/tools cat /made/f /tools/tool > three
`})
	files := b.files(b.mustBuild(), 0)
	require.Equal(t, "made\n", files["one"].text)
	require.Equal(t, "made\n", files["two"].text)
	require.Equal(t, "tool", files["bin/tool"].text)
	require.Equal(t, "made\ntool", files["three"].text)
}

// WORKDIR, USER and SHELL mean for RUN and COPY what they mean in a Dockerfile.
func TestWorkdirUserShell(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, map[string]string{"f": "f", "Kubefile": `FROM scratch
WORKDIR /etc/app
COPY f copied/
RUN pwd > where
WORKDIR deep
COPY --chmod=777 f ../f
RUN chmod 777 .
USER 1000:1001
RUN id -u > user; id -g > group
SHELL ["/bin/sh", "-c"]
RUN false; echo next > after
`})
	files := b.files(b.mustBuild(), 0)
	require.Equal(t, "/rootfs/etc/app\n", files["etc/app/where"].text)
	require.Equal(t, "f", files["etc/app/copied/f"].text)
	require.Equal(t, "f", files["etc/app/f"].text)
	require.Equal(t, "1000\n", files["etc/app/deep/user"].text)
	require.Equal(t, "1001\n", files["etc/app/deep/group"].text)
	require.Equal(t, 1000, files["etc/app/deep/user"].uid)
	require.Equal(t, "next\n", files["etc/app/deep/after"].text)
}
