// SPDX-License-Identifier: Apache-2.0

package sbom_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/sbom"
)

type entry struct{ name, text string }

func archive(t *testing.T, files ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.text)), Mode: 0o755, Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(f.text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func scan(t *testing.T, files ...entry) sbom.Contents {
	t.Helper()
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	data := archive(t, files...)
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), cs, "layer", bytes.NewReader(data), layer))
	got, err := sbom.Scan(t.Context(), cs, []ocispec.Descriptor{layer})
	require.NoError(t, err)
	return got
}

func purls(c sbom.Contents) (out []string) {
	for _, p := range c.Packages {
		out = append(out, p.PURL+" in "+p.In)
	}
	return out
}

func TestScan_Files(t *testing.T) {
	t.Parallel()
	got := scan(t, entry{"b", ""}, entry{"a", "hello\n"}, entry{"short", "\x7fEL"})
	require.Equal(t, []sbom.File{
		{"a", "f572d396fae9206628714fb2ce00f72e94f2258f", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},
		{"b", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	}, got.Files[:2])
	require.Empty(t, got.Packages)
}

// A program that Go made names its modules: this test's own.
func TestScan_Program(t *testing.T) {
	t.Parallel()
	path, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(path)
	require.NoError(t, err)
	got := purls(scan(t, entry{"bin/tool", string(program)}, entry{"bin/broken", string(program[:4096])}))
	version, _, _ := strings.Cut(strings.TrimPrefix(runtime.Version(), "go"), " ")
	require.Contains(t, got, "pkg:golang/stdlib@"+version+" in bin/tool")
	require.Contains(t, got, "pkg:golang/github.com/sealerio/sealer in bin/tool", "go test leaves out what is below it")
	for _, p := range got {
		require.NotContains(t, p, "bin/broken")
	}
}

func TestScan_Packages(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(archive(t, entry{"redis/Chart.yaml", "name: redis\nversion: 1.2.3\n"}, entry{"redis/charts/common/Chart.yaml", "name: common\nversion: 2.0.0\n"}))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	got := scan(t,
		entry{"var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nArchitecture: amd64\nDescription: GNU C\n text: more\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"},
		entry{"var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2026a\n"},
		entry{"var/lib/dpkg/status.d/tzdata.md5sums", "0  usr/share/x\n"},
		entry{"lib/apk/db/installed", "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\nP:busybox\nV:1.36.1-r2\nL:GPL-2.0-only\n"},
		entry{"etc/os-release", "NAME=\"Debian GNU/Linux\"\nID=debian\n"},
		entry{"charts/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 0.1.0\n"},
		entry{"charts/template/Chart.yaml", "name: {{ .Name }}\n"},
		entry{"charts/redis-1.2.3.tgz", packed.String()},
		entry{"charts/not.tgz", "no archive"},
	)
	require.Equal(t, []string{
		"pkg:apk/debian/busybox@1.36.1-r2 in lib/apk/db/installed",
		"pkg:apk/debian/musl@1.2.5-r0?arch=x86_64 in lib/apk/db/installed",
		"pkg:deb/debian/libc6@2.36-9?arch=amd64 in var/lib/dpkg/status",
		"pkg:deb/debian/tzdata@2026a in var/lib/dpkg/status.d/tzdata",
		"pkg:helm/common@2.0.0 in charts/redis-1.2.3.tgz",
		"pkg:helm/redis@1.2.3 in charts/redis-1.2.3.tgz",
		"pkg:helm/shop@0.1.0 in charts/shop/Chart.yaml",
	}, purls(got))
	require.Equal(t, "MIT", got.Packages[1].License)
}

func TestSPDX(t *testing.T) {
	t.Parallel()
	rootfs := digest.FromString("rootfs")
	d := sbom.Document{
		Rootfs: ocispec.Descriptor{Digest: rootfs}, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Version: "v1", Created: time.Unix(0, 0),
		Contents: scan(t, entry{"a", "hello\n"}, entry{"charts/shop/Chart.yaml", "name: shop\nversion: 0.1.0\n"}),
		Images: []sbom.Image{
			{"docker.io/library/nginx:1.27", ocispec.Platform{OS: "linux", Architecture: "amd64"}, digest.FromString("nginx"), "BSD-2-Clause"},
			{"quay.io/a/B@sha256:" + rootfs.Encoded(), ocispec.Platform{OS: "linux", Architecture: "amd64"}, rootfs, "see <LICENSE>"},
		},
	}
	require.Equal(t, "pkg:oci/nginx@sha256:"+d.Images[0].Digest.Encoded()+"?arch=amd64&os=linux&repository_url=docker.io%2Flibrary%2Fnginx&tag=1.27", d.Images[0].PURL())
	first, err := json.Marshal(d.SPDX())
	require.NoError(t, err)
	again, err := json.Marshal(d.SPDX())
	require.NoError(t, err)
	require.JSONEq(t, string(first), string(again))

	// Others read it, and find nothing wrong.
	read, err := spdxjson.Read(bytes.NewReader(first))
	require.NoError(t, err)
	require.NoError(t, spdxlib.ValidateDocument(read))
	require.Equal(t, "1970-01-01T00:00:00Z", read.CreationInfo.Created)
	byName := map[string]*v2_3.Package{}
	for _, p := range read.Packages {
		byName[p.PackageName] = p
	}
	require.Len(t, byName, 4)
	require.Equal(t, "BSD-2-Clause", byName["docker.io/library/nginx:1.27"].PackageLicenseDeclared)
	require.Equal(t, "NOASSERTION", byName[d.Images[1].Name].PackageLicenseDeclared)
	require.Equal(t, "see <LICENSE>", byName[d.Images[1].Name].PackageLicenseComments)
	require.Len(t, read.Files, 2)
	other := d
	other.Images = d.Images[:1]
	require.NotEqual(t, read.DocumentNamespace, other.SPDX().DocumentNamespace)
}
