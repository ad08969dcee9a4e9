// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/testregistry"
)

// packing makes packed images in a store.
type packing struct {
	t  *testing.T
	st *store.Store
}

func newPacking(t *testing.T) packing {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return packing{t, st}
}

func (p packing) put(mediaType string, v any) ocispec.Descriptor {
	p.t.Helper()
	data, isText := v.([]byte)
	if !isText {
		var err error
		data, err = json.Marshal(v)
		require.NoError(p.t, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(p.t, content.WriteBlob(p.t.Context(), p.st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func (p packing) manifest(text string) ocispec.Descriptor {
	return p.put(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: p.put(ocispec.MediaTypeImageConfig, ocispec.Image{Author: text}),
		Layers: []ocispec.Descriptor{p.put(ocispec.MediaTypeImageLayer, []byte("layer of "+text))},
	})
}

func (p packing) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return p.put(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// All packed images are in a real registry with TLS and a login afterwards, and can be asked for as a container runtime's mirror is.
func TestPushPacked(t *testing.T) {
	p := newPacking(t)
	amd64, arm64, elsewhere := p.manifest("amd64"), p.manifest("arm64"), ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("s390x"), Size: 5,
	}
	whole, partial := p.index(amd64, arm64), p.index(amd64, arm64, elsewhere)
	reg, err := testregistry.Start(t.Context(), testregistry.Options{TLS: true, User: "robot", Password: "pass"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	img := &clusterimage.Image{Images: []clusterimage.PackedImage{
		{Name: "docker.io/library/nginx:1", Platform: "linux/amd64", Manifest: amd64},
		{Name: "quay.io/a/b:2", Platform: "linux/amd64", Manifest: amd64, Index: &whole},
		{Name: "quay.io/a/b:2", Platform: "linux/arm64", Manifest: arm64, Index: &whole},
		{Name: "quay.io/a/c:3", Platform: "linux/amd64", Manifest: amd64, Index: &partial},
		{Name: "quay.io/a/d:4", Platform: "linux/amd64", Manifest: amd64, Index: &partial},
		{Name: "quay.io/a/d:4", Platform: "linux/arm64", Manifest: arm64, Index: &partial},
		{Name: "ghcr.io/pinned/e@" + whole.Digest.String(), Platform: "linux/amd64", Manifest: amd64, Index: &whole},
		{Name: "ghcr.io/pinned/e@" + whole.Digest.String(), Platform: "linux/arm64", Manifest: arm64, Index: &whole},
		{Name: reg.Address + "/own/f:5", Platform: "linux/amd64", Manifest: amd64},
	}}
	ca, err := os.ReadFile(reg.CAFile)
	require.NoError(t, err)
	o := registry.Options{
		Authorities: map[string][]byte{reg.Address: ca}, AuthDir: t.TempDir(), Retries: -1,
		Logins: []registry.Login{{Host: reg.Address, Username: "robot", Password: "pass"}},
	}
	client, err := registry.NewClient(o)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.Check(t.Context(), reg.Address))
	target := registry.Target{Host: reg.Address, Prefix: "mirror/all"}
	require.NoError(t, registry.CheckPacked(t.Context(), p.st, img, target))
	lacks, err := client.LacksPacked(t.Context(), p.st, img, target)
	require.NoError(t, err)
	require.NotEmpty(t, lacks)
	require.NoError(t, client.PushPacked(t.Context(), p.st, img, target))
	lacks, err = client.LacksPacked(t.Context(), p.st, img, target)
	require.NoError(t, err)
	require.Empty(t, lacks)

	uploads := func() int {
		log, err := os.ReadFile(reg.AccessLog)
		require.NoError(t, err)
		return strings.Count(string(log), "\"POST ")
	}
	before := uploads()
	require.NoError(t, client.PushPacked(t.Context(), p.st, img, target))
	require.Equal(t, before, uploads(), "what is there is not sent again")

	pulled, err := store.Open(t.TempDir())
	require.NoError(t, err)
	for name, want := range map[string]digest.Digest{
		"mirror/all/docker.io/library/nginx:1": amd64.Digest, "mirror/all/quay.io/a/b:2": whole.Digest, "mirror/all/quay.io/a/c:3": amd64.Digest,
		"mirror/all/ghcr.io/pinned/e@" + whole.Digest.String(): whole.Digest, "own/f:5": amd64.Digest,
	} {
		got, err := client.Pull(t.Context(), pulled, reg.Address+"/"+name, registry.PullOptions{})
		require.NoError(t, err, name)
		require.Equal(t, want, got.Digest, name)
	}
	got, err := client.Pull(t.Context(), pulled, reg.Address+"/mirror/all/quay.io/a/d:4", registry.PullOptions{})
	require.NoError(t, err)
	var made ocispec.Index
	require.NoError(t, clusterimage.ReadJSON(t.Context(), pulled.Content(), got, &made))
	require.Len(t, made.Manifests, 2, "those that are packed")
	require.Equal(t, "arm64", made.Manifests[1].Platform.Architecture)

	o.Logins[0].Password = "wrong"
	other, err := registry.NewClient(o)
	require.NoError(t, err)
	err = other.Check(t.Context(), reg.Address)
	require.ErrorAs(t, err, new(*registry.LoginError))
	require.ErrorAs(t, err, new(*registry.StatusError))
	o.Authorities = nil
	stranger, err := registry.NewClient(o)
	require.NoError(t, err)
	require.ErrorContains(t, stranger.Check(t.Context(), reg.Address), "certificate")
}

func TestCheckPacked(t *testing.T) {
	p := newPacking(t)
	one, two := p.manifest("one"), p.manifest("two")
	partial := p.index(one, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1})
	img := &clusterimage.Image{Images: []clusterimage.PackedImage{
		{Name: "quay.io/a/b:1", Platform: "linux/amd64", Manifest: one},
		{Name: "docker.io/a/b:1", Platform: "linux/amd64", Manifest: one},
		{Name: "r.example.com/quay.io/a/b:1", Platform: "linux/amd64", Manifest: two},
		{Name: "quay.io/c@" + partial.Digest.String(), Platform: "linux/amd64", Manifest: one, Index: &partial},
	}}
	err := registry.CheckPacked(t.Context(), p.st, img, registry.Target{Host: "r.example.com"})
	wrong := &registry.PackedError{}
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, []string{
		"quay.io/a/b:1 and r.example.com/quay.io/a/b:1 would both be r.example.com/quay.io/a/b:1",
		"quay.io/c@" + partial.Digest.String() + " names an index of which only some platforms are packed",
	}, wrong.Problems)
	require.NotEmpty(t, wrong.Hint())
}

// A client reaches registries over the connections that it is given.
func TestClient_Dial(t *testing.T) {
	reg, err := testregistry.Start(t.Context(), testregistry.Options{TLS: true, Name: "hub.corp.invalid"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	ca, err := os.ReadFile(reg.CAFile)
	require.NoError(t, err)
	o := registry.Options{Authorities: map[string][]byte{"hub.corp.invalid:7": ca}, Retries: -1, AuthDir: t.TempDir()}
	client, err := registry.NewClient(o)
	require.NoError(t, err)
	require.Error(t, client.Check(t.Context(), "hub.corp.invalid:7"), "nobody knows the name")
	o.Dial = dialTo(reg.Address)
	client, err = registry.NewClient(o)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.Check(t.Context(), "hub.corp.invalid:7"))
}

func dialTo(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}
