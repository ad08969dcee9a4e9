// SPDX-License-Identifier: Apache-2.0

package inspect_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/inspect"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

func openArchive(t *testing.T, path string, st *store.Store) *ship.Archive {
	t.Helper()
	a, err := ship.OpenArchive(path, st.Content())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// What an archive holds is seen as what the store holds, whole or in parts.
func TestInArchive(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	big := bytes.Repeat([]byte("large "), 1<<18)
	base := b.layer(entry{path: "etc/a", text: "1"}, entry{path: "etc/b", text: "2"})
	one := b.compose("a/one:v1", clusterimage.Extension{Type: clusterimage.KubeInstaller}, []ocispec.Descriptor{base},
		b.packed("docker.io/library/nginx:1", "imageList:1", b.put(ocispec.MediaTypeImageLayer, big)))
	two := b.compose("a/two:v1", clusterimage.Extension{Type: clusterimage.KubeInstaller}, []ocispec.Descriptor{base, b.layer(entry{path: "etc/a", text: "3"})},
		b.packed("docker.io/library/nginx:1", "imageList:1", b.put(ocispec.MediaTypeImageLayer, big)))
	tagged := func(s *inspect.Subject) store.Tagged {
		require.NoError(t, b.st.Tag(ctx, s.Name, s.Descriptor))
		got, err := b.st.Resolve(ctx, s.Name)
		require.NoError(t, err)
		return got
	}
	first, second := tagged(one), tagged(two)
	dir := t.TempDir()
	save := func(name string, o ship.Options, limit int64, images ...store.Tagged) string {
		path := filepath.Join(dir, name)
		p, err := ship.NewPlan(ctx, b.st, images, o)
		require.NoError(t, err)
		if limit > 0 {
			_, err = p.SaveSplit(ctx, path, limit, nil)
		} else {
			err = p.SaveFile(ctx, path, nil)
		}
		require.NoError(t, err)
		return path
	}
	empty, err := store.Open(t.TempDir())
	require.NoError(t, err)

	whole := openArchive(t, save("one.tar", ship.Options{}, 0, first), empty)
	parts := openArchive(t, save("parts.tar", ship.Options{}, 1<<20, first), empty)
	want, err := inspect.Describe(ctx, inspect.InStore(b.st, first))
	require.NoError(t, err)
	for _, a := range []*ship.Archive{whole, parts} {
		s, err := inspect.InArchive(a, "")
		require.NoError(t, err)
		got, err := inspect.Describe(ctx, s)
		require.NoError(t, err)
		require.Equal(t, want, got)
		report, err := inspect.Check(ctx, []*inspect.Subject{s}, nil)
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		require.Greater(t, report.Bytes, int64(len(big)))
		tree, err := inspect.MakeTree(ctx, s, nil)
		require.NoError(t, err)
		require.Len(t, tree.Images, 1)
		d, err := inspect.Compare(ctx, s, inspect.InStore(b.st, second))
		require.NoError(t, err)
		require.True(t, d.FilesCompared)
		require.Equal(t, []inspect.FileChange{{Change: inspect.Changed, Path: "etc/a", Platform: amd64, What: []string{"content"}, Size: 1}}, d.Files)
	}

	both := openArchive(t, save("both.tar", ship.Options{}, 0, first, second), empty)
	_, err = both.Resolve("")
	require.ErrorContains(t, err, "it holds several images: docker.io/a/one:v1 sha256:")
	_, err = both.Resolve("v1")
	require.ErrorContains(t, err, `"v1" stands for more than one image`)
	_, err = both.Resolve("v2")
	require.ErrorContains(t, err, `it has no image "v2"`)
	for _, ref := range []string{"two:v1", "a/two:v1", "docker.io/a/two:v1", second.Descriptor.Digest.String()} {
		s, err := inspect.InArchive(both, ref)
		require.NoError(t, err)
		require.Equal(t, second.Descriptor.Digest, s.Descriptor.Digest)
	}

	// A difference archive is looked at together with the store that it is for.
	update := save("update.tar", ship.Options{Since: []store.Tagged{first}}, 0, second)
	s, err := inspect.InArchive(openArchive(t, update, b.st), "")
	require.NoError(t, err)
	report, err := inspect.Check(ctx, []*inspect.Subject{s}, nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	s, err = inspect.InArchive(openArchive(t, update, empty), "")
	require.NoError(t, err)
	report, err = inspect.Check(ctx, []*inspect.Subject{s}, nil)
	require.NoError(t, err)
	require.NotEmpty(t, report.Problems)
	require.Contains(t, report.Problems[0].What, "is left out of")
}

func TestInArchive_Wrong(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	s := b.compose("a/one:v1", clusterimage.Extension{Type: clusterimage.KubeInstaller}, []ocispec.Descriptor{b.layer(entry{path: "a", text: "1"})})
	require.NoError(t, b.st.Tag(ctx, s.Name, s.Descriptor))
	img, err := b.st.Resolve(ctx, s.Name)
	require.NoError(t, err)
	plan, err := ship.NewPlan(ctx, b.st, []store.Tagged{img}, ship.Options{})
	require.NoError(t, err)
	var plain, packed bytes.Buffer
	require.NoError(t, plan.WriteTo(ctx, &plain, nil))
	w := gzip.NewWriter(&packed)
	_, err = w.Write(plain.Bytes())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	var old bytes.Buffer
	tw := tar.NewWriter(&old)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: 2, Typeflag: tar.TypeReg}))
	_, err = tw.Write([]byte("[]"))
	require.NoError(t, err)
	require.NoError(t, tw.Close())

	file := filepath.Join(t.TempDir(), "f.tar")
	open := func(data []byte) (*ship.Archive, error) {
		require.NoError(t, os.WriteFile(file, data, 0o600))
		return ship.OpenArchive(file, nil)
	}
	for want, data := range map[string][]byte{"is compressed": packed.Bytes(), "Docker's own format": old.Bytes()} {
		_, err := open(data)
		var unseen *ship.UnseenError
		require.ErrorAs(t, err, &unseen)
		require.ErrorContains(t, err, want)
		require.Contains(t, unseen.Hint(), "sealer load -i "+file)
	}
	_, err = open([]byte("no tar at all"))
	require.ErrorContains(t, err, file)

	// A byte that is another is found where it stands.
	data := bytes.Clone(plain.Bytes())
	at := bytes.LastIndex(data, []byte("\x1f\x8b"))
	require.Positive(t, at)
	data[at+20] ^= 1
	a, err := open(data)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	subject, err := inspect.InArchive(a, "")
	require.NoError(t, err)
	report, err := inspect.Check(ctx, []*inspect.Subject{subject}, nil)
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	require.Contains(t, report.Problems[0].What, "its content is that of sha256:")
}
