// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
)

// both builds for two platforms.
func both(o *build.Options) {
	o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

// k3s' archives are docker save's, compressed, one for each architecture.
func k3sArchives(t *testing.T, folder string) {
	t.Helper()
	for arch, compress := range map[string]string{"amd64": "zstd", "arm64": "gzip"} {
		file := filepath.Join(folder, "k3s-airgap-images-"+arch+".tar")
		save(t, file, map[string]v1.Image{
			"docker.io/rancher/mirrored-pause:3.6": single(t, arch, "pause"+arch),
			"docker.io/rancher/klipper-lb:v0.4.17": single(t, arch, "lb"+arch),
		})
		out, err := exec.CommandContext(t.Context(), compress, "-q", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		if compress == "zstd" {
			require.NoError(t, os.Rename(file+".zst", file+".zst.kept"))
			require.NoError(t, os.RemoveAll(file))
			require.NoError(t, os.Rename(file+".zst.kept", file+".zst"))
		}
	}
}

// A context as the template of k3s has it: the archives lie beside what is copied, and a list for each platform names its own.
func TestAirgap_K3s(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile":        "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.1+k3s1\nCOPY ${ARCH} .\n",
		"amd64/bin/k3s":   "amd64",
		"arm64/bin/k3s":   "arm64",
		"amd64/imageList": "archive:images/k3s-airgap-images-amd64.tar.zst\n",
		"arm64/imageList": "archive:images/k3s-airgap-images-arm64.tar.gz\n",
	})
	k3sArchives(t, b.context+"/images")
	img := b.mustBuild(offline, both)
	require.Equal(t, []string{
		"docker.io/rancher/klipper-lb:v0.4.17 linux/amd64", "docker.io/rancher/klipper-lb:v0.4.17 linux/arm64",
		"docker.io/rancher/mirrored-pause:3.6 linux/amd64", "docker.io/rancher/mirrored-pause:3.6 linux/arm64",
	}, imageNames(img))
	require.Empty(t, b.warned)
	for i := range 2 {
		require.Equal(t, []string{"Metadata", "bin/k3s", "imageList"}, names(b.files(img, i)), "the archives are not shipped a second time")
	}
	require.Equal(t, "v1.36.1+k3s1", img.Rootfs[0].Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion])
}

// Copied into images/, as k3s and older contexts have them: each platform takes its own, by what the archive says of itself.
func TestAirgap_InTheRootfs(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile":              "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s\nCOPY images images\n",
		"images/k3s-images.txt": "docker.io/rancher/mirrored-pause:3.6\ndocker.io/rancher/klipper-lb:v0.4.17\n",
	})
	k3sArchives(t, b.context+"/images")
	img := b.mustBuild(offline, both)
	require.Equal(t, []string{
		"docker.io/rancher/klipper-lb:v0.4.17 linux/amd64", "docker.io/rancher/klipper-lb:v0.4.17 linux/arm64",
		"docker.io/rancher/mirrored-pause:3.6 linux/amd64", "docker.io/rancher/mirrored-pause:3.6 linux/arm64",
	}, imageNames(img), "the list of the release names what the archive has, and no registry is asked")
	require.Contains(t, names(b.files(img, 0)), "images/k3s-airgap-images-arm64.tar.gz", "COPY means COPY")
}

// k0s' bundles are OCI layouts in a tar.
func TestAirgap_K0s(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile":        "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3+k0s.2\nCOPY ${ARCH} .\n",
		"amd64/imageList": "archive:images/k0s-airgap-bundle-amd64.tar\n",
		"arm64/imageList": "archive:images/k0s-airgap-bundle-arm64.tar\n",
		"amd64/bin/k0s":   "amd64",
		"arm64/bin/k0s":   "arm64",
	})
	require.NoError(t, os.MkdirAll(b.context+"/images", 0o755))
	for _, arch := range []string{"amd64", "arm64"} {
		bundle, err := layout.Write(t.TempDir(), empty.Index)
		require.NoError(t, err)
		for _, name := range []string{"quay.io/k0sproject/pause:3.10.2-0", "quay.io/k0sproject/coredns:1.14.6-k0s.0"} {
			require.NoError(t, bundle.AppendImage(single(t, arch, name+arch),
				layout.WithAnnotations(map[string]string{"io.containerd.image.name": name}),
				layout.WithPlatform(v1.Platform{OS: "linux", Architecture: arch})))
		}
		out, err := exec.CommandContext(t.Context(), "tar", "-cf", b.context+"/images/k0s-airgap-bundle-"+arch+".tar", "-C", string(bundle), ".").CombinedOutput()
		require.NoError(t, err, string(out))
	}
	img := b.mustBuild(offline, both)
	require.Equal(t, []string{
		"quay.io/k0sproject/coredns:1.14.6-k0s.0 linux/amd64", "quay.io/k0sproject/coredns:1.14.6-k0s.0 linux/arm64",
		"quay.io/k0sproject/pause:3.10.2-0 linux/amd64", "quay.io/k0sproject/pause:3.10.2-0 linux/arm64",
	}, imageNames(img))
	for i := range 2 {
		require.Equal(t, []string{"Metadata", "bin/k0s", "imageList"}, names(b.files(img, i)))
	}
}
