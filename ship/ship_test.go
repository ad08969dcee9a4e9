// SPDX-License-Identifier: Apache-2.0

package ship_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

const shop = "registry.example.com/team/shop:v1"

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	one := clusterImage(t, st, shop, 1, 2)
	other := tag(t, st, "docker.io/library/plain:1", image(t, st, "amd64", randomBytes(7, 10_000)))
	path := saved(t, st, ship.Options{}, one, other)
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, plan(t, st, ship.Options{}, other, one).Size(), fi.Size())
	archive, err := os.ReadFile(path)
	require.NoError(t, err)
	var again bytes.Buffer
	require.NoError(t, plan(t, st, ship.Options{}, other, one, one).WriteTo(ctx, &again, nil))
	require.True(t, bytes.Equal(archive, again.Bytes()), "the same images give the same bytes")

	for name, load := range map[string]func(*store.Store) (ship.Result, error){
		"file": func(st *store.Store) (ship.Result, error) { return ship.Load(ctx, st, path, ship.LoadOptions{}) },
		"pipe": func(st *store.Store) (ship.Result, error) {
			return ship.LoadStream(ctx, st, bytes.NewReader(archive), "standard input", ship.LoadOptions{})
		},
		"gzip": func(st *store.Store) (ship.Result, error) {
			var buf bytes.Buffer
			zw := gzip.NewWriter(&buf)
			_, _ = zw.Write(archive)
			require.NoError(t, zw.Close())
			return ship.LoadStream(ctx, st, &buf, "standard input", ship.LoadOptions{})
		},
		"zstd": func(st *store.Store) (ship.Result, error) {
			zw, err := zstd.NewWriter(nil)
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "f.tar.zst")
			require.NoError(t, os.WriteFile(file, zw.EncodeAll(archive, nil), 0o600))
			return ship.Load(ctx, st, file, ship.LoadOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := newStore(t)
			res, err := load(to)
			require.NoError(t, err)
			require.Len(t, res.Images, 2)
			require.Equal(t, []string{"linux/amd64", "linux/arm64"}, res.Images[1].Platforms)
			require.Zero(t, res.Skipped)
			requireWhole(t, to, shop)
			requireWhole(t, to, "plain:1")
			got, err := to.Resolve(ctx, shop)
			require.NoError(t, err)
			require.Equal(t, one.Descriptor, got.Descriptor)
			// Again: nothing is read.
			res, err = load(to)
			require.NoError(t, err)
			require.Zero(t, res.Read)
		})
	}
}

// A load that ends anywhere tags nothing; the next one does not read again
// what came.
func TestLoad_Resumes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	archive, err := os.ReadFile(saved(t, st, ship.Options{}, img))
	require.NoError(t, err)
	for _, pipe := range []bool{true, false} {
		to := newStore(t)
		dir := t.TempDir()
		load := func(data []byte) (ship.Result, error) {
			if pipe {
				return ship.LoadStream(ctx, to, bytes.NewReader(data), "f.tar", ship.LoadOptions{})
			}
			file := filepath.Join(dir, "f.tar")
			require.NoError(t, os.WriteFile(file, data, 0o600))
			return ship.Load(ctx, to, file, ship.LoadOptions{})
		}
		cut := len(archive) - 1_500_000 // in the last layer
		_, err = load(archive[:cut])
		ae, ok := errors.AsType[*ship.ArchiveError](err)
		require.True(t, ok, "%v", err)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Contains(t, ae.Entry, "blobs/sha256/")
		require.Less(t, ae.Offset, int64(cut))
		require.Contains(t, err.Error(), "f.tar")
		requireNoImages(t, to)
		res, err := load(archive)
		require.NoError(t, err)
		require.Less(t, res.Read, int64(1_600_000), "the rest of one blob is read")
		requireWhole(t, to, shop)
	}
}

func TestLoad_Damaged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	archive, err := os.ReadFile(saved(t, st, ship.Options{}, img))
	require.NoError(t, err)
	flipped := bytes.Clone(archive)
	flipped[len(flipped)-400_000] ^= 1
	for name, tc := range map[string]struct {
		data []byte
		want []string
	}{
		"a byte of a blob":    {flipped, []string{"blobs/sha256/", "its content has the digest sha256:", "offset "}},
		"a header":            {append(bytes.Clone(archive[:512*8]), bytes.Repeat([]byte{7}, 4096)...), []string{"offset "}},
		"no tar":              {bytes.Repeat([]byte("text"), 1000), []string{"no archive of images", "no tar"}},
		"empty":               {nil, []string{"no archive of images", "empty"}},
		"another tar":         {tarOf(t, map[string]string{"etc/passwd": "x"}), []string{"index.json", "manifest.json", "etc/passwd"}},
		"a way out":           {tarOf(t, map[string]string{"../../etc/passwd": "x"}), []string{"leads out of the archive"}},
		"a rooted name":       {tarOf(t, map[string]string{"/etc/passwd": "x"}), []string{"leads out of the archive"}},
		"docker's own format": {tarOf(t, map[string]string{"manifest.json": `[{"Config":"c.json"}]`}), nil},
		"an index of nothing": {tarOf(t, map[string]string{"index.json": `{"schemaVersion":2,"manifests":[]}`}), []string{"index.json", "names no image"}},
		"blobs are missing": {tarOf(t, map[string]string{"index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest +
			`","size":3,"digest":"` + digest.FromString("abc").String() + `","annotations":{"org.opencontainers.image.ref.name":"a/b:1"}}]}`}), []string{"is not in it"}},
		"a later sealer": {tarOf(t, map[string]string{"sealer.json": `{"schemaVersion":"v9"}`, "index.json": "{}"}), []string{"schemaVersion", "v9"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, pipe := range []bool{true, false} {
				to := newStore(t)
				var err error
				if pipe {
					_, err = ship.LoadStream(ctx, to, bytes.NewReader(tc.data), "the-file", ship.LoadOptions{})
				} else {
					file := filepath.Join(t.TempDir(), "the-file")
					require.NoError(t, os.WriteFile(file, tc.data, 0o600))
					_, err = ship.Load(ctx, to, file, ship.LoadOptions{})
				}
				require.Error(t, err)
				require.Contains(t, err.Error(), "the-file")
				for _, w := range tc.want {
					require.Contains(t, err.Error(), w)
				}
				requireNoImages(t, to)
			}
		})
	}
}

func TestSave_Platform(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1, 2)
	all, some := plan(t, st, ship.Options{}, img), plan(t, st, ship.Options{Platforms: []ocispec.Platform{amd64}}, img)
	require.Less(t, some.Size(), all.Size()*6/10)
	to := newStore(t)
	res, err := ship.Load(ctx, to, saved(t, st, ship.Options{Platforms: []ocispec.Platform{amd64}}, img), ship.LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"linux/amd64"}, res.Images[0].Platforms)
	requireWhole(t, to, shop, amd64)
	loaded, err := to.Resolve(ctx, shop)
	require.NoError(t, err)
	require.Equal(t, img.Descriptor.Digest, loaded.Descriptor.Digest, "the image is the same, in part")

	// All of it cannot be saved from there.
	_, err = ship.NewPlan(ctx, to, []store.Tagged{loaded}, ship.Options{})
	ie, ok := errors.AsType[*ship.IncompleteError](err)
	require.True(t, ok, "%v", err)
	require.Contains(t, err.Error(), "linux/amd64 only, it also has linux/arm64")
	require.Contains(t, ie.Hint(), "--platform linux/amd64")
	plan(t, to, ship.Options{Platforms: []ocispec.Platform{amd64}}, loaded)

	_, err = ship.NewPlan(ctx, st, []store.Tagged{img}, ship.Options{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}})
	_, ok = errors.AsType[*clusterimage.PlatformError](err)
	require.True(t, ok, "%v", err)
}

func TestSave_Since(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	old := clusterImage(t, st, shop, 1, 2)
	next := clusterImage(t, st, "registry.example.com/team/shop:v2", 1, 2, 3)
	path := saved(t, st, ship.Options{Since: []store.Tagged{old}}, next)
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, fi.Size(), int64(2*2_000_000+200_000), "two layers are new")
	missing := plan(t, st, ship.Options{Since: []store.Tagged{old}}, next).Contents().Missing
	require.NotEmpty(t, missing)

	to := newStore(t)
	_, err = ship.Load(ctx, to, path, ship.LoadOptions{})
	be, ok := errors.AsType[*ship.BaseError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, len(missing), be.Blobs)
	require.Contains(t, err.Error(), shop)
	require.Contains(t, err.Error(), old.Descriptor.Digest.String())
	require.Contains(t, be.Hint(), shop)
	requireNoImages(t, to)
	ingested, err := filepath.Glob(filepath.Join(to.Dir(), "blobs", "sha256", "*"))
	require.NoError(t, err)
	require.Empty(t, ingested, "it is refused before anything is read")

	_, err = ship.Load(ctx, to, saved(t, st, ship.Options{}, old), ship.LoadOptions{})
	require.NoError(t, err)
	_, err = ship.Load(ctx, to, path, ship.LoadOptions{})
	require.NoError(t, err)
	requireWhole(t, to, next.Name)
}

func TestSave_Split(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	dir := t.TempDir()
	base := filepath.Join(dir, "shop.tar")
	names, err := plan(t, st, ship.Options{}, img).SaveSplit(ctx, base, 1<<20, nil)
	require.NoError(t, err)
	require.Greater(t, len(names), 4)
	require.Equal(t, base+".000", names[0])
	require.Equal(t, base+".parts", names[len(names)-1])

	for _, path := range []string{base, base + ".000", base + ".parts"} {
		to := newStore(t)
		_, err := ship.Load(ctx, to, path, ship.LoadOptions{})
		require.NoError(t, err, path)
		requireWhole(t, to, shop)
	}
	t.Run("joined by cat", func(t *testing.T) {
		var whole []byte
		for _, n := range names[:len(names)-1] {
			data, err := os.ReadFile(n)
			require.NoError(t, err)
			require.LessOrEqual(t, len(data), 1<<20)
			whole = append(whole, data...)
		}
		one, err := os.ReadFile(saved(t, st, ship.Options{}, img))
		require.NoError(t, err)
		require.True(t, bytes.Equal(one, whole))
	})
	t.Run("damaged", func(t *testing.T) {
		data, err := os.ReadFile(names[3])
		require.NoError(t, err)
		bad := bytes.Clone(data)
		bad[500_000] ^= 1
		require.NoError(t, os.WriteFile(names[3], bad, 0o600))
		to := newStore(t)
		_, err = ship.Load(ctx, to, base, ship.LoadOptions{})
		require.ErrorContains(t, err, `part "`+names[3]+`" is damaged`)
		requireNoImages(t, to)
		require.NoError(t, os.WriteFile(names[3], data, 0o600))
		res, err := ship.Load(ctx, to, base, ship.LoadOptions{})
		require.NoError(t, err)
		require.Positive(t, res.Skipped)
	})
	t.Run("missing", func(t *testing.T) {
		for _, n := range []string{names[1], names[2]} {
			require.NoError(t, os.Rename(n, n+".away"))
		}
		_, err := ship.Load(ctx, newStore(t), base, ship.LoadOptions{})
		require.ErrorIs(t, err, os.ErrNotExist)
		var parts *ship.PartsError
		require.ErrorAs(t, err, &parts)
		require.ErrorContains(t, err, names[1])
		require.ErrorContains(t, err, names[2])
		for _, n := range []string{names[1], names[2]} {
			require.NoError(t, os.Rename(n+".away", n))
		}
	})
	t.Run("without the list", func(t *testing.T) {
		require.NoError(t, os.Remove(base+".parts"))
		to := newStore(t)
		_, err := ship.Load(ctx, to, base, ship.LoadOptions{})
		require.NoError(t, err)
		requireWhole(t, to, shop)
		require.NoError(t, os.Remove(names[len(names)-2]))
		_, err = ship.Load(ctx, newStore(t), base, ship.LoadOptions{})
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
}

// A damaged blob of the store is found, and no file is left.
func TestSave_DamagedStore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	layer := randomBytes(7, 10_000)
	img := tag(t, st, "docker.io/library/plain:1", image(t, st, "amd64", layer))
	blob := st.BlobPath(digest.FromBytes(layer))
	require.NoError(t, os.Chmod(blob, 0o600))
	require.NoError(t, os.WriteFile(blob, randomBytes(8, 10_000), 0o600))
	dir := t.TempDir()
	err := plan(t, st, ship.Options{}, img).SaveFile(ctx, filepath.Join(dir, "f"), nil)
	_, ok := errors.AsType[*clusterimage.DigestError](err)
	require.True(t, ok, "%v", err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.Remove(blob))
	_, err = ship.NewPlan(ctx, st, []store.Tagged{img}, ship.Options{})
	require.ErrorContains(t, err, "not complete in the store")
}

// What sealer 0.9 to 0.11 saved of an image for several platforms.
func TestLoad_SealerSeveral(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	files := map[string]string{"Metadata": "registry.example.com/old/cluster:v1"}
	for _, arch := range []string{"amd64", "arm64"} {
		st := newStore(t)
		img := tag(t, st, "localhost/tmp:"+arch, image(t, st, arch, []byte("layer of "+arch)))
		data, err := os.ReadFile(saved(t, st, ship.Options{}, img))
		require.NoError(t, err)
		files[img.Descriptor.Digest.Encoded()+".tar"] = string(data)
	}
	path := filepath.Join(t.TempDir(), "old.tar")
	require.NoError(t, os.WriteFile(path, tarOf(t, files), 0o600))
	to := newStore(t)
	res, err := ship.Load(ctx, to, path, ship.LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, "registry.example.com/old/cluster:v1", res.Images[0].Name)
	require.ElementsMatch(t, []string{"linux/amd64", "linux/arm64"}, res.Images[0].Platforms)
	requireWhole(t, to, "registry.example.com/old/cluster:v1")
}

func TestDockerArchive(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	p, err := ship.NewDockerPlan(ctx, st, []store.Tagged{img}, amd64)
	require.NoError(t, err)
	var buf bytes.Buffer
	require.NoError(t, p.WriteTo(ctx, &buf, nil))
	require.Equal(t, p.Size(), int64(buf.Len()))
	files := map[string][]byte{}
	tr := tar.NewReader(&buf)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		files[hdr.Name], err = io.ReadAll(tr)
		require.NoError(t, err)
	}
	var list []struct {
		Config           string
		RepoTags, Layers []string
	}
	require.NoError(t, json.Unmarshal(files["manifest.json"], &list))
	require.Equal(t, []string{shop}, list[0].RepoTags)
	require.Contains(t, string(files[list[0].Config]), "amd64")
	layer := files[list[0].Layers[0]]
	require.Equal(t, strings.TrimSuffix(list[0].Layers[0], "/layer.tar"), digest.FromBytes(layer).Encoded())
	hdr, err := tar.NewReader(bytes.NewReader(layer)).Next()
	require.NoError(t, err)
	require.Equal(t, "Metadata", hdr.Name)
}

// skopeo reads what is saved, and what it writes is loaded.
func TestTools(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("the program skopeo (Debian package skopeo) is not installed")
	}
	ctx := context.Background()
	st := newStore(t)
	img := clusterImage(t, st, shop, 1)
	path := saved(t, st, ship.Options{}, img)
	skopeo := func(args ...string) []byte {
		out, err := exec.Command("skopeo", args...).CombinedOutput()
		require.NoError(t, err, "skopeo %s: %s", strings.Join(args, " "), out)
		return out
	}
	raw := skopeo("inspect", "--raw", "oci-archive:"+path)
	require.Equal(t, img.Descriptor.Digest, digest.FromBytes(raw))
	copied := filepath.Join(t.TempDir(), "copied.tar")
	skopeo("copy", "--all", "--preserve-digests", "--insecure-policy", "oci-archive:"+path+":"+shop, "oci-archive:"+copied+":"+shop)
	to := newStore(t)
	_, err := ship.Load(ctx, to, copied, ship.LoadOptions{})
	require.NoError(t, err)
	requireWhole(t, to, shop)

	// A tag alone is no name.
	skopeo("copy", "--insecure-policy", "oci-archive:"+path, "oci-archive:"+copied+"2:v1")
	to = newStore(t)
	_, err = ship.Load(ctx, to, copied+"2", ship.LoadOptions{})
	ne, ok := errors.AsType[*ship.NamelessError](err)
	require.True(t, ok, "%v", err)
	require.Contains(t, ne.Hint(), "--tag")
	res, err := ship.Load(ctx, to, copied+"2", ship.LoadOptions{Name: "my/rootfs:v1"})
	require.NoError(t, err)
	require.Zero(t, res.Read)
	requireWhole(t, to, "my/rootfs:v1")

	// Several tags are behind one name, or they are told.
	folder, several := t.TempDir(), filepath.Join(t.TempDir(), "several.tar")
	for _, tag := range []string{"v1", "v2"} {
		skopeo("copy", "--insecure-policy", "oci-archive:"+path, "oci:"+folder+":"+tag)
	}
	text, err := exec.Command("tar", "-C", folder, "-cf", several, "oci-layout", "index.json", "blobs").CombinedOutput()
	require.NoError(t, err, string(text))
	to = newStore(t)
	_, err = ship.Load(ctx, to, several, ship.LoadOptions{Name: "my/rootfs:v3"})
	require.EqualError(t, err, fmt.Sprintf("%q has 2 images (v1, v2), and one name was given for them", several))
	res, err = ship.Load(ctx, to, several, ship.LoadOptions{Name: "my/rootfs"})
	require.NoError(t, err)
	require.Equal(t, "docker.io/my/rootfs:v1 docker.io/my/rootfs:v2", res.Images[0].Name+" "+res.Images[1].Name)
	requireWhole(t, to, "my/rootfs:v2")

	docker := filepath.Join(t.TempDir(), "docker.tar")
	p, err := ship.NewDockerPlan(ctx, st, []store.Tagged{img}, amd64)
	require.NoError(t, err)
	require.NoError(t, p.SaveFile(ctx, docker, nil))
	require.Contains(t, string(skopeo("inspect", "docker-archive:"+docker)), clusterimage.LabelExtension)
	to = newStore(t)
	res, err = ship.Load(ctx, to, docker, ship.LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, shop, res.Images[0].Name)
	requireWhole(t, to, shop)
	written := filepath.Join(t.TempDir(), "written.tar") // skopeo's has links
	skopeo("copy", "--insecure-policy", "docker-archive:"+docker, "docker-archive:"+written+":a/b:1")
	to = newStore(t)
	_, err = ship.Load(ctx, to, written, ship.LoadOptions{})
	require.NoError(t, err)
	requireWhole(t, to, "a/b:1")
	out, err := exec.Command("tar", "-tf", path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.True(t, strings.HasPrefix(string(out), "oci-layout\nsealer.json\nindex.json\n"), string(out))
}

// However many small blobs are on their way to the disk when a pipe ends, all arrive.
func TestLoadStream_SmallBlobs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newStore(t)
	var layers [][]byte
	for i := range 100 {
		layers = append(layers, randomBytes(uint64(i), 1000))
	}
	var buf bytes.Buffer
	require.NoError(t, plan(t, st, ship.Options{}, tag(t, st, "a/b:1", image(t, st, "amd64", layers...))).WriteTo(ctx, &buf, nil))
	to := newStore(t)
	_, err := ship.LoadStream(ctx, to, &buf, "standard input", ship.LoadOptions{})
	require.NoError(t, err)
	requireWhole(t, to, "a/b:1")
}

// A file that is smaller than a header of tar is no archive that was cut.
func TestLoad_TinyFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tiny")
	require.NoError(t, os.WriteFile(file, []byte("12345678"), 0o600))
	_, err := ship.Load(t.Context(), newStore(t), file, ship.LoadOptions{})
	var foreign *ship.ForeignError
	require.ErrorAs(t, err, &foreign)
}
