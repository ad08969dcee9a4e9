// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/kubefile/lint"
)

// What a rule finds, and what looks like it and is none: the rules of a file
// without a context.
func TestRules_Cases(t *testing.T) {
	const scratch = "FROM scratch\n"
	for text, want := range map[string][]string{
		"FROM a:1\nFROM scratch\nCOPY --from=0 /x /y\n":                                    {},
		"FROM a@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n": {},
		"ARG V=latest\nFROM a:$V\n":                                                        {"base-unpinned"},
		"FROM a:1 AS x\nFROM x\n":                                                          {},
		"FROM scratch AS amd64\nFROM scratch AS arm64\nFROM ${ARCH}\n":                     {},
		"FROM scratch AS amd64\nFROM scratch AS amd46\nFROM ${ARCH}\n":                     {"stage-unreachable"},
		scratch + "COPY --from=tools /x /y\n":                                              {"base-unpinned"},
		scratch + "RUN --mount=from=tools,target=/t ls\n":                                  {"base-unpinned"},
		"# toolbox=tools\nFROM scratch\n":                                                  {"base-unpinned"},
		"FROM --platform=$BUILDPLATFORM a:1\n":                                             {},

		// downloads
		scratch + "RUN curl -fsSL https://x.io/a -o a && echo '1  a' | sha256sum -c\n": {},
		scratch + "RUN wget https://x.io/a\nRUN sha256sum -c sums\n":                   {},
		scratch + "RUN sha256sum -c sums\nRUN wget https://x.io/a\n":                   {"download-unchecked"},
		scratch + "RUN wget http://localhost:8080/a\n":                                 {},
		scratch + "RUN echo https://x.io/a\n":                                          {},
		scratch + "RUN curl -x https://proxy.x.io --version\n":                         {},
		scratch + "RUN wget \"https://x.io/${V}/a\"\n":                                 {"download-unchecked"},
		scratch + "RUN wget -qO- https://x.io/v1.2/i.sh | sh\n":                        {"download-unchecked"},
		scratch + "RUN wget -qO- https://x.io/i.sh | sed s/a/b/ | sudo sh -s\n":        {"pipe-to-shell", "run-missing-tool"},
		scratch + "RUN <<E\nset -e\nwget -qO- https://x.io/i.sh | sh\nE\n":             {"pipe-to-shell"},
		scratch + "RUN [\"wget\", \"https://x.io/a\"]\n":                               {"download-unchecked"},
		scratch + "RUN wget -qO- https://x.io/i.sh | tar -x\n":                         {"download-unchecked"},
		scratch + "ADD https://x.io/a.git#v1 a\n":                                      {"git-unpinned"},
		scratch + "ADD git@x.io:a.git a\n":                                             {"git-unpinned"},
		scratch + "APP a https://x.io/a.yaml\nLAUNCH a\n":                              {"download-unchecked"},

		// variables
		scratch + "ARG A=1\nRUN ./build.sh\n":                     {},
		scratch + "ARG A=1\nRUN mkdir -p x\n":                     {"arg-unused"},
		scratch + "ARG A=1\nRUN mkdir -p x && echo $A > x/a\n":    {},
		scratch + "ARG A=1\nCOPY <<E a/\n${A}\nE\n":               {},
		scratch + "ARG A=1\nENV B=${A:-2}\n":                      {},
		scratch + "ARG HTTPS_PROXY\nARG TARGETARCH\n":             {},
		scratch + "ARG A=1\nARG B=$A\nLABEL c=$B\n":               {},
		"FROM scratch AS x\nARG A=1\nFROM x\nLABEL b=$A\n":        {},
		"ARG A=1\nFROM scratch\n":                                 {"arg-unused"},
		"ARG A=1\nFROM a:$A\n":                                    {},
		"ARG A=1\nFROM scratch\nARG A\nLABEL a=$A\n":              {},
		"ARG A=1\nFROM scratch\nLABEL a=$A\n":                     {"arg-unused", "variable-undefined"},
		"FROM a:1\nENV PATH=/x:$PATH HOME2=$HOME\n":               {},
		"FROM a:1\nARG RELEASE=1\nLABEL a=$RELEASE b=$RELEASES\n": {"variable-undefined"},
		scratch + "ENV PATH=/x:$PATH\n":                           {"variable-undefined"},
		scratch + "LABEL a=${B:-c}\n":                             {},
		scratch + "COPY $NO x\n":                                  {"kubefile-invalid", "variable-undefined"},
		scratch + "ENV a b c\n":                                   {"key-value-legacy"},
		scratch + "ENV a=b c=d\n":                                 {},

		// secrets
		scratch + "ENV DB_PASSWORD=x\n":                                                 {"secret-in-variable"},
		scratch + "ENV DB_PASSWORD= TOKEN_FILE=/x PUBLIC_TOKEN=y\n":                     {},
		scratch + "LABEL api-token=x\n":                                                 {"secret-in-variable"},
		scratch + "ENV KEYMAP=de AUTHORS=me MONKEY=1\n":                                 {},
		scratch + "RUN <<E\ncat > etc/key <<K\n-----BEGIN RSA PRIVATE KEY-----\nK\nE\n": {"secret-in-value"},
		scratch + "ENV A=AKIAIOSFODNN7EXAMPLE\n":                                        {"secret-in-value"},
		scratch + "ENV A=https://$USER:$PASS@x.io B=ssh://git@x.io\n":                   {"variable-undefined", "variable-undefined"},

		// commands
		scratch + "RUN mkdir -p /etc/a\n":                                                                       {"run-outside-rootfs"},
		scratch + "RUN mkdir -p /rootfs/etc\n":                                                                  {},
		scratch + "RUN --in-rootfs mkdir -p /etc/a\n":                                                           {},
		scratch + "RUN mkdir /w && cp a /w\n":                                                                   {},
		scratch + "RUN tar -xf a.tar -C /opt\n":                                                                 {"run-outside-rootfs"},
		scratch + "RUN echo a > /dev/null && mktemp > /tmp/x\n":                                                 {},
		scratch + "RUN cp /etc/hosts etc/hosts\n":                                                               {},
		scratch + "RUN cd /var && touch lib\n":                                                                  {},
		scratch + "RUN kubectl version --client\n":                                                              {"run-missing-tool"},
		scratch + "RUN bin/kubectl version --client\n":                                                          {},
		scratch + "RUN PATH=bin:$PATH kubectl version\n":                                                        {},
		scratch + "RUN command -v git && git --version || true\n":                                               {},
		scratch + "RUN --in-rootfs apt-get install -y x\n":                                                      {},
		scratch + "RUN if true; then bash -c x; fi\n":                                                           {"run-missing-tool"},
		scratch + "CMD curl -k https://10.0.0.1:6443/healthz https://kubernetes.default.svc http://localhost\n": {},
		scratch + "CMDS [\"kubectl apply -f https://x.io/a.yaml\", \"ls\"]\n":                                   {"launch-needs-network"},
		scratch + "CMD helm install a --set url=https://$HOST/x a\n":                                            {},

		// the file
		scratch + "COPY arm64 .\n":                                  {"arch-hard-coded"},
		scratch + "COPY amd64 x/\nCOPY arm64 y/\n":                  {},
		scratch + "COPY k3s-images-amd64.tar.zst images/\n":         {"arch-hard-coded"},
		scratch + "COPY farm64 notamd64x/ x/\n":                     {},
		scratch + "LABEL io.sealer.clusterimage={}\n":               {"label-reserved"},
		"FROM scratch AS a\nFROM scratch AS b\nCOPY --from=a x y\n": {},
		"FROM scratch AS a\nFROM scratch AS b\n":                    {"stage-unreachable"},
	} {
		t.Run("", func(t *testing.T) {
			require.Equal(t, want, names(run(t, lint.Example{Kubefile: text}, lint.Options{})), text)
		})
	}
}

// The rules that look into the context.
func TestRules_Context(t *testing.T) {
	const start = "CMD kubectl get nodes\n"
	type files = map[string]string
	for text, c := range map[string]struct {
		files  files
		ignore string
		want   []string
	}{
		"FROM scratch\nCOPY a* b/\n" + start:                                                        {files{"ab": ""}, "", []string{}},
		"FROM scratch\nCOPY [a-b]x b/\n" + start:                                                    {files{"cx": ""}, "", []string{"copy-source-missing"}},
		"FROM scratch\nCOPY /x/../a b/\n" + start:                                                   {files{"a": ""}, "", []string{}},
		"FROM scratch\nCOPY ${ARCH}/x b/\n" + start:                                                 {files{"arm64/x": ""}, "", []string{"copy-source-missing"}},
		"FROM scratch\nADD https://x.io/a.git#0123456789abcdef0123456789abcdef01234567 a\n" + start: {files{"a": ""}, "", []string{}},
		"FROM scratch\nAPP a local://b.yaml\nLAUNCH a\n":                                            {files{"a.yaml": ""}, "", []string{"copy-source-missing"}},
		"FROM scratch\nCOPY d e\n" + start:                                                          {files{"d/a": "", "d/b": ""}, "d\n!d/b\n", []string{}},
		"FROM scratch\nCOPY d/* e/\n" + start:                                                       {files{"d/a": "", "d/b": ""}, "d/*\n", []string{"copy-source-ignored"}},
		"FROM scratch\nCOPY . e\n" + start:                                                          {files{".env": "", ".git/a": "", "a": ""}, ".git\n", []string{"context-unfiltered"}},
		"FROM scratch\nCOPY --exclude=.git . e\n" + start:                                           {files{".git/a": "", "a": ""}, "", []string{}},
		"FROM scratch\nCOPY a .\n":                                                                  {files{"a/x": ""}, "", []string{"runtime-missing"}},
		"FROM scratch\nCOPY a .\nRUN true\n":                                                        {files{"a/x": ""}, "", []string{}},
		"FROM scratch\nCOPY a .\n# all\n":                                                           {files{"a/Metadata": `{"version":"v1","clusterRuntime":"k3s"}`}, "", []string{}},
		"FROM scratch\nCOPY a .\n# two\n":                                                           {files{"a/Metadata": `{"version":"v1","clusterRuntime":"k3s"}`, "a/bin/kubeadm": ""}, "", []string{"runtime-conflict"}},
		"FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k0s\n":                    {files{}, "", []string{}},
		"FROM a:1\nCOPY imageList manifests\n":                                                      {files{"imageList": "a b\nx:1\nx:1 platform=linux/arm64\ndocker.io/library/x:1\ny\n"}, "", []string{"imagelist-invalid", "packed-image-duplicate", "packed-image-unpinned"}},
		"FROM a:1\nCOPY m manifests/m\n":                                                            {files{"m/a.yaml": "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n"}, "", []string{"manifest-image-unpinned"}},
		"FROM a:1\nCOPY m other\n":                                                                  {files{"m/a.yaml": "kind: Pod\napiVersion: v1\nspec: {containers: [{image: a}]}\n"}, "", []string{}},
	} {
		t.Run("", func(t *testing.T) {
			found := run(t, lint.Example{Kubefile: text, Files: c.files, Ignore: c.ignore},
				lint.Options{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}})
			require.Equal(t, c.want, names(found), text)
		})
	}
}

func TestSource_Suppressed(t *testing.T) {
	for text, want := range map[string][]string{
		"# sealer-lint ignore=base-unpinned\nFROM a\n":                                  {},
		"#sealer-lint ignore=arg-unused,base-unpinned\n# why\nFROM a\n":                 {},
		"# sealer-lint ignore=base-unpinned\nARG A=1\nFROM a:$A\nCOPY --from=b c d\n":   {"base-unpinned"},
		"# sealer-lint ignore-file=base-unpinned\nFROM a\nCOPY --from=b c d\n":          {},
		"FROM scratch\nRUN a && \\\n  # sealer-lint ignore=run-missing-tool\n  git x\n": {},
		"FROM scratch\nRUN <<E\n# sealer-lint ignore=run-missing-tool\ngit x\nE\n":      {"run-missing-tool"},
		"# sealer-lint ignore=base\nFROM a\n":                                           {"base-unpinned", "suppression-unknown"},
	} {
		got := run(t, lint.Example{Kubefile: text}, lint.Options{})
		require.ElementsMatch(t, want, names(got), text)
	}
	list := lint.Example{
		Kubefile: "FROM a:1\nCOPY imageList manifests/\n",
		Files:    map[string]string{"imageList": "x # sealer-lint ignore=packed-image-unpinned\n# sealer-lint ignore=packed-image-unpinned\ny\nz\n"},
	}
	got := run(t, list, lint.Options{})
	require.Len(t, got, 1)
	require.Equal(t, 4, got[0].Line)
	require.Equal(t, "imageList", got[0].File)

	got, err := lint.Source(t.Context(), "Kubefile", []byte("FROM a\n"), lint.Options{Skip: []string{"base-unpinned"}})
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = lint.Source(t.Context(), "Kubefile", []byte("FROM a\n"), lint.Options{Skip: []string{"base-unpined"}})
	require.EqualError(t, err, "there is no rule base-unpined (did you mean base-unpinned?)")
}

// No finding shows a secret, whatever else is wrong with its line.
func TestSource_HidesSecrets(t *testing.T) {
	for _, text := range []string{
		"ENV DB_PASSWORD=hunter2", "ENV DB_PASSWORD hunter2", "RUN wget https://a:hunter2@x.io/a", "ADD https://a:hunter2@x.io/a b",
		"CMD kubectl apply -f https://a:hunter2@x.io/a", "LABEL password=hunter2 b=$NONE",
	} {
		found := run(t, lint.Example{Kubefile: "FROM scratch\n" + text + "\n"}, lint.Options{})
		require.NotEmpty(t, found, text)
		for _, one := range found {
			require.NotContains(t, one.Show(), "hunter2")
		}
	}
}

// Several platforms are looked at, and what they have in common is said once.
func TestSource_Platforms(t *testing.T) {
	got := run(t, lint.Example{Kubefile: "FROM a\nCOPY ${ARCH} b\n", Files: map[string]string{"amd64/x": ""}}, lint.Options{
		Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
	})
	require.Equal(t, []string{"base-unpinned", "copy-source-missing"}, names(got))
	require.Contains(t, got[1].Message, "${ARCH}")
}

func TestSource_Target(t *testing.T) {
	const text = "FROM scratch AS one\nRUN true\nFROM scratch AS two\nRUN true\n"
	got := run(t, lint.Example{Kubefile: text}, lint.Options{Target: "one"})
	require.Equal(t, []string{"stage-unreachable"}, names(got))
	require.Equal(t, 3, got[0].Line)
}

// FuzzSource holds whatever the input: no panic, and every finding has a line of the file.
func FuzzSource(f *testing.F) {
	for _, rule := range lint.Rules() {
		f.Add(rule.Bad.Kubefile)
		f.Add(rule.Good.Kubefile)
	}
	f.Fuzz(func(t *testing.T, text string) {
		findings, err := lint.Source(t.Context(), "Kubefile", []byte(text), lint.Options{})
		require.NoError(t, err)
		for _, one := range findings {
			require.Positive(t, one.Line)
			require.NotEmpty(t, one.Message)
			require.NotEmpty(t, one.Show())
		}
	})
}
