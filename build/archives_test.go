// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
	archives "github.com/sealerio/sealer/store/archive"
)

// single makes an image for one architecture; the same seed gives the same image.
func single(t *testing.T, arch, seed string) v1.Image {
	t.Helper()
	l, err := tarball.LayerFromOpener(opener(t, seed))
	require.NoError(t, err)
	img, err := mutate.AppendLayers(empty.Image, l)
	require.NoError(t, err)
	cfg, err := img.ConfigFile()
	require.NoError(t, err)
	cfg.OS, cfg.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, cfg)
	require.NoError(t, err)
	return img
}

// save writes an archive as docker save does, but for gzip layers.
func save(t *testing.T, path string, images map[string]v1.Image) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	tagged := map[name.Tag]v1.Image{}
	for ref, img := range images {
		tag, err := name.NewTag(ref)
		require.NoError(t, err)
		tagged[tag] = img
	}
	require.NoError(t, tarball.MultiWriteToFile(path, tagged))
}

// offline makes a build that would show where it asks a network.
func offline(o *build.Options) { o.Registry = nil }

func TestArchives(t *testing.T) {
	t.Parallel()
	for how, kubefile := range map[string]string{
		"all": "FROM scratch\nCOPY . .\n", "folder": "FROM scratch\nCOPY imageList .\nCOPY images images\n", "file": "FROM scratch\nCOPY imageList .\nCOPY images/web.tar images/\n",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{
				"Kubefile": kubefile, "imageList": "registry.example.com/web:v1\n", "images/readme.txt": "x",
			})
			save(t, b.context+"/images/web.tar", map[string]v1.Image{
				"registry.example.com/web:v1": single(t, runtime.GOARCH, "web"), "quay.io/team/db:v2": single(t, runtime.GOARCH, "db"), "quay.io/team/arm:v2": single(t, "s390x", "arm"),
			})
			img := b.mustBuild(offline)
			require.Equal(t, []string{"quay.io/team/db:v2 linux/" + runtime.GOARCH, "registry.example.com/web:v1 linux/" + runtime.GOARCH}, imageNames(img))
			require.Equal(t, []string{"imageList:1", "images/web.tar:1"}, img.Images[1].Origins)
			require.Contains(t, b.warned, "quay.io/team/arm:v2 of images/web.tar is not packed for linux/"+runtime.GOARCH+": it is for [linux/s390x]")
			require.Contains(t, names(b.files(img, 0)), "images/web.tar", "COPY means COPY")
			all, err := img.Descriptors(t.Context(), b.store.Content(), nil)
			require.NoError(t, err)
			for _, d := range all {
				require.FileExists(t, b.store.BlobPath(d.Digest))
			}
			require.Equal(t, img.Descriptor.Digest, b.mustBuild(offline).Descriptor.Digest)
		})
	}
}

// What is named in a list need not be in the rootfs.
func TestArchives_FromContext(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList manifests/\n",
		"imageList": "docker-archive:web.tar\nregistry.example.com/web:v1\noci:layout@r.example.com/named:v3\noci-archive:oci.tar:v9\n",
	})
	save(t, b.context+"/web.tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, "web")})
	p, err := layout.Write(b.context+"/layout", empty.Index)
	require.NoError(t, err)
	own := single(t, runtime.GOARCH, "own")
	require.NoError(t, p.AppendImage(own))
	other, err := layout.Write(t.TempDir(), empty.Index)
	require.NoError(t, err)
	require.NoError(t, other.AppendImage(own, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "quay.io/x/y:v9"})))
	out, err := exec.CommandContext(t.Context(), "tar", "-cf", b.context+"/oci.tar", "-C", string(other), ".").CombinedOutput()
	require.NoError(t, err, string(out))

	img := b.mustBuild(offline)
	require.Equal(t, []string{
		"quay.io/x/y:v9 linux/" + runtime.GOARCH, "r.example.com/named:v3 linux/" + runtime.GOARCH, "registry.example.com/web:v1 linux/" + runtime.GOARCH,
	}, imageNames(img))
	want, err := own.Digest()
	require.NoError(t, err)
	require.Equal(t, want.String(), img.Images[0].Manifest.Digest.String())
	require.Equal(t, want.String(), img.Images[1].Manifest.Digest.String())
	require.Equal(t, []string{"manifests/imageList:1", "manifests/imageList:2"}, img.Images[2].Origins)
	require.Equal(t, []string{"Metadata", "manifests/imageList"}, names(b.files(img, 0)))

	// --image-list may name files anywhere.
	elsewhere := filepath.Join(t.TempDir(), "a.tar")
	save(t, elsewhere, map[string]v1.Image{"registry.example.com/else:v1": single(t, runtime.GOARCH, "else")})
	b.write(map[string]string{"more": "docker-archive:" + elsewhere + "\n"})
	img = b.mustBuild(offline, func(o *build.Options) { o.ImageLists = []string{b.context + "/more"} })
	require.Contains(t, imageNames(img), "registry.example.com/else:v1 linux/"+runtime.GOARCH)
}

func TestArchives_Mistakes(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret.tar")
	save(t, outside, map[string]v1.Image{"registry.example.com/secret:v1": single(t, runtime.GOARCH, "secret")})
	for list, want := range map[string]string{
		"docker-archive:nothere.tar":                     "imageList:1: reading docker-archive:nothere.tar: file does not exist",
		"docker-archive:" + outside:                      "is outside of the build context",
		"docker-archive:../secret.tar":                   "is outside of the build context",
		"docker-archive:link.tar":                        "escapes",
		"docker-archive:notes.txt":                       "imageList:1: reading docker-archive:notes.txt: it is no archive of images",
		"docker-archive:web.tar:other:1":                 `it has no image "other:1", it has`,
		"docker-archive:web.tar@x.io/y":                  "it holds 2 images (quay.io/team/arm:v2, registry.example.com/web:v1), which cannot all be x.io/y:latest",
		"docker-archive:web.tar":                         "imageList:1: docker-archive:web.tar: quay.io/team/arm:v2 has nothing for linux/" + runtime.GOARCH + ", it has linux/s390x",
		"docker-archive:cut.tar":                         "imageList:1: reading docker-archive:cut.tar: ",
		"docker-archive:one.tar\ndocker-archive:two.tar": "registry.example.com/web:v1 for linux/" + runtime.GOARCH + " is sha256:",
	} {
		b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": list + "\n", "notes.txt": strings.Repeat("text\n", 500)})
		require.NoError(t, os.Symlink(outside, b.context+"/link.tar"))
		save(t, b.context+"/web.tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, "web"), "quay.io/team/arm:v2": single(t, "s390x", "arm")})
		for file, seed := range map[string]string{"one": "1", "two": "2"} {
			save(t, b.context+"/"+file+".tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, seed)})
		}
		data, err := os.ReadFile(b.context + "/one.tar")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(b.context+"/cut.tar", data[:len(data)/3], 0o600))
		_, err = b.build(offline)
		require.ErrorContains(t, err, want, list)
		tags, err := b.store.List(t.Context())
		require.NoError(t, err)
		require.Empty(t, tags)
	}
}

// A file in images/ that is no archive is part of the rootfs, and said to be no more.
func TestArchives_Found(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY . .\n", "images/data.tar": strings.Repeat("text\n", 500)})
	img := b.mustBuild(offline)
	require.Empty(t, img.Images)
	require.Equal(t, []string{"images/data.tar is not packed as images: it is no archive of images: it is no tar"}, b.warned)

	save(t, b.context+"/images/data.tar", map[string]v1.Image{"registry.example.com/web:v1": single(t, runtime.GOARCH, "web")})
	data, err := os.ReadFile(b.context + "/images/data.tar")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(b.context+"/images/data.tar", data[:len(data)-600], 0o600))
	_, err = b.build(offline)
	var wrong *archives.Error
	require.ErrorAs(t, err, &wrong, "cut")
}

// Every platform takes its own from one archive.
func TestArchives_Platforms(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY imageList .\n", "imageList": "oci:layout\n"})
	p, err := layout.Write(b.context+"/layout", empty.Index)
	require.NoError(t, err)
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: single(t, arch, arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	require.NoError(t, p.AppendIndex(index, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "quay.io/x/multi:v1"})))
	img := b.mustBuild(offline, func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	})
	require.Equal(t, []string{"quay.io/x/multi:v1 linux/amd64", "quay.io/x/multi:v1 linux/arm64"}, imageNames(img))
	want, err := index.Digest()
	require.NoError(t, err)
	for _, pi := range img.Images {
		require.Equal(t, want.String(), pi.Index.Digest.String())
	}
	_, err = b.build(offline, func(o *build.Options) { o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "riscv64"}} })
	var none *clusterimage.PlatformError
	require.ErrorAs(t, err, &none)
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, none.Have)
}
