// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/attest"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
)

// predicates are what is said of a rootfs.
func (b *bench) predicates(img *clusterimage.Image, about ocispec.Descriptor, predicateType string) []json.RawMessage {
	b.t.Helper()
	var out []json.RawMessage
	for _, d := range img.Foreign {
		if clusterimage.About(d) != about.Digest {
			continue
		}
		found, err := attest.Predicates(b.t.Context(), b.store.Content(), d, predicateType)
		require.NoError(b.t, err)
		out = append(out, found...)
	}
	return out
}

func TestProvenance(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	for _, name := range []string{"os:1", "tools:1", "a:1"} {
		u.push(name)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("downloaded")) }))
	t.Cleanup(web.Close)
	files := map[string]string{
		"Kubefile": "ARG TOKEN VERSION\nFROM " + u.host + "/tools:1 AS tools\nFROM " + u.host + "/os:1\nARG TOKEN VERSION\n" +
			"COPY --from=tools /shared tools/\nADD " + web.URL + "/file?token=hunter2 got\nCOPY imageList imageList\nRUN echo $VERSION > version\n",
		"imageList": u.host + "/a:1\n",
	}
	both := func(o *build.Options) {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}}
		o.BuildArgs = map[string]string{"TOKEN": "hunter2", "VERSION": "7"}
		o.Provenance = build.Provenance{Mode: build.Max, Builder: "https://ci.example/builder"}
		o.SBOM = true
	}
	b := newBench(t, files)
	img := b.mustBuild(both)
	require.Len(t, img.Foreign, 2)
	for _, r := range img.Rootfs {
		found := b.predicates(img, r.Descriptor, attest.PredicateSLSA)
		require.Len(t, found, 1)
		text := string(found[0])
		require.Contains(t, text, `"https://ci.example/builder"`)
		require.Contains(t, text, `"build-arg:VERSION":"7"`)
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, b.context)
		var p struct {
			BuildDefinition struct{ ResolvedDependencies []attest.Dependency }
		}
		require.NoError(t, json.Unmarshal(found[0], &p))
		var got []string
		for _, d := range p.BuildDefinition.ResolvedDependencies {
			require.NotEmpty(t, d.Digest, d.URI)
			uri, _, _ := strings.Cut(d.URI, "?")
			got = append(got, d.Name+" "+uri)
		}
		host := "pkg:docker/" + strings.Replace(u.host, ":", "%3A", 1)
		require.Equal(t, []string{
			"base " + host + "/os@1", "base " + host + "/tools@1", "file " + web.URL + "/file", "image " + host + "/a@1", "toolbox pkg:generic/sealer-toolbox",
		}, got)
	}
	var bill v2_3.Document
	require.NoError(t, json.Unmarshal(b.predicates(img, img.Rootfs[0].Descriptor, attest.PredicateSPDX)[0], &bill))
	var listed []string
	for _, f := range bill.Files {
		listed = append(listed, strings.TrimPrefix(f.FileName, "./"))
	}
	require.Equal(t, names(b.files(img, 0)), listed)
	require.Len(t, bill.Packages, 2)
	require.Equal(t, u.host+"/a:1", bill.Packages[1].PackageName)

	other := newBench(t, files)
	require.Equal(t, img.Descriptor.Digest, other.mustBuild(both).Descriptor.Digest, "elsewhere, from nothing")
	require.Equal(t, img.Descriptor.Digest, b.mustBuild(both).Descriptor.Digest, "from the cache")

	// A pull of one platform brings what is said of it.
	name := u.host + "/built:1"
	_, err := b.client.Push(t.Context(), b.store, img.Descriptor, name)
	require.NoError(t, err)
	third := newBench(t, nil)
	_, err = third.client.Pull(t.Context(), third.store, name, registry.PullOptions{Platforms: []ocispec.Platform{img.Rootfs[1].Platform}})
	require.NoError(t, err)
	require.Len(t, third.predicates(img, img.Rootfs[1].Descriptor, attest.PredicateSLSA), 1)

	none := b.mustBuild(both, func(o *build.Options) { o.Provenance.Mode, o.SBOM = build.NoProvenance, false })
	require.Empty(t, none.Foreign)
	require.Equal(t, img.Rootfs[0].Descriptor.Digest, none.Rootfs[0].Descriptor.Digest, "the rootfs does not depend on what is said of it")
}

func TestParseProvenance(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]build.Provenance{
		"": {Mode: build.Min}, "true": {Mode: build.Min}, "false": {Mode: build.NoProvenance}, "max": {Mode: build.Max},
		"mode=max,builder-id=https://ci": {Mode: build.Max, Builder: "https://ci"}, "builder-id=x": {Mode: build.Min, Builder: "x"},
	} {
		got, err := build.ParseProvenance(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"some", "mode=some", "sbom=true", "mode=max,mode=min"} {
		_, err := build.ParseProvenance(text)
		require.Error(t, err, text)
	}
}
