// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/imagelist/chart/helm"
	"github.com/sealerio/sealer/store"
)

func TestPreviewImages(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	pod := func(image string) string {
		return "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: " + image + "}]}\n"
	}
	write("Kubefile", `FROM registry.example.com/base:v1 AS files
COPY deploy /staged/
COPY <<EOF /staged/imageList
from/heredoc:1
EOF
FROM scratch
ARG KIND=prod
COPY --from=files /staged manifests/
WORKDIR /manifests
COPY overlays/$KIND/*.yaml more/
COPY one.yaml renamed.yaml
COPY ${TARGETARCH}.yaml .
COPY --exclude=*.md --parents docs/a.yaml docs/b.md ./
APP web local://chart
APP other https://example.com/other.yaml
ADD https://example.com/x.yaml /manifests/
RUN make it
`)
	write(".dockerignore", "**/ignored.yaml\n")
	write("deploy/a.yaml", pod("quay.io/p/a:1"))
	write("deploy/ignored.yaml", pod("quay.io/p/ignored:1"))
	write("overlays/prod/b.yaml", pod("quay.io/p/b:1"))
	write("overlays/test/c.yaml", pod("quay.io/p/c:1"))
	write("one.yaml", pod("quay.io/p/one:1"))
	write("amd64.yaml", pod("quay.io/p/amd:1"))
	write("arm64.yaml", pod("quay.io/p/arm:1"))
	write("docs/a.yaml", pod("quay.io/p/docs:1"))
	write("docs/b.md", "x")
	write("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n")
	write("chart/templates/web.yaml", pod("quay.io/p/web:{{ .Capabilities.KubeVersion.Version }}"))
	write("more.txt", "from/list:1\n")

	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	previews, err := build.PreviewImages(t.Context(), build.Options{
		ContextDir: dir, Store: st, ImageLists: []string{filepath.Join(dir, "more.txt")}, KubeVersion: "v1.33.0", Charts: helm.Renderer{},
		Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
	})
	require.NoError(t, err)
	require.Len(t, previews, 2)
	for i, want := range []string{"quay.io/p/amd:1", "quay.io/p/arm:1"} {
		var names, apps, unseen []string
		for _, image := range previews[i].Images {
			names = append(names, image.Name+" "+image.Origins[0].String())
			if image.App != "" {
				apps = append(apps, image.App+" "+image.Name)
			}
		}
		for _, u := range previews[i].Unseen {
			unseen = append(unseen, u.String())
		}
		require.ElementsMatch(t, []string{
			"docker.io/from/heredoc:1 manifests/imageList:1", "docker.io/from/list:1 " + filepath.Join(dir, "more.txt") + ":1",
			"quay.io/p/a:1 manifests/a.yaml:3", "quay.io/p/b:1 manifests/more/b.yaml:3", "quay.io/p/one:1 manifests/renamed.yaml:3",
			want + " manifests/" + want[len("quay.io/p/"):len(want)-2] + "64.yaml:3", "quay.io/p/docs:1 manifests/docs/a.yaml:3",
			"quay.io/p/web:v1.33.0 application/apps/web/templates/web.yaml",
		}, names)
		require.Equal(t, []string{"web quay.io/p/web:v1.33.0"}, apps)
		require.Equal(t, []string{
			"Kubefile:15: what https://example.com/other.yaml holds is not fetched",
			"Kubefile:16: what https://example.com/x.yaml holds is not fetched",
			"Kubefile:17: what RUN makes is not seen",
		}, unseen)
	}
}

func TestPreviewImages_Mistakes(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	_, err = build.PreviewImages(t.Context(), build.Options{ContextDir: dir, Store: st})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPY imageList .\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte("ok\nNot An Image\n"), 0o600))
	_, err = build.PreviewImages(t.Context(), build.Options{ContextDir: dir, Store: st})
	require.ErrorContains(t, err, "imageList:2:")
}
