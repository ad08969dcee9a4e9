// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/kubefile"
)

func TestErrors_CarryTheLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, kubefile string
		line           int
		want           string
		toolbox        bool
	}{
		{"missing source", "FROM scratch\nCOPY f .\nCOPY nothere .\n", 3, `Kubefile:3: "nothere" is not in the build context`, false},
		{"source with a near name", "FROM scratch\nCOPY rotfs .\n", 2, `Kubefile:2: "rotfs" is not in the build context (did you mean "rootfs"?)`, false},
		{"ignored source", "FROM scratch\nADD secret.key .\n", 2, `Kubefile:2: "secret.key" is left out of the build context by the ignore file`, false},
		{"source that is not in the stage", "FROM scratch AS one\nCOPY f .\nFROM scratch\nCOPY --from=one /g .\n", 4, `Kubefile:4: failed to compute cache key`, false},
		{"missing pattern", "FROM scratch\nCOPY f .\nCOPY no* .\n", 3, "Kubefile:3: /no* not found", false},
		{"failing RUN", "FROM scratch\nCOPY f .\n\nRUN exit 3\n", 4, `Kubefile:4: process "/bin/sh -ec exit 3" did not complete successfully: exit code: 3`, true},
		{"image that is nowhere", "FROM 127.0.0.1:1/no/such:v1\nCOPY f .\n", 1, "Kubefile:1: ", false},
		{"unknown user", "FROM scratch\nCOPY --chown=nginx f .\n", 2, "Kubefile:2: ", false},
		{"label of our own", "FROM scratch\nLABEL io.sealer.version=9\n", 2, "Kubefile:2: the label io.sealer.version is written by sealer itself", false},
		{"no secret", "FROM scratch\nRUN --mount=type=secret,id=token,required=true true\n", 2, `Kubefile:2: it needs the secret "token", and none was given`, true},
		{"no SSH agent", "FROM scratch\nRUN --mount=type=ssh,required=true true\n", 2, `Kubefile:2: it needs the SSH agent "default", and none was given`, true},
		{"no SSH agent for git", "FROM scratch\nADD git@git.example.com:a/b.git#v1 .\n", 2, `Kubefile:2: it needs the SSH agent "default", and none was given`, false},
		{"privileges", "FROM scratch\nRUN --security=insecure true\n", 2, "Kubefile:2: RUN --security=insecure is not supported", false},
		{"mount on the rootfs", "FROM scratch\nRUN --mount=type=tmpfs,target=/ true\n", 2, "Kubefile:2: RUN --mount=type=tmpfs: the target", true},
		{"wrong checksum", "FROM scratch\nADD --checksum=sha256:" + strings.Repeat("0", 64) + " SITE/f .\n", 2, "Kubefile:2: ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.toolbox {
				needToolbox(t)
			}
			site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "x") }))
			defer site.Close()
			b := newBench(t, map[string]string{"Kubefile": strings.ReplaceAll(c.kubefile, "SITE", site.URL), "f": "x", "rootfs/x": "x", "secret.key": "x", ".sealerignore": "*.key\n"})
			_, err := b.build()
			require.ErrorContains(t, err, c.want)
			t.Log(err)
			var positioned *kubefile.PositionError
			require.ErrorAs(t, err, &positioned)
			require.Equal(t, c.line, positioned.Line)
			tags, err := b.store.List(t.Context())
			require.NoError(t, err)
			require.Empty(t, tags)
		})
	}
}

func TestOptions_EveryMistake(t *testing.T) {
	t.Parallel()
	_, err := build.Run(t.Context(), build.Options{ContextDir: "/no/such/folder", Isolation: "jail",
		Platforms: []ocispec.Platform{{OS: "windows", Architecture: "amd64"}, {OS: "linux", Architecture: "amd65"}},
	})
	require.EqualError(t, err, `build context: stat /no/such/folder: no such file or directory
the image needs a name (-t)
unknown isolation "jail": auto, runc and chroot are known
platform windows/amd64: clusters run on linux
platform linux/amd65: unknown architecture "amd65" (did you mean amd64?)`)
}
