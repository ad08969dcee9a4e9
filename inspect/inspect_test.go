// SPDX-License-Identifier: Apache-2.0

package inspect_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/inspect"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/testregistry"
)

const amd64 = "linux/amd64"

// bench is a store with images in it.
type bench struct {
	t  *testing.T
	st *store.Store
}

func newBench(t *testing.T) *bench {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return &bench{t: t, st: st}
}

func (b *bench) put(mediaType string, v any) ocispec.Descriptor {
	b.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(v)
		require.NoError(b.t, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(b.t, content.WriteBlob(context.Background(), b.st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

// entry is a file of a layer.
type entry struct {
	path, text, link string
	mode             int64
	kind             byte
}

func (b *bench) layer(entries ...entry) ocispec.Descriptor {
	b.t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if e.mode == 0 {
			e.mode = 0o644
		}
		require.NoError(b.t, tw.WriteHeader(&tar.Header{Typeflag: e.kind, Name: e.path, Linkname: e.link, Mode: e.mode, Size: int64(len(e.text))}))
		_, err := tw.Write([]byte(e.text))
		require.NoError(b.t, err)
	}
	require.NoError(b.t, tw.Close())
	require.NoError(b.t, zw.Close())
	return b.put(ocispec.MediaTypeImageLayerGzip, buf.Bytes())
}

func (b *bench) manifest(ext *clusterimage.Extension, layers ...ocispec.Descriptor) ocispec.Descriptor {
	b.t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	if ext != nil {
		config.Config.Labels = map[string]string{clusterimage.LabelExtension: string(ext.Marshal())}
	}
	d := b.put(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.put(ocispec.MediaTypeImageConfig, config), Layers: layers,
	})
	return d
}

func (b *bench) packed(name, origin string, layers ...ocispec.Descriptor) clusterimage.PackedImage {
	b.t.Helper()
	p := clusterimage.PackedImage{Name: name, Platform: amd64, Manifest: b.manifest(nil, layers...), Origins: []string{origin}}
	for _, l := range layers {
		p.Size += l.Size
	}
	return p
}

func (b *bench) compose(name string, ext clusterimage.Extension, layers []ocispec.Descriptor, images ...clusterimage.PackedImage) *inspect.Subject {
	b.t.Helper()
	ctx := context.Background()
	rootfs := b.manifest(&ext, layers...)
	rootfs.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	desc, err := clusterimage.Compose(ctx, b.st.Content(), clusterimage.Composition{Rootfs: []ocispec.Descriptor{rootfs}, Images: images})
	require.NoError(b.t, err)
	require.NoError(b.t, b.st.Tag(ctx, name, desc))
	return b.subject(name)
}

func (b *bench) subject(name string) *inspect.Subject {
	b.t.Helper()
	tagged, err := b.st.Resolve(context.Background(), name)
	require.NoError(b.t, err)
	return inspect.InStore(b.st, tagged)
}

// two are a base and what was built on it.
func (b *bench) two() (base, shop *inspect.Subject) {
	b.t.Helper()
	shared, own, other := b.layer(entry{path: "shared", text: "shared"}), b.layer(entry{path: "own", text: "own"}), b.layer(entry{path: "o", text: "other"})
	bottom := b.layer(entry{path: "bin/", kind: tar.TypeDir, mode: 0o755}, entry{path: "bin/kubeadm", text: "1"}, entry{path: "etc/gone", text: "x"},
		entry{path: "etc/kept", text: "x"}, entry{path: "etc/mode", text: "x"}, entry{path: "etc/link", kind: tar.TypeSymlink, link: "kept"}, entry{path: "opaque/old", text: "x"})
	pause := b.packed("registry.k8s.io/pause:3.10", "imageList:1", shared, own)
	base = b.compose("r.example/kubernetes:v1", clusterimage.Extension{Type: clusterimage.KubeInstaller}, []ocispec.Descriptor{bottom}, pause)
	top := b.layer(entry{path: "./bin/kubeadm", text: "2"}, entry{path: "etc/.wh.gone"}, entry{path: "etc/new", text: "n"}, entry{path: "etc/mode", text: "x", mode: 0o600},
		entry{path: "etc/link", kind: tar.TypeSymlink, link: "new"}, entry{path: "opaque/.wh..wh..opq"}, entry{path: "opaque/fresh", text: "f"})
	nginx := b.packed("docker.io/library/nginx:1.27", "manifests/shop.yaml:12", shared, other)
	nginx.App = "shop"
	shop = b.compose("r.example/shop:v1", clusterimage.Extension{
		Type: clusterimage.KubeInstaller, Base: &clusterimage.Base{Name: "r.example/kubernetes:v1", Digest: base.Descriptor.Digest.String()},
	}, []ocispec.Descriptor{bottom, top}, pause, nginx)
	return base, shop
}

// What describes a platform is told of all images, and what the store has not is said to be absent.
func TestDescribe(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	_, shop := b.two()
	d, err := inspect.Describe(ctx, shop)
	require.NoError(t, err)
	img, err := shop.Image(ctx)
	require.NoError(t, err)
	require.Equal(t, img.Rootfs[0].Manifest.Config.Digest.String(), d.Rootfs[0].ConfigDigest)
	require.Equal(t, "layers", d.Rootfs[0].Config.RootFS.Type)

	plain := b.put(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"a": "b"},
		Config: b.put(ocispec.MediaTypeImageConfig, ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, Config: ocispec.ImageConfig{Cmd: []string{"serve"}, User: "7"},
		}),
		Layers: []ocispec.Descriptor{b.layer(entry{path: "f", text: "f"})},
	})
	require.NoError(t, b.st.Tag(ctx, "r.example/plain:v1", plain))
	d, err = inspect.Describe(ctx, b.subject("r.example/plain:v1"))
	require.NoError(t, err)
	require.Equal(t, inspect.KindImage, d.Kind)
	require.Len(t, d.Rootfs, 1)
	require.Equal(t, "linux/arm64/v8", d.Rootfs[0].Platform, "a manifest alone has it from its config")
	require.Equal(t, map[string]string{"a": "b"}, d.Rootfs[0].Annotations)
	require.Equal(t, []string{"serve"}, d.Rootfs[0].Config.Config.Cmd)
	require.Len(t, d.Rootfs[0].Layers, 1)

	here, absent := plain, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	here.Platform, absent.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}, &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	attestation := plain
	attestation.Annotations = map[string]string{"vnd.docker.reference.digest": plain.Digest.String()}
	index := b.put(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{here, absent, attestation},
		Annotations: map[string]string{"of": "index"},
	})
	require.NoError(t, b.st.Tag(ctx, "r.example/plain:v2", index))
	d, err = inspect.Describe(ctx, b.subject("r.example/plain:v2"))
	require.NoError(t, err)
	require.Len(t, d.Rootfs, 2)
	require.Equal(t, map[string]string{"of": "index"}, d.Annotations)
	require.Equal(t, "linux/arm64 false, linux/s390x true",
		fmt.Sprintf("%s %v, %s %v", d.Rootfs[0].Platform, d.Rootfs[0].Absent, d.Rootfs[1].Platform, d.Rootfs[1].Absent))
}

func TestTree(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	base, shop := b.two()
	tree, err := inspect.MakeTree(ctx, shop, []*inspect.Subject{base, shop})
	require.NoError(t, err)
	require.Len(t, tree.Rootfs, 1)
	require.Len(t, tree.Images, 2)
	nginx := tree.Images[0]
	require.Equal(t, "docker.io/library/nginx:1.27", nginx.Name)
	require.Equal(t, []string{"registry.k8s.io/pause:3.10 " + amd64}, nginx.Layers[0].SharedWith)
	require.Empty(t, nginx.Layers[1].SharedWith)
	require.Equal(t, nginx.Size-nginx.Layers[0].Size, nginx.Own)
	require.Len(t, tree.Others, 1, "an image does not share with itself")
	require.Equal(t, "r.example/kubernetes:v1", tree.Others[0].Name)
	require.Equal(t, 6, tree.Others[0].Blobs, "the rootfs' lower layer; pause's manifest, config and layers; the config of image lists")
}

func TestWhy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	base, shop := b.two()
	atHand := func(want clusterimage.Base) (*inspect.Subject, error) {
		require.Equal(t, base.Descriptor.Digest.String(), want.Digest)
		return base, nil
	}
	gone := func(clusterimage.Base) (*inspect.Subject, error) { return nil, errdefs.ErrNotFound }
	reasons, err := inspect.Why(ctx, shop, "nginx", atHand)
	require.NoError(t, err)
	require.Len(t, reasons, 1)
	require.Equal(t, []string{"manifests/shop.yaml:12"}, reasons[0].Origins)
	require.Equal(t, "shop", reasons[0].App)
	require.Nil(t, reasons[0].Base)
	for _, what := range []string{"registry.k8s.io/pause:3.10", "registry.k8s.io/pause", reasonsDigest(t, shop)} {
		reasons, err = inspect.Why(ctx, shop, what, atHand)
		require.NoError(t, err, what)
		require.Equal(t, "r.example/kubernetes:v1", reasons[0].Base.Name)
		reasons, err = inspect.Why(ctx, shop, what, gone)
		require.NoError(t, err)
		require.Nil(t, reasons[0].Base)
	}
	_, err = inspect.Why(ctx, shop, "ngimx:1.27", atHand)
	var none *inspect.NotPackedError
	require.ErrorAs(t, err, &none)
	require.Equal(t, []string{"docker.io/library/nginx:1.27"}, none.Near)
	_, err = inspect.Why(ctx, shop, "nginx:1.28", atHand)
	require.ErrorAs(t, err, &none)
}

func reasonsDigest(t *testing.T, s *inspect.Subject) string {
	t.Helper()
	img, err := s.Image(context.Background())
	require.NoError(t, err)
	return img.Images[1].Manifest.Digest.String()
}

func TestCompare(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	base, shop := b.two()
	d, err := inspect.Compare(ctx, base, shop)
	require.NoError(t, err)
	require.False(t, d.Same)
	require.True(t, d.FilesCompared)
	require.Len(t, d.Images, 1)
	require.Equal(t, inspect.Added, d.Images[0].Change)
	var files []string
	for _, f := range d.Files {
		line := f.Change + " " + f.Path
		for _, w := range f.What {
			line += " " + w
		}
		files = append(files, line)
	}
	require.Equal(t, []string{
		"changed bin/kubeadm content", "removed etc/gone", "changed etc/link link", "changed etc/mode mode", "added etc/new",
		"added opaque/fresh", "removed opaque/old",
	}, files)
	require.Positive(t, d.Blobs)
	require.Less(t, d.Bytes, d.Total)

	back, err := inspect.Compare(ctx, shop, base)
	require.NoError(t, err)
	require.Equal(t, inspect.Removed, back.Images[0].Change)
	same, err := inspect.Compare(ctx, shop, shop)
	require.NoError(t, err)
	require.True(t, same.Same)
	require.Empty(t, same.Files)
	require.Empty(t, same.Images)
	require.Zero(t, same.Bytes)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	_, shop := b.two()
	var read int64
	r, err := inspect.CheckStore(ctx, b.st, func(n int64) { read += n })
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, 2, r.Images)
	require.Equal(t, read, r.Bytes)

	img, err := shop.Image(ctx)
	require.NoError(t, err)
	damage := func(d digest.Digest, data []byte) {
		require.NoError(t, os.Chmod(b.st.BlobPath(d), 0o644))
		require.NoError(t, os.WriteFile(b.st.BlobPath(d), data, 0o600))
	}
	layers := img.Rootfs[0].Manifest.Layers
	whole, err := os.ReadFile(b.st.BlobPath(layers[0].Digest))
	require.NoError(t, err)
	damage(layers[0].Digest, append([]byte{1}, whole[1:]...)) // of the same size
	damage(layers[1].Digest, []byte("short"))
	var nginx ocispec.Manifest
	require.NoError(t, clusterimage.ReadJSON(ctx, b.st.Content(), img.Images[0].Manifest, &nginx))
	require.NoError(t, os.Remove(b.st.BlobPath(nginx.Layers[1].Digest)))
	loose := b.put("", []byte("loose"))
	damage(loose.Digest, []byte("LOOSE"))

	r, err = inspect.CheckStore(ctx, b.st, nil)
	require.NoError(t, err)
	got := map[string]inspect.Problem{}
	for _, p := range r.Problems {
		got[p.Digest] = p
	}
	require.Len(t, got, 4)
	require.Equal(t, []string{"r.example/kubernetes:v1", "r.example/shop:v1"}, got[layers[0].Digest.String()].Images)
	require.Contains(t, got[layers[0].Digest.String()].What, "its content is that of sha256:")
	require.Contains(t, got[layers[1].Digest.String()].What, "it has 5 bytes")
	require.Equal(t, "it is missing", got[nginx.Layers[1].Digest.String()].What)
	require.Equal(t, []string{"r.example/shop:v1"}, got[nginx.Layers[1].Digest.String()].Images)
	require.Empty(t, got[loose.Digest.String()].Images)
	one, err := inspect.Check(ctx, []*inspect.Subject{b.subject("r.example/kubernetes:v1")}, nil)
	require.NoError(t, err)
	require.Len(t, one.Problems, 1)

	// A document that is damaged is named itself, and its images.
	damage(img.Images[0].Manifest.Digest, []byte("{}"))
	r, err = inspect.Check(ctx, []*inspect.Subject{b.subject("r.example/shop:v1")}, nil)
	require.NoError(t, err)
	require.Contains(t, digests(r), img.Images[0].Manifest.Digest.String())
}

func digests(r *inspect.Report) []string {
	var out []string
	for _, p := range r.Problems {
		out = append(out, p.Digest)
	}
	return out
}

// An image is looked at where it is: only its documents cross the network.
func TestInRegistry(t *testing.T) {
	ctx := context.Background()
	reg, err := testregistry.Start(ctx, testregistry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	client, err := registry.NewClient(registry.Options{AuthDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	b := newBench(t)
	base, shop := b.two()
	ref := reg.Address + "/team/shop:v1"
	_, err = client.Push(ctx, b.st, shop.Descriptor, ref)
	require.NoError(t, err)
	remote, err := inspect.InRegistry(ctx, client, ref)
	require.NoError(t, err)
	here, err := inspect.Describe(ctx, shop)
	require.NoError(t, err)
	there, err := inspect.Describe(ctx, remote)
	require.NoError(t, err)
	here.Name, there.Name = "", ""
	require.Equal(t, here, there)
	tree, err := inspect.MakeTree(ctx, remote, []*inspect.Subject{base})
	require.NoError(t, err)
	require.Len(t, tree.Others, 1)
	log, err := os.ReadFile(reg.AccessLog)
	require.NoError(t, err)
	img, err := shop.Image(ctx)
	require.NoError(t, err)
	require.NotContains(t, string(log), "GET /v2/team/shop/blobs/"+img.Rootfs[0].Manifest.Layers[0].Digest.String())
	d, err := inspect.Compare(ctx, base, remote)
	require.NoError(t, err)
	require.False(t, d.FilesCompared)
	require.Len(t, d.Images, 1)

	r, err := inspect.Check(ctx, []*inspect.Subject{remote}, nil)
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Greater(t, r.Blobs, 5)
	_, err = inspect.InRegistry(ctx, client, reg.Address+"/team/none:v1")
	require.True(t, errdefs.IsNotFound(err), "%v", err)
}
