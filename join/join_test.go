// SPDX-License-Identifier: Apache-2.0

package join_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/join"
	"github.com/sealerio/sealer/store"
)

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return st
}

func write(t *testing.T, st *store.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(context.Background(), st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func writeJSON(t *testing.T, st *store.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return write(t, st, mediaType, data)
}

// files is a layer: names to contents; a name with a slash at its end is a folder.
type files map[string]string

func (f files) tar(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		hdr := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(f[name])), Typeflag: tar.TypeReg}
		if name[len(name)-1] == '/' {
			hdr.Typeflag, hdr.Mode = tar.TypeDir, 0o755
		}
		require.NoError(t, tw.WriteHeader(hdr))
		_, err := tw.Write([]byte(f[name]))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}

// spec is a ClusterImage of one platform.
type spec struct {
	name     string
	platform ocispec.Platform // default: amd64
	layers   []files
	ext      clusterimage.Extension
	env      []string
	labels   map[string]string
	images   map[string]string // name to what makes its content
	keep     bool              // an attestation of the rootfs
}

func (s spec) build(t *testing.T, st *store.Store) store.Tagged {
	t.Helper()
	ctx := context.Background()
	if s.platform.OS == "" {
		s.platform = amd64
	}
	config := ocispec.Image{Platform: s.platform, RootFS: ocispec.RootFS{Type: "layers"}}
	config.Config.Env = s.env
	config.Config.Labels = map[string]string{clusterimage.LabelExtension: string(s.ext.Marshal())}
	maps.Copy(config.Config.Labels, s.labels)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	zw, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for _, l := range s.layers {
		plain := l.tar(t)
		m.Layers = append(m.Layers, write(t, st, ocispec.MediaTypeImageLayerZstd, zw.EncodeAll(plain, nil)))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		config.History = append(config.History, ocispec.History{CreatedBy: "COPY"})
	}
	m.Config = writeJSON(t, st, ocispec.MediaTypeImageConfig, config)
	rootfs := writeJSON(t, st, m.MediaType, m)
	rootfs.Platform = &s.platform
	in := clusterimage.Composition{Rootfs: []ocispec.Descriptor{rootfs}}
	for name, data := range s.images {
		l := write(t, st, ocispec.MediaTypeImageLayer, []byte(data))
		in.Images = append(in.Images, clusterimage.PackedImage{
			Name: name, Platform: "linux/" + s.platform.Architecture,
			Manifest: writeJSON(t, st, m.MediaType, ocispec.Manifest{
				Versioned: m.Versioned, MediaType: m.MediaType, Layers: []ocispec.Descriptor{l},
				Config: writeJSON(t, st, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: s.platform, RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{l.Digest}}}),
			}),
		})
	}
	if s.keep {
		a := writeJSON(t, st, m.MediaType, ocispec.Manifest{
			Versioned: m.Versioned, MediaType: m.MediaType, Config: m.Config, Annotations: map[string]string{"of": rootfs.Digest.String()},
		})
		a.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": rootfs.Digest.String()}
		in.Keep = append(in.Keep, a)
	}
	desc, err := clusterimage.Compose(ctx, st.Content(), in)
	require.NoError(t, err)
	return tag(t, st, s.name, desc)
}

func tag(t *testing.T, st *store.Store, name string, desc ocispec.Descriptor) store.Tagged {
	t.Helper()
	require.NoError(t, st.Tag(context.Background(), name, desc))
	out, err := st.Resolve(context.Background(), name)
	require.NoError(t, err)
	return out
}

func read(t *testing.T, st *store.Store, desc ocispec.Descriptor) *clusterimage.Image {
	t.Helper()
	img, err := clusterimage.Read(context.Background(), st.Content(), desc)
	require.NoError(t, err)
	return img
}

// layerFiles unpacks a layer.
func layerFiles(t *testing.T, st *store.Store, l ocispec.Descriptor) files {
	t.Helper()
	data, err := content.ReadBlob(context.Background(), st.Content(), l)
	require.NoError(t, err)
	zr, err := zstd.NewReader(bytes.NewReader(data))
	require.NoError(t, err)
	defer zr.Close()
	out := files{}
	tr := tar.NewReader(zr)
	for {
		hdr, err := tr.Next()
		if err != nil {
			return out
		}
		var buf bytes.Buffer
		_, err = buf.ReadFrom(tr)
		require.NoError(t, err)
		out[hdr.Name] = buf.String()
	}
}

func metadata(runtime, version string) string {
	return string(clusterimage.Metadata{Version: "v1", Arch: "amd64", ClusterRuntime: runtime, KubeVersion: version, ClusterRuntimeVersion: version}.Marshal())
}

func kube() spec {
	return spec{
		name:   "r.example/kubernetes:v1",
		layers: []files{{"Metadata": metadata("kubernetes", "v1.36.3"), "bin/": "", "bin/kubeadm": "kubeadm", "imageList": "pause:1\n# ours\n", "etc/a": "a", "Kubefile": "FROM scratch"}},
		ext: clusterimage.Extension{
			Type: clusterimage.KubeInstaller, Env: map[string]string{"A": "1"}, Launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f net.yaml"}},
		},
		env:    []string{"PATH=/bin", "A=1"},
		images: map[string]string{"docker.io/library/pause:1": "pause", "docker.io/library/shared:1": "shared"},
	}
}

func app(name string) spec {
	return spec{
		name:   "r.example/" + name + ":v1",
		layers: []files{{"Metadata": metadata("", ""), "imageList": "pause:1\n" + name + ":1\n", "Kubefile": name, "manifests/": "", "manifests/" + name + ".yaml": name}},
		ext: clusterimage.Extension{
			Type: clusterimage.AppInstaller, Env: map[string]string{"B": "2"},
			Applications: []clusterimage.Application{{Name: name, Type: "kube"}}, Launch: clusterimage.Launch{AppNames: []string{name}},
		},
		env:    []string{"PATH=/bin", "B=2"},
		images: map[string]string{"docker.io/library/" + name + ":1": name, "docker.io/library/shared:1": "shared"},
	}
}

func merge(st *store.Store, o join.MergeOptions, images ...store.Tagged) (ocispec.Descriptor, error) {
	return join.Merge(context.Background(), st.Content(), images, o)
}

func TestMerge(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a, b, c := kube().build(t, st), app("shop").build(t, st), app("mail").build(t, st)
	desc, err := merge(st, join.MergeOptions{}, a, b, c)
	require.NoError(t, err)
	img := read(t, st, desc)
	require.Len(t, img.Rootfs, 1)
	r := img.Rootfs[0]
	require.Equal(t, clusterimage.KubeInstaller, r.Extension.Type)
	require.Equal(t, map[string]string{"A": "1", "B": "2"}, r.Extension.Env)
	require.Equal(t, []string{"PATH=/bin", "A=1", "B=2"}, r.Config.Config.Env)
	require.Len(t, r.Extension.Applications, 2)
	require.Equal(t, []string{"shop", "mail"}, r.Extension.Launch.AppNames)
	require.Equal(t, []string{"kubectl apply -f net.yaml"}, r.Extension.Launch.Cmds)
	require.Equal(t, "kubernetes", r.Config.Config.Labels[clusterimage.LabelClusterRuntime])
	var names []string
	for _, p := range img.Images {
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"docker.io/library/mail:1", "docker.io/library/pause:1", "docker.io/library/shared:1", "docker.io/library/shop:1"}, names)

	require.Len(t, r.Manifest.Layers, 4, "three rootfs and what is joined")
	require.Len(t, r.Config.RootFS.DiffIDs, 4)
	require.Len(t, r.Config.History, 4)
	for i, other := range []store.Tagged{a, b, c} {
		require.Equal(t, read(t, st, other.Descriptor).Rootfs[0].Manifest.Layers[0], r.Manifest.Layers[i], "layers are as they were, in order")
	}
	top := layerFiles(t, st, r.Manifest.Layers[3])
	require.Equal(t, files{"Metadata": metadata("kubernetes", "v1.36.3"), "imageList": "pause:1\n# ours\nshop:1\nmail:1\n"}, top)

	again, err := merge(st, join.MergeOptions{}, a, b, c)
	require.NoError(t, err)
	require.Equal(t, desc.Digest, again.Digest)
	other, err := merge(st, join.MergeOptions{}, a, c, b)
	require.NoError(t, err)
	require.NotEqual(t, desc.Digest, other.Digest)
}

func TestMerge_Conflicts(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := kube().build(t, st)
	s := app("shop")
	s.layers[0]["etc/a"] = "another"
	s.layers[0]["bin/kubeadm"] = "kubeadm"
	s.layers = append(s.layers, files{"bin/.wh.kubeadm": ""})
	s.images["docker.io/library/pause:1"] = "another pause"
	s.ext.Env["A"] = "9"
	b := s.build(t, st)
	more := app("shop")
	more.name = "r.example/shop:v2"
	more.ext.Applications[0].Type = "helm"
	c := more.build(t, st)

	_, err := merge(st, join.MergeOptions{}, a, b, c)
	ce, ok := errors.AsType[*join.ConflictError](err)
	require.True(t, ok, "%v", err)
	kinds := map[string]string{}
	for _, c := range ce.Conflicts {
		kinds[c.Kind+" "+c.What] = c.String()
	}
	require.Contains(t, kinds, "file etc/a")
	require.Contains(t, kinds["file etc/a"], "r.example/kubernetes:v1 has a file of digest")
	require.Contains(t, kinds, "file bin/kubeadm")
	require.Contains(t, kinds["file bin/kubeadm"], "deletes it")
	require.Contains(t, kinds, "image docker.io/library/pause:1 (linux/amd64)")
	require.Contains(t, kinds, "env A")
	require.Contains(t, kinds, "application shop")
	require.Len(t, ce.Conflicts, 5, err.Error())
	require.Contains(t, ce.Hint(), "--on-conflict last")

	desc, err := merge(st, join.MergeOptions{Last: true}, a, b, c)
	require.NoError(t, err)
	img := read(t, st, desc)
	require.Equal(t, "9", img.Rootfs[0].Extension.Env["A"])
	require.Equal(t, "helm", img.Rootfs[0].Extension.Applications[0].Type)
	for _, p := range img.Images {
		if p.Name == "docker.io/library/pause:1" {
			require.Equal(t, read(t, st, b.Descriptor).Images[0].Manifest.Digest, p.Manifest.Digest)
		}
	}
}

// Two versions of Kubernetes are no matter of preference.
func TestMerge_Runtimes(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := kube().build(t, st)
	s := kube()
	s.name = "r.example/k3s:v1"
	s.layers[0]["Metadata"] = metadata("k3s", "v1.35.0")
	b := s.build(t, st)
	_, err := merge(st, join.MergeOptions{Last: true}, a, b)
	ce, ok := errors.AsType[*join.ConflictError](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "r.example/kubernetes:v1 has kubernetes")
	require.ErrorContains(t, err, "r.example/k3s:v1 has v1.35.0")
	require.True(t, ce.Final)
}

// What stands on a common base counts the base once, and may change it.
func TestMerge_SharedBase(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	base := kube()
	a := base.build(t, st)
	one, two := base, base
	one.name, two.name = "r.example/one:v1", "r.example/two:v1"
	one.layers = append(slices.Clone(base.layers), files{"etc/a": "changed by one"})
	two.layers = append(slices.Clone(base.layers), files{"etc/b": "of two"})
	b, c := one.build(t, st), two.build(t, st)
	desc, err := merge(st, join.MergeOptions{}, b, c)
	require.NoError(t, err)
	require.Len(t, read(t, st, desc).Rootfs[0].Manifest.Layers, 3)
	desc, err = merge(st, join.MergeOptions{}, a, b, c)
	require.NoError(t, err)
	require.Len(t, read(t, st, desc).Rootfs[0].Manifest.Layers, 3)

	three := base
	three.name = "r.example/three:v1"
	three.layers = append(slices.Clone(base.layers), files{"etc/a": "changed by three"})
	_, err = merge(st, join.MergeOptions{}, b, three.build(t, st))
	require.ErrorContains(t, err, "file etc/a: r.example/one:v1 has a file of digest")
}

func TestMerge_Platforms(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	x, y := kube(), kube()
	x.name, y.name, y.platform = "r.example/x:1", "r.example/y:1", arm64
	list := tag(t, st, "r.example/both:1", mustIndex(t, st))
	for _, s := range []spec{x, y} {
		desc, err := join.Add(ctx, st.Content(), list, s.build(t, st), join.Entry{})
		require.NoError(t, err)
		list = tag(t, st, list.Name, desc)
	}
	one := app("shop").build(t, st)
	_, err := merge(st, join.MergeOptions{}, list, one)
	require.ErrorContains(t, err, "r.example/both:1 has linux/amd64, linux/arm64")
	desc, err := merge(st, join.MergeOptions{Platforms: []ocispec.Platform{amd64}}, list, one)
	require.NoError(t, err)
	require.Len(t, read(t, st, desc).Rootfs, 1)
	_, err = merge(st, join.MergeOptions{Platforms: []ocispec.Platform{arm64}}, list, one)
	require.ErrorContains(t, err, "r.example/shop:v1")
	plain := tag(t, st, "r.example/plain:1", mustIndex(t, st))
	_, err = merge(st, join.MergeOptions{}, one, plain)
	require.ErrorIs(t, err, clusterimage.ErrNotClusterImage)
}

func mustIndex(t *testing.T, st *store.Store) ocispec.Descriptor {
	t.Helper()
	desc, err := join.NewIndex(context.Background(), st.Content())
	require.NoError(t, err)
	return desc
}

func TestIndex_ClusterImages(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	x, y := kube(), kube()
	x.name, y.name, y.platform = "r.example/x:1", "r.example/y:1", arm64
	x.keep, y.keep = true, true
	a, b := x.build(t, st), y.build(t, st)
	list := tag(t, st, "r.example/both:1", mustIndex(t, st))
	change := func(desc ocispec.Descriptor, err error) {
		t.Helper()
		require.NoError(t, err)
		list = tag(t, st, list.Name, desc)
	}
	change(join.Add(ctx, st.Content(), list, a, join.Entry{}))
	require.Equal(t, a.Descriptor.Digest, list.Descriptor.Digest, "an index of one is that one")
	change(join.Add(ctx, st.Content(), list, b, join.Entry{Annotations: map[string]string{"com.example.tested": "yes"}}))
	img := read(t, st, list.Descriptor)
	require.Len(t, img.Rootfs, 2)
	require.Len(t, img.Images, 4)
	require.Len(t, img.Foreign, 2)
	_, err := img.Descriptors(ctx, st.Content(), nil)
	require.NoError(t, err)

	_, err = join.Add(ctx, st.Content(), list, a, join.Entry{})
	require.ErrorContains(t, err, "it has a rootfs for linux/amd64 already")
	_, err = join.Annotate(ctx, st.Content(), list, "linux/arm64", join.Entry{Platform: ocispec.Platform{OS: "darwin"}})
	require.ErrorContains(t, err, "what it was built for")
	_, err = join.Annotate(ctx, st.Content(), list, "linux/arm64", join.Entry{Annotations: map[string]string{clusterimage.AnnotationRole: "x"}})
	require.ErrorContains(t, err, "sealer's own")
	_, err = join.Annotate(ctx, st.Content(), list, "linux/s390x", join.Entry{})
	require.ErrorContains(t, err, "linux/arm64 (sha256:")

	change(join.Annotate(ctx, st.Content(), list, "linux/arm64", join.Entry{Annotations: map[string]string{"com.example.tested": "", "k": "v"}}))
	r, err := read(t, st, list.Descriptor).Platform(arm64)
	require.NoError(t, err)
	require.Equal(t, "v", r.Descriptor.Annotations["k"])
	require.NotContains(t, r.Descriptor.Annotations, "com.example.tested")

	change(join.Remove(ctx, st.Content(), list, "linux/arm64"))
	require.Equal(t, a.Descriptor.Digest, list.Descriptor.Digest, "what is left is what was there")
	change(join.Remove(ctx, st.Content(), list, "linux/amd64"))
	require.Equal(t, mustIndex(t, st).Digest, list.Descriptor.Digest)
}

func TestIndex_OrdinaryImages(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	image := func(p ocispec.Platform) store.Tagged {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		m.Config = writeJSON(t, st, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p})
		return tag(t, st, "r.example/plain:"+p.Architecture+p.Variant, writeJSON(t, st, m.MediaType, m))
	}
	list := tag(t, st, "r.example/list:1", mustIndex(t, st))
	add := func(img store.Tagged, e join.Entry) error {
		desc, err := join.Add(ctx, st.Content(), list, img, e)
		if err == nil {
			list = tag(t, st, list.Name, desc)
		}
		return err
	}
	require.NoError(t, add(image(amd64), join.Entry{}))
	require.NoError(t, add(image(ocispec.Platform{OS: "linux", Architecture: "arm"}), join.Entry{Platform: ocispec.Platform{Variant: "v6"}}))
	require.ErrorContains(t, add(image(amd64), join.Entry{}), "is in it already")
	require.ErrorContains(t, add(kube().build(t, st), join.Entry{}), "one is a ClusterImage")
	require.ErrorContains(t, add(image(ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}), join.Entry{}), "already")
	var index ocispec.Index
	require.NoError(t, clusterimage.ReadJSON(ctx, st.Content(), list.Descriptor, &index))
	require.Len(t, index.Manifests, 2)
	require.Equal(t, "v6", index.Manifests[1].Platform.Variant)

	// A list in a list is flat.
	other := tag(t, st, "r.example/other:1", mustIndex(t, st))
	desc, err := join.Add(ctx, st.Content(), other, list, join.Entry{})
	require.NoError(t, err)
	require.Equal(t, list.Descriptor.Digest, desc.Digest)
	desc, err = join.Remove(ctx, st.Content(), list, index.Manifests[0].Digest.String())
	require.NoError(t, err)
	require.NoError(t, clusterimage.ReadJSON(ctx, st.Content(), desc, &index))
	require.Len(t, index.Manifests, 1)
	_, err = join.Add(ctx, st.Content(), image(amd64), list, join.Entry{})
	require.ErrorContains(t, err, "not an index")
}

// What an image says of versions of Kubernetes holds for the merged one.
func TestMerge_KubeVersion(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := kube().build(t, st)
	one, two := app("shop"), app("mail")
	one.labels = map[string]string{clusterimage.LabelKubeVersion: ">=1.20"}
	two.labels = map[string]string{clusterimage.LabelKubeVersion: "<1.30 || >=1.35"}
	b, c := one.build(t, st), two.build(t, st)
	desc, err := merge(st, join.MergeOptions{}, a, b, c)
	require.NoError(t, err)
	require.Equal(t, ">=1.20, <1.30 || >=1.20, >=1.35", read(t, st, desc).Rootfs[0].Config.Config.Labels[clusterimage.LabelKubeVersion])
	three := app("old")
	three.labels = map[string]string{clusterimage.LabelKubeVersion: "<1.30"}
	_, err = merge(st, join.MergeOptions{Last: true}, a, three.build(t, st))
	require.ErrorContains(t, err, "runtime version of Kubernetes: one image has v1.36.3")
}

// Commands and applications keep their order.
func TestMerge_Launch(t *testing.T) {
	t.Parallel()
	launch := func(after int, cmds, apps string) clusterimage.Launch {
		return clusterimage.Launch{Cmds: strings.Fields(cmds), AppNames: strings.Fields(apps), After: after}
	}
	for name, tc := range map[string]struct{ a, b, want clusterimage.Launch }{
		"commands":                  {launch(0, "a", ""), launch(0, "b c", ""), launch(0, "a b c", "")},
		"commands, then apps":       {launch(0, "a", ""), launch(1, "b c", "x"), launch(2, "a b c", "x")},
		"apps, then commands":       {launch(1, "a b", "x"), launch(0, "c", ""), launch(1, "a b c", "x")},
		"apps of both":              {launch(1, "a b", "x"), launch(1, "c d", "y x"), launch(2, "a c b d", "x y")},
		"apps alone":                {launch(0, "", "x"), launch(0, "", "y"), launch(0, "", "x y")},
		"commands behind apps only": {launch(0, "a", "x"), launch(0, "b", "y"), launch(0, "a b", "x y")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			one, two := app("one"), app("two")
			one.ext.Launch, two.ext.Launch = tc.a, tc.b
			desc, err := merge(st, join.MergeOptions{}, one.build(t, st), two.build(t, st))
			require.NoError(t, err)
			got := read(t, st, desc).Rootfs[0].Extension.Launch
			require.Equal(t, tc.want.AppNames, append([]string{}, got.AppNames...))
			require.Equal(t, tc.want.Cmds, append([]string{}, got.Cmds...))
			require.Equal(t, tc.want.After, got.After)
		})
	}
}
