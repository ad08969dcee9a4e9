// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/signature"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/testregistry"
)

const password = "open sesame"

// pair is a key of our own in both forms.
func pair(t *testing.T) (*signature.PrivateKey, *signature.PublicKey) {
	t.Helper()
	keys, err := signature.GenerateKey([]byte(password))
	require.NoError(t, err)
	return parse(t, keys)
}

func parse(t *testing.T, keys signature.KeyPair) (*signature.PrivateKey, *signature.PublicKey) {
	t.Helper()
	private, err := signature.ReadPrivateKey("cosign.key", keys.Private, []byte(password))
	require.NoError(t, err)
	public, err := signature.ReadPublicKey("cosign.pub", keys.Public)
	require.NoError(t, err)
	return private, public
}

// seal puts a key into cosign's format.
func seal(t *testing.T, key crypto.Signer) signature.KeyPair {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	sealed, err := encrypted.Encrypt(der, []byte(password))
	require.NoError(t, err)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	require.NoError(t, err)
	return signature.KeyPair{Public: public, Private: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: sealed})}
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return st
}

func put(t *testing.T, st *store.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(v)
		require.NoError(t, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(context.Background(), st.Content(), d.Digest.String(), bytes.NewReader(data), d))
	return d
}

// image puts a small image into the store under a name.
func image(t *testing.T, st *store.Store, name string) ocispec.Descriptor {
	t.Helper()
	layer := put(t, st, ocispec.MediaTypeImageLayer, []byte("layer of "+name))
	desc := put(t, st, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(t, st, ocispec.MediaTypeImageConfig, ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		}),
		Layers: []ocispec.Descriptor{layer},
	})
	require.NoError(t, st.Tag(context.Background(), name, desc))
	return desc
}

func TestSign_Verify(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	own, err := signature.GenerateKey([]byte(password))
	require.NoError(t, err)
	for name, keys := range map[string]signature.KeyPair{"ecdsa": own, "rsa": seal(t, rsaKey), "ed25519": seal(t, edKey)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			private, public := parse(t, keys)
			_, stranger := pair(t)
			st := openStore(t)
			desc := image(t, st, "r.example/team/shop:v1")
			src := signature.InStore(st)

			_, err := signature.Verify(ctx, src, desc, []*signature.PublicKey{public})
			var none *signature.UnverifiedError
			require.ErrorAs(t, err, &none)
			require.EqualError(t, err, desc.Digest.String()+" has no signature")

			made, err := signature.Sign(ctx, st, "r.example/team/shop:v1", desc, private, map[string]any{"who": "me"})
			require.NoError(t, err)
			require.Equal(t, "r.example/team/shop", made.Repository)
			found, err := signature.Verify(ctx, src, desc, []*signature.PublicKey{stranger, public})
			require.NoError(t, err)
			made.Key = "cosign.pub"
			require.Equal(t, []signature.Signature{made}, found)
			listed, err := signature.List(ctx, src, desc)
			require.NoError(t, err)
			require.Len(t, listed, 1)
			require.Empty(t, listed[0].Key)

			_, err = signature.Verify(ctx, src, desc, []*signature.PublicKey{stranger})
			require.ErrorAs(t, err, &none)
			require.Equal(t, 1, none.Found)
			_, err = signature.Verify(ctx, src, image(t, st, "r.example/team/other:v1"), []*signature.PublicKey{public})
			require.ErrorAs(t, err, &none)
			require.Zero(t, none.Found)
		})
	}
}

// Two keys may sign one image, under two names, and the same key twice adds one signature with ECDSA's own salt each time.
func TestSign_Several(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := openStore(t)
	desc := image(t, st, "r.example/a:1")
	first, firstPub := pair(t)
	second, secondPub := pair(t)
	for name, key := range map[string]*signature.PrivateKey{"r.example/a:1": first, "r.example/b:1": second} {
		_, err := signature.Sign(ctx, st, name, desc, key, nil)
		require.NoError(t, err)
	}
	found, err := signature.Verify(ctx, signature.InStore(st), desc, []*signature.PublicKey{firstPub})
	require.NoError(t, err)
	require.Equal(t, "r.example/a", found[0].Repository)
	found, err = signature.Verify(ctx, signature.InStore(st), desc, []*signature.PublicKey{firstPub, secondPub})
	require.NoError(t, err)
	require.Len(t, found, 2)

	// They are kept as long as the image is.
	require.NoError(t, st.Untag(ctx, "r.example/a:1"))
	require.NoError(t, st.Tag(ctx, "r.example/c:1", desc))
	_, err = st.Prune(ctx, store.PruneOptions{})
	require.NoError(t, err)
	tags, err := st.Signatures(ctx, desc.Digest)
	require.NoError(t, err)
	require.Len(t, tags, 2)
	require.NoError(t, st.Untag(ctx, "r.example/c:1"))
	_, err = st.Prune(ctx, store.PruneOptions{})
	require.NoError(t, err)
	all, err := st.List(ctx)
	require.NoError(t, err)
	require.Empty(t, all)
}

// A signature that is right, over something else, is none.
func TestVerify_OtherClaims(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	private, public := pair(t)
	st := openStore(t)
	good := image(t, st, "r.example/good:1")
	bad := image(t, st, "r.example/bad:1")
	_, err := signature.Sign(ctx, st, "r.example/good:1", good, private, nil)
	require.NoError(t, err)
	tags, err := st.Signatures(ctx, good.Digest)
	require.NoError(t, err)
	require.Len(t, tags, 1)
	// Its signature is put beside another image.
	require.NoError(t, st.Tag(ctx, "r.example/bad:"+store.SignatureTag(bad.Digest), tags[0].Descriptor))
	_, err = signature.Verify(ctx, signature.InStore(st), bad, []*signature.PublicKey{public})
	var failed *signature.UnverifiedError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Broken, 1)
	require.ErrorContains(t, err, good.Digest.String())
	listed, err := signature.List(ctx, signature.InStore(st), bad)
	require.NoError(t, err)
	require.Empty(t, listed)
}

func TestVerify_HostileManifests(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, public := pair(t)
	for name, manifest := range map[string]func(st *store.Store) any{
		"no JSON":    func(*store.Store) any { return []byte("hello") },
		"not base64": func(st *store.Store) any { return sheet(t, st, 1, "*") },
		"too many":   func(st *store.Store) any { return sheet(t, st, 257, "") },
		"too large": func(st *store.Store) any {
			m := sheet(t, st, 1, "")
			m.Layers[0].Size = 1 << 30
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := openStore(t)
			desc := image(t, st, "r.example/a:1")
			sig := put(t, st, ocispec.MediaTypeImageManifest, manifest(st))
			require.NoError(t, st.Tag(ctx, "r.example/a:"+store.SignatureTag(desc.Digest), sig))
			_, err := signature.Verify(ctx, signature.InStore(st), desc, []*signature.PublicKey{public})
			require.Error(t, err)
		})
	}
}

// sheet is a manifest of n signatures.
func sheet(t *testing.T, st *store.Store, n int, text string) ocispec.Manifest {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: put(t, st, ocispec.MediaTypeImageConfig, []byte("{}"))}
	for range n {
		l := put(t, st, signature.PayloadMediaType, []byte("{}"))
		l.Annotations = map[string]string{signature.AnnotationSignature: text + base64.StdEncoding.EncodeToString([]byte("x"))}
		m.Layers = append(m.Layers, l)
	}
	return m
}

func TestKeys_Wrong(t *testing.T) {
	t.Parallel()
	keys, err := signature.GenerateKey([]byte(password))
	require.NoError(t, err)
	require.NotContains(t, string(keys.Private), password)
	var wrong *signature.KeyError
	_, err = signature.ReadPrivateKey("k", keys.Private, []byte("other"))
	require.ErrorAs(t, err, &wrong)
	require.EqualError(t, err, `reading the key "k": the password is wrong, or the file is damaged`)
	_, err = signature.ReadPrivateKey("k", keys.Public, []byte(password))
	require.ErrorAs(t, err, &wrong)
	_, err = signature.ReadPublicKey("k", keys.Private)
	require.EqualError(t, err, `reading the key "k": it is a private key`)
	_, err = signature.ReadPublicKey("k", []byte("-----BEGIN"))
	require.ErrorAs(t, err, &wrong)
	require.NotEmpty(t, wrong.Hint())
}

// What was signed here is verified there: the signatures go to a registry after
// the image, join those that are there, and come back.
func TestPushPull(t *testing.T) {
	ctx := context.Background()
	reg, err := testregistry.Start(ctx, testregistry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	client, err := registry.NewClient(registry.Options{AuthDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	name := reg.Address + "/team/shop:v1"
	first, firstPub := pair(t)
	second, secondPub := pair(t)
	both := []*signature.PublicKey{firstPub, secondPub}

	st := openStore(t)
	desc := image(t, st, "shop:v1")
	n, err := signature.Push(ctx, client, st, desc, name)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = signature.Sign(ctx, st, "shop:v1", desc, first, nil)
	require.NoError(t, err)
	_, err = client.Push(ctx, st, desc, name)
	require.NoError(t, err)
	repo, err := client.Repository(ctx, name)
	require.NoError(t, err)
	_, err = signature.Verify(ctx, signature.InRegistry(repo), desc, both)
	var none *signature.UnverifiedError
	require.ErrorAs(t, err, &none)
	n, err = signature.Push(ctx, client, st, desc, name)
	require.NoError(t, err)
	require.Equal(t, 1, n)

	// Somebody else signs it from a store of his own, which has no signature yet.
	other := openStore(t)
	_, err = client.Pull(ctx, other, name, registry.PullOptions{})
	require.NoError(t, err)
	_, err = signature.Sign(ctx, other, name, desc, second, nil)
	require.NoError(t, err)
	_, err = signature.Push(ctx, client, other, desc, name)
	require.NoError(t, err)
	repo, err = client.Repository(ctx, name)
	require.NoError(t, err)
	found, err := signature.Verify(ctx, signature.InRegistry(repo), desc, both)
	require.NoError(t, err)
	require.Len(t, found, 2)

	third := openStore(t)
	pulled, err := client.Pull(ctx, third, name, registry.PullOptions{})
	require.NoError(t, err)
	n, err = signature.Pull(ctx, client, third, name, pulled)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	found, err = signature.Verify(ctx, signature.InStore(third), pulled, both)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.ElementsMatch(t, []string{"docker.io/library/shop", strings.TrimSuffix(name, ":v1")}, []string{found[0].Repository, found[1].Repository})
}

// What cosign 2.6.1 has written: its key is read, and its signature verified.
func TestVerify_MadeByCosign(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		return data
	}
	public, err := signature.ReadPublicKey("cosign.pub", read("cosign.pub"))
	require.NoError(t, err)
	st := openStore(t)
	payload := put(t, st, signature.PayloadMediaType, read("payload.json"))
	payload.Annotations = map[string]string{signature.AnnotationSignature: strings.TrimSpace(string(read("signature.txt")))}
	var signed struct {
		Critical struct {
			Image struct {
				Digest digest.Digest `json:"docker-manifest-digest"`
			}
		}
	}
	require.NoError(t, json.Unmarshal(read("payload.json"), &signed))
	sheet := put(t, st, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, Config: put(t, st, ocispec.MediaTypeImageConfig, []byte("{}")), Layers: []ocispec.Descriptor{payload},
	})
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: signed.Critical.Image.Digest}
	require.NoError(t, st.Tag(ctx, "r.example/a:"+store.SignatureTag(desc.Digest), sheet))
	found, err := signature.Verify(ctx, signature.InStore(st), desc, []*signature.PublicKey{public})
	require.NoError(t, err)
	require.Len(t, found, 1)

	// Its private key signs here.
	key, err := signature.ReadPrivateKey("cosign.key", read("cosign.key"), []byte("pw"))
	require.NoError(t, err)
	other := image(t, st, "r.example/b:1")
	_, err = signature.Sign(ctx, st, "r.example/b:1", other, key, nil)
	require.NoError(t, err)
	_, err = signature.Verify(ctx, signature.InStore(st), other, []*signature.PublicKey{public})
	require.NoError(t, err)
}
