//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What users get wrong: each has a clear error, the right exit code, nothing on
// stdout, and leaves no image. The cases that sealer 0.11 got wrong are among them.
func TestWrongInput(t *testing.T) {
	const root = "wrong"
	write := func(t *testing.T, files map[string]string) string {
		t.Helper()
		dir := t.TempDir()
		for name, text := range files {
			path := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		return dir
	}
	built := []string{"build", "-t", "x.example/wrong:1", "DIR"}
	for _, test := range []struct {
		name  string
		files map[string]string
		args  []string
		code  int
		want  []string
	}{
		{"a word that is none", map[string]string{"Kubefile": "FROM scratch\nCOPPY a b\n"}, built, 1,
			[]string{"Kubefile:2:", "COPPY", "did you mean COPY?"}},
		{"several mistakes at once", map[string]string{"Kubefile": "FROM scratch\nCOPPY a b\nCOPY a\n"}, built, 1,
			[]string{"Kubefile:2:", "Kubefile:3:"}},
		{"KUBEVERSION without an argument", map[string]string{"Kubefile": "FROM scratch\nKUBEVERSION\n"}, built, 1,
			[]string{"Kubefile:2:", "KUBEVERSION"}},
		{"APPCMDS without an argument", map[string]string{"Kubefile": "FROM scratch\nAPPCMDS\n"}, built, 1,
			[]string{"Kubefile:2:", "APPCMDS"}},
		{"instructions of containers", map[string]string{"Kubefile": "FROM scratch\nEXPOSE 80\nVOLUME /x\nONBUILD RUN true\n"}, built, 1,
			[]string{"Kubefile:2:", "EXPOSE", "Kubefile:3:", "VOLUME", "Kubefile:4:", "ONBUILD"}},
		{"an empty Kubefile", map[string]string{"Kubefile": ""}, built, 1, []string{"Kubefile"}},
		{"no Kubefile", map[string]string{"other": ""}, built, 1, []string{"Kubefile"}},
		{"a context that is not there", nil, []string{"build", "-t", "x.example/wrong:1", "nowhere"}, 1, []string{"nowhere"}},
		{"COPY of what is not there", map[string]string{"Kubefile": "FROM scratch\nCOPY missing .\n"}, built, 1,
			[]string{"Kubefile:2:", "missing"}},
		{"a RUN that fails", map[string]string{"Kubefile": "FROM scratch\nRUN echo no && exit 7\n"}, built, 1,
			[]string{"Kubefile:2:", "exit code: 7"}},
		{"an imageList with a wrong line", map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": "# one\nnginx:1\nNot An Image\n"}, built, 1,
			[]string{"imageList:3:"}},
		{"an image that is not there", map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": "docker.io/sealer-test/none:1\n"}, built, 1,
			[]string{"imageList:1: docker.io/sealer-test/none:1"}},
		{"an image without the platform", map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": "docker.io/sealer-test/multi:v1 platform=linux/s390x\n"}, built, 1,
			[]string{"imageList:1: docker.io/sealer-test/multi:v1", "linux/s390x", "linux/amd64", "linux/arm64", "--ignored-image-list"}},
		{"a FROM that is not there", map[string]string{"Kubefile": "FROM docker.io/sealer-test/none:1\n"}, built, 1,
			[]string{"Kubefile:1:", "docker.io/sealer-test/none:1"}},
		{"no tag", map[string]string{"Kubefile": "FROM scratch\n"}, []string{"build", "DIR"}, 2, []string{"--tag"}},
		{"a tag that is none", map[string]string{"Kubefile": "FROM scratch\n"}, []string{"build", "-t", "UPPER:1", "DIR"}, 1, []string{"UPPER"}},
		{"an unknown isolation", map[string]string{"Kubefile": "FROM scratch\n"}, []string{"build", "-t", "x.example/y:1", "--isolation", "jail", "DIR"}, 2, []string{"jail", "chroot"}},
		{"an unknown compression", map[string]string{"Kubefile": "FROM scratch\n"}, []string{"build", "-t", "x.example/y:1", "--compression", "xz", "DIR"}, 2, []string{"xz", "gzip"}},
		{"an unknown command", nil, []string{"biuld"}, 2, []string{"did you mean build?"}},
		{"an unknown flag", nil, []string{"images", "--bogus"}, 2, []string{"--bogus"}},
		{"an unknown output", nil, []string{"images", "-o", "xml"}, 2, []string{"xml", "json"}},
		{"an unknown progress", nil, []string{"pull", "x.example/y:1", "--progress", "fancy"}, 2, []string{"fancy", "plain"}},
		{"push of an image that is not there", nil, []string{"push", "x.example/none:1"}, 1, []string{"x.example/none:1"}},
		{"inspect of an image that is not there", nil, []string{"inspect", "none"}, 1, []string{"none"}},
		{"a Clusterfile without a Cluster", map[string]string{"Clusterfile": "apiVersion: sealer.io/v1\nkind: Config\nmetadata: {name: x}\nspec: {path: etc/x, data: y}\n"},
			[]string{"run", "x.example/y:1", "-f", "DIR/Clusterfile"}, 1, []string{"Clusterfile", "Cluster"}},
		{"an unknown key in a Clusterfile", map[string]string{"Clusterfile": "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: x}\nspec:\n  hots: []\n"},
			[]string{"run", "x.example/y:1", "-f", "DIR/Clusterfile"}, 1, []string{"Clusterfile:5", "hots", "hosts"}},
		{"addresses that are none", nil, []string{"run", "x.example/y:1", "--masters", "10.0.0.1-2x"}, 2, []string{"10.0.0.1-2x"}},
		{"delete of a cluster that nobody knows", nil, []string{"delete", "--all", "--yes", "--name", "nobody"}, 1, []string{"nobody", "--masters"}},
		{"delete of nothing", nil, []string{"delete", "--yes"}, 2, []string{"--all"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, test.files)
			args := make([]string, 0, len(test.args))
			for _, a := range test.args {
				args = append(args, strings.Replace(a, "DIR", dir, 1))
			}
			out, stderr, code := runAny(t, root, args...)
			require.Equal(t, test.code, code, stderr)
			require.Empty(t, out)
			for _, text := range test.want {
				require.Contains(t, stderr, text)
			}
			require.NotContains(t, stderr, "panic")
			require.NotContains(t, stderr, "Usage:", "a wall of usage text hides the error")
		})
	}
	require.Equal(t, "[]", sealer(t, root, "images", "-o", "json"))
}

// What sealer 0.11 got wrong and should just work.
func TestRightInput(t *testing.T) {
	const root = "right"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"f1": "one", "f2": "two", "skip.me": "no", ".sealerignore": "skip.me\n",
		"imageList": "# a comment\n\n'docker.io/sealer-test/hello:v1'   # behind it\nsealer-test/hello:v1\n",
		"pod.yaml":  "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - {name: a, image: quay.io/sealer-test/hello:v1} # flow\n  - name: b\n    image: 'docker.io/sealer-test/hello:v2' # quoted\n",
		"Kubefile": `# escape=\
ARG BASE=scratch
FROM ${BASE} AS one
COPY f1 one
from scratch
copy f1 f2 dest/
COPY --from=one --chown=7:8 --chmod=0640 one two
COPY . all/
COPY imageList imageList
COPY pod.yaml manifests/pod.yaml
RUN mkdir -p made && \
    sha256sum dest/f1 > made/sum && echo "$ARCH" > made/arch
WORKDIR etc/shop
COPY f1 ./
RUN test "$(cat f1)" = one && test -f ../../dest/f1
WORKDIR /
ENV GREETING="hello world" OTHER=${GREETING:-none}
LABEL a=b
CMD ["echo", "json form"]
CMD echo shell form
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	sealer(t, root, "build", "-t", "x.example/right:1", dir)
	text := sealer(t, root, "inspect", "x.example/right:1", "-o", "yaml")
	for _, want := range []string{
		"GREETING=hello world", "a: b", "json form", "echo shell form",
		"docker.io/sealer-test/hello:v1", "docker.io/sealer-test/hello:v2", "quay.io/sealer-test/hello:v1",
	} {
		require.Contains(t, text, want)
	}
}

// runAny runs sealer and returns what it printed and its exit code.
func runAny(t *testing.T, root string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := shared.Command(t.Context(), root, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
