// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/kernel"
)

// TestMain makes the test binary sealer-node itself where it is started with the flag that comes first in its unit, and systemctl where it has
// that name.
func TestMain(m *testing.M) {
	if node.Init() {
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "--root" {
		os.Exit(node.Run(context.Background(), os.Args[1:], node.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	if filepath.Base(os.Args[0]) == "systemctl" {
		os.Exit(systemctl(os.Args[1:]))
	}
	os.Exit(kernel.Main(m))
}

// machine is a host with a root folder of its own.
type machine struct {
	t       *testing.T
	root    string
	unitDir string
}

func newMachine(t *testing.T) *machine {
	dir := t.TempDir()
	m := &machine{t, filepath.Join(dir, "it's a root"), filepath.Join(dir, "units")}
	require.NoError(t, os.Mkdir(m.unitDir, 0o755))
	return m
}

type result struct {
	code     int
	out, err string
}

func (m *machine) try(in io.Reader, args ...string) result {
	m.t.Helper()
	if in == nil {
		in = strings.NewReader("")
	}
	var out, errs bytes.Buffer
	ctx := context.WithoutCancel(m.t.Context()) // cleanups run it too
	code := node.Run(ctx, append([]string{"--root", m.root, "--unit-dir", m.unitDir}, args...), node.Streams{In: in, Out: &out, Err: &errs})
	return result{code, out.String(), errs.String()}
}

// run is for commands that must succeed.
func (m *machine) run(in io.Reader, args ...string) string {
	m.t.Helper()
	r := m.try(in, args...)
	require.Zero(m.t, r.code, "%v: %s", args, r.err)
	return r.out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func toJSON(v any) io.Reader { return bytes.NewReader(must(json.Marshal(v))) }

func put(t *testing.T, st *store.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), st.Content(), desc.Digest.String(), bytes.NewReader(data), desc))
	return desc
}

// putImage writes an image of one layer with the files.
func putImage(t *testing.T, st *store.Store, files map[string]string) ocispec.Descriptor {
	t.Helper()
	var layer bytes.Buffer
	z := must(zstd.NewWriter(&layer))
	diff := digest.Canonical.Digester()
	w := tar.NewWriter(io.MultiWriter(z, diff.Hash()))
	for name, data := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}))
		_, err := io.WriteString(w, data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	config := ocispec.Image{Platform: platforms.DefaultSpec()}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff.Digest()}}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(t, st, ocispec.MediaTypeImageConfig, must(json.Marshal(config))),
		Layers: []ocispec.Descriptor{put(t, st, ocispec.MediaTypeImageLayerZstd, layer.Bytes())},
	}
	desc := put(t, st, m.MediaType, must(json.Marshal(m)))
	p := platforms.DefaultSpec()
	desc.Platform = &p
	return desc
}

// clusterImage is what the operator has: a rootfs, and one packed image.
func clusterImage(t *testing.T, rootfs map[string]string) (*store.Store, ocispec.Descriptor, []ocispec.Descriptor) {
	t.Helper()
	st := must(store.Open(filepath.Join(t.TempDir(), "operator")))
	packed := putImage(t, st, map[string]string{"nginx": strings.Repeat("serve ", 100_000)})
	packed.Platform = nil
	desc, err := clusterimage.Compose(t.Context(), st.Content(), clusterimage.Composition{
		Rootfs: []ocispec.Descriptor{putImage(t, st, rootfs)},
		Images: []clusterimage.PackedImage{{
			Name: "docker.io/library/nginx:1.27", Platform: platforms.Format(platforms.DefaultSpec()), Manifest: packed, Size: packed.Size,
		}},
	})
	require.NoError(t, err)
	img := must(clusterimage.Read(t.Context(), st.Content(), desc))
	blobs := must(img.Descriptors(t.Context(), st.Content(), nil))
	return st, desc, blobs
}

// send writes what the host said it lacks.
func send(t *testing.T, st *store.Store, sizes map[digest.Digest]int64, missing []node.Missing) []byte {
	t.Helper()
	var out bytes.Buffer
	w := blobstream.NewWriter(&out)
	for _, m := range missing {
		f := must(os.Open(st.BlobPath(m.Digest)))
		must(f.Seek(m.Offset, io.SeekStart))
		require.NoError(t, w.Blob(blobstream.Header{Digest: m.Digest, Size: sizes[m.Digest], Offset: m.Offset}, f))
		require.NoError(t, f.Close())
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func (m *machine) missing(wanted []node.Wanted) (missing []node.Missing) {
	m.t.Helper()
	require.NoError(m.t, json.Unmarshal([]byte(m.run(toJSON(wanted), "content", "missing")), &missing))
	return missing
}

// load brings a ClusterImage to the host.
func (m *machine) load(st *store.Store, desc ocispec.Descriptor, blobs []ocispec.Descriptor) {
	m.t.Helper()
	var wanted []node.Wanted
	sizes := map[digest.Digest]int64{}
	for _, d := range blobs {
		wanted = append(wanted, node.Wanted{Digest: d.Digest, Size: d.Size})
		sizes[d.Digest] = d.Size
	}
	m.run(bytes.NewReader(send(m.t, st, sizes, m.missing(wanted))), "content", "receive")
	m.run(nil, "content", "tag", "--name", "example.com/cluster:v1", "--digest", desc.Digest.String(),
		"--size", strconv.FormatInt(desc.Size, 10), "--media-type", desc.MediaType)
}
