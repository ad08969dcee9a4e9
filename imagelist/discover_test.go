// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
)

func TestDiscover(t *testing.T) {
	pod := func(image string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(object + "image: " + image + "\n")}
	}
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{
		"imageList":                      {Data: []byte("nginx\n")},
		"manifests/imageList":            {Data: []byte("nginx:latest\nredis\n")},
		"manifests/a.yaml":               pod("quay.io/a/a:1"),
		"manifests/deep/er/b.YML":        pod("quay.io/a/b:1"),
		"manifests/c.json":               {Data: []byte(`{"apiVersion":"v1","kind":"Pod","image":"quay.io/a/c:1"}`)},
		"manifests/d.yaml.tmpl":          pod("{{ .R }}/d:1"),
		"manifests/e.tmpl":               pod("quay.io/a/e:1"),
		"manifests/notes.txt":            pod("quay.io/not/read:1"),
		"manifests/script.sh.tmpl":       pod("quay.io/not/read:1"),
		"charts/values.yaml":             pod("quay.io/not/read:1"),
		"manifests/empty.yaml":           {},
		"manifests/folder.yaml/inside.x": {},
	})
	require.NoError(t, err)
	require.Equal(t, `docker.io/library/nginx:latest 1 1
docker.io/library/redis:latest 2
quay.io/a/a:1 3
quay.io/a/b:1 3
quay.io/a/c:1 1
quay.io/a/e:1 3
! manifests/d.yaml.tmpl:3: the image depends on a template's values: write it into imageList
`, found(result.Images, result.Problems))
	require.Equal(t, []imagelist.Origin{{File: "imageList", Line: 1}, {File: "manifests/imageList", Line: 1}}, result.Images[0].Origins)
}

func TestDiscover_Nothing(t *testing.T) {
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{})
	require.NoError(t, err)
	require.Empty(t, result.Images)
	require.Empty(t, result.Problems)
}

func TestDiscover_Mistakes(t *testing.T) {
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{
		"imageList":           {Data: []byte("A\nnginx\nB\n")},
		"manifests/imagelist": {Data: []byte("nginx\n")},
		"manifests/a.yaml":    {Data: []byte("a: b: c\n")},
		"manifests/b.yaml":    {Data: []byte(object + "image: quay.io/a/b:1\n")},
	})
	require.EqualError(t, err, `imageList:1: "A" is not the name of an image: invalid reference format: repository name (library/A) must be lowercase
imageList:3: "B" is not the name of an image: invalid reference format: repository name (library/B) must be lowercase
manifests/a.yaml:1: reading YAML: mapping values are not allowed in this context`)
	require.Equal(t, `quay.io/a/b:1 3
! manifests/imagelist:1: the file is not read (did you mean imageList?)
`, found(result.Images, result.Problems))
}

func TestDiscover_Disk(t *testing.T) {
	root := t.TempDir()
	manifests := filepath.Join(root, "manifests")
	other := filepath.Join(root, "other")
	require.NoError(t, os.MkdirAll(manifests, 0o755))
	require.NoError(t, os.MkdirAll(other, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(other, "real.yaml"), []byte(object+"image: quay.io/a/b:1\n"), 0o644))
	require.NoError(t, os.Symlink("../other/real.yaml", filepath.Join(manifests, "link.yaml")))
	require.NoError(t, os.Symlink("../other", filepath.Join(manifests, "folder")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(manifests, "lost.yaml")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(manifests, "lost")))
	require.NoError(t, os.Mkdir(filepath.Join(root, "imageList"), 0o755))
	large, err := os.Create(filepath.Join(manifests, "large.yaml"))
	require.NoError(t, err)
	require.NoError(t, large.Truncate(imagelist.MaxFile+1))
	require.NoError(t, large.Close())

	result, err := imagelist.Discover(t.Context(), os.DirFS(root))
	require.EqualError(t, err, `reading "imageList": it is no regular file
reading "manifests/large.yaml": it has 33554433 bytes, more than the 33554432 that are read`)
	require.Equal(t, `quay.io/a/b:1 3
! manifests/folder:1: the symbolic link leads to a folder, which is not looked into
! manifests/lost.yaml:1: the symbolic link leads nowhere
`, found(result.Images, result.Problems))
}

func TestDiscover_Archives(t *testing.T) {
	result, err := imagelist.Discover(t.Context(), fstest.MapFS{
		"images/a.tar": {}, "images/b.tar.zst": {}, "images/C.TGZ": {}, "images/notes.txt": {}, "images/deep/d.tar": {}, "images/e.tar/f": {},
		"k3s-airgap-images-amd64.tar.zst": {}, "other.tar": {}, "cri/f.tar": {}, "images/deep/e.txt": {Data: []byte("no list")},
		"images/k3s-images.txt": {Data: []byte("docker.io/rancher/klipper-lb:v0.4.17\ndocker.io/rancher/mirrored-pause:3.6\n")},
		"images/skopeo/tar.txt": {Data: []byte("docker-archive:x.tar@team/x:v1\n")}, "images/skopeo/x.tar": {},
	})
	require.NoError(t, err)
	var sources []string
	for _, i := range result.Images {
		sources = append(sources, i.Name+"<"+i.Source+">"+i.Origins[0].String())
	}
	require.Equal(t, []string{
		"<archive:images/C.TGZ>images/C.TGZ:1", "<archive:images/a.tar>images/a.tar:1", "<archive:images/b.tar.zst>images/b.tar.zst:1",
		"<archive:k3s-airgap-images-amd64.tar.zst>k3s-airgap-images-amd64.tar.zst:1",
		"docker.io/rancher/klipper-lb:v0.4.17<>images/k3s-images.txt:1", "docker.io/rancher/mirrored-pause:3.6<>images/k3s-images.txt:2",
		"docker.io/team/x:v1<docker-archive:images/skopeo/x.tar>images/skopeo/tar.txt:1",
	}, sources)
	require.Len(t, result.Problems, 1)
	require.Equal(t, "images/e.tar:1: it has the name of an archive of images and is no regular file", result.Problems[0].String())
}
