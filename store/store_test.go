// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// The test program also plays the other process: it does what SEALER_TEST_DO
// says to the store in SEALER_TEST_STORE, and waits to be killed.
func TestMain(m *testing.M) {
	if do := os.Getenv("SEALER_TEST_DO"); do != "" {
		if err := other(do, os.Getenv("SEALER_TEST_STORE")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const half = 600_000

func other(do, dir string) error {
	ctx := context.Background()
	s, err := store.Open(dir)
	if err != nil {
		return err
	}
	switch do {
	case "hold":
		hold, err := s.Hold(ctx)
		if err != nil {
			return err
		}
		wait()
		runtime.KeepAlive(hold)
		return nil
	case "write":
		hold, err := s.Hold(ctx)
		if err != nil {
			return err
		}
		w, err := s.Content().Writer(ctx, content.WithRef("blob"), content.WithDescriptor(blob()))
		if err != nil {
			return err
		}
		if _, err = w.Write(data()[:half]); err != nil {
			return err
		}
		wait()
		runtime.KeepAlive(w) // or its files, and their locks with them, would be collected
		runtime.KeepAlive(hold)
		return nil
	}
	return errors.New("what?")
}

// wait says that all is as the test wants it, until it kills this process.
func wait() {
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func data() []byte { return bytes.Repeat([]byte("0123456789"), 100_000) }

func blob() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data()), Size: int64(len(data()))}
}

// start runs the other process until it is ready.
func start(t *testing.T, do, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=none")
	cmd.Env = append(os.Environ(), "SEALER_TEST_DO="+do, "SEALER_TEST_STORE="+dir)
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { kill(cmd) })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // SIGKILL
	_ = cmd.Wait()
}

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return s
}

func put(t *testing.T, s *store.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		b, err = json.Marshal(v)
		require.NoError(t, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	require.NoError(t, content.WriteBlob(context.Background(), s.Content(), d.Digest.String(), bytes.NewReader(b), d))
	return d
}

func image(t *testing.T, s *store.Store, layer string) ocispec.Descriptor {
	t.Helper()
	p := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	l := put(t, s, ocispec.MediaTypeImageLayer, []byte(layer))
	c := put(t, s, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p})
	d := put(t, s, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{l},
	})
	d.Platform = &p
	return d
}

func blobs(t *testing.T, s *store.Store) []string {
	t.Helper()
	var out []string
	require.NoError(t, s.Content().Walk(context.Background(), func(i content.Info) error {
		out = append(out, i.Digest.String())
		return nil
	}))
	sort.Strings(out)
	return out
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := store.Open(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "a", "b"), s.Dir())
	layout, err := os.ReadFile(filepath.Join(s.Dir(), "oci-layout"))
	require.NoError(t, err)
	require.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, string(layout))
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir(), "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o644))
	_, err = store.Open(s.Dir())
	require.ErrorContains(t, err, "version \"9\"")
}

func TestTag_Resolve(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	one, two := image(t, s, "one"), image(t, s, "two")
	require.NoError(t, s.Tag(ctx, "nginx:1.27", one))
	require.NoError(t, s.Tag(ctx, "nginx", two))
	require.NoError(t, s.Tag(ctx, "example.com/a/app:v1@"+one.Digest.String(), one))
	require.NoError(t, s.Tag(ctx, "example.com/pinned@"+two.Digest.String(), two))
	all, err := s.List(ctx)
	require.NoError(t, err)
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
	}
	require.Equal(t, []string{
		"docker.io/library/nginx:1.27", "docker.io/library/nginx:latest",
		"example.com/a/app:v1", "example.com/pinned@" + two.Digest.String(),
	}, names)
	for ref, want := range map[string]digest.Digest{
		"nginx:1.27":                                  one.Digest,
		"docker.io/library/nginx:1.27":                one.Digest,
		"nginx":                                       two.Digest,
		one.Digest.String():                           one.Digest,
		one.Digest.Encoded()[:12]:                     one.Digest,
		"sha256:" + two.Digest.Encoded()[:7]:          two.Digest,
		"example.com/a/app@" + one.Digest.String():    one.Digest,
		"nginx:whatever@" + two.Digest.String():       two.Digest,
		"example.com/pinned@" + two.Digest.String():   two.Digest,
		"example.com/a/app:v1@" + one.Digest.String(): one.Digest,
	} {
		got, err := s.Resolve(ctx, ref)
		require.NoError(t, err, ref)
		require.Equal(t, want, got.Descriptor.Digest, ref)
		require.Nil(t, got.Descriptor.Annotations, ref)
	}
	for ref, near := range map[string][]string{
		"nginx:1.28": {"docker.io/library/nginx:1.27", "docker.io/library/nginx:latest"},
		"ngnix:1.27": {"docker.io/library/nginx:1.27"},
		"postgres":   nil,
		"example.com/a/app@" + two.Digest.String(): {"example.com/a/app:v1"},
		digest.FromString("none").String():         nil,
	} {
		_, err := s.Resolve(ctx, ref)
		var nf *store.NotFoundError
		require.ErrorAs(t, err, &nf, ref)
		require.True(t, errdefs.IsNotFound(err))
		if near != nil {
			require.Equal(t, near[0], nf.Near[0], ref)
		} else {
			require.Empty(t, nf.Near, ref)
		}
	}
	_, err = s.Resolve(ctx, "Not A Name")
	require.ErrorContains(t, err, `"Not A Name"`)
	require.Error(t, s.Tag(ctx, "x", ocispec.Descriptor{Digest: digest.FromString("none")}), "a tag on nothing")

	require.NoError(t, s.Untag(ctx, "nginx"))
	require.ErrorAs(t, s.Untag(ctx, "nginx"), new(*store.NotFoundError))
	_, err = s.Resolve(ctx, "nginx:latest")
	require.Error(t, err)
}

func TestResolve_Ambiguous(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	// Two images whose digests begin alike in four digits.
	seen := map[string]ocispec.Descriptor{}
	for i := 0; ; i++ {
		b := []byte(fmt.Sprint(i))
		d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
		prefix := d.Digest.Encoded()[:4]
		if first, ok := seen[prefix]; ok {
			put(t, s, "", b)
			put(t, s, "", fmt.Append(nil, first.Annotations["i"]))
			require.NoError(t, s.Tag(ctx, "a:1", ocispec.Descriptor{Digest: first.Digest, Size: first.Size}))
			require.NoError(t, s.Tag(ctx, "a:1copy", ocispec.Descriptor{Digest: first.Digest, Size: first.Size}))
			_, err := s.Resolve(ctx, prefix)
			require.NoError(t, err, "two names of one image")
			require.NoError(t, s.Tag(ctx, "b:1", d))
			_, err = s.Resolve(ctx, prefix)
			var am *store.AmbiguousError
			require.ErrorAs(t, err, &am)
			require.Len(t, am.Names, 2)
			return
		}
		d.Annotations = map[string]string{"i": string(b)}
		seen[prefix] = d
	}
}

func TestTag_Concurrent(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	d := image(t, s, "x")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		again, err := store.Open(s.Dir())
		require.NoError(t, err)
		wg.Go(func() { errs[i] = again.Tag(ctx, fmt.Sprintf("a:%d", i), d) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	all, err := s.List(ctx)
	require.NoError(t, err)
	require.Len(t, all, len(errs))
}

// The other process is killed in the middle of a blob: the next continues at
// its last byte, or Prune takes it away.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, next := range []string{"continue", "prune"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			cmd := start(t, "write", s.Dir())
			_, err := s.Content().Writer(ctx, content.WithRef("blob"), content.WithDescriptor(blob()))
			require.True(t, errdefs.IsUnavailable(err), "another process writes it: %v", err)
			kill(cmd)
			if next == "prune" {
				res, err := s.Prune(ctx, store.PruneOptions{DryRun: true})
				require.NoError(t, err)
				require.Equal(t, store.PruneResult{Ingests: 1, Bytes: half, Freed: half}, res)
				res, err = s.Prune(ctx, store.PruneOptions{})
				require.NoError(t, err)
				require.Equal(t, store.PruneResult{Ingests: 1, Bytes: half, Freed: half}, res)
				for _, dir := range []string{"ingest", "locks", "holders", "blobs/sha256"} {
					left, err := os.ReadDir(filepath.Join(s.Dir(), dir))
					require.NoError(t, err)
					require.Empty(t, left, dir)
				}
				return
			}
			w, err := s.Content().Writer(ctx, content.WithRef("blob"), content.WithDescriptor(blob()))
			require.NoError(t, err)
			st, err := w.Status()
			require.NoError(t, err)
			require.EqualValues(t, half, st.Offset)
			_, err = w.Write(data()[half:])
			require.NoError(t, err)
			require.NoError(t, w.Commit(ctx, blob().Size, blob().Digest))
			got, err := os.ReadFile(s.BlobPath(blob().Digest))
			require.NoError(t, err)
			require.Equal(t, data(), got)
			left, err := os.ReadDir(filepath.Join(s.Dir(), "locks"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestPrune_Waits(t *testing.T) {
	t.Parallel()
	s := open(t)
	put(t, s, "", []byte("not tagged yet"))
	cmd := start(t, "hold", s.Dir())
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var waited []store.Holder
	_, err := s.Prune(ctx, store.PruneOptions{Waiting: func(h []store.Holder) { waited = h }})
	var busy *store.BusyError
	require.ErrorAs(t, err, &busy)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, waited, 1)
	require.Equal(t, cmd.Process.Pid, waited[0].PID)
	require.Contains(t, err.Error(), fmt.Sprintf("(process %d)", cmd.Process.Pid))
	require.Len(t, blobs(t, s), 1)
	kill(cmd)
	res, err := s.Prune(context.Background(), store.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, res.Blobs)

	release, err := s.Hold(context.Background())
	require.NoError(t, err)
	second, err := s.Hold(context.Background())
	require.NoError(t, err, "many may hold")
	require.NoError(t, release())
	require.NoError(t, release(), "twice")
	require.NoError(t, second())
	_, err = s.Prune(context.Background(), store.PruneOptions{})
	require.NoError(t, err)
}

// What came since a time is spared, whatever it is.
func TestPrune_Before(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	old, young := image(t, s, "old"), image(t, s, "young")
	for _, d := range []ocispec.Descriptor{old, young} {
		require.NoError(t, s.Tag(ctx, "example.com/pinned@"+d.Digest.String(), d))
	}
	past := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(s.BlobPath(old.Digest), past, past))
	half, err := s.Ingest(ctx, ocispec.Descriptor{Digest: digest.FromString("half"), Size: 1 << 20})
	require.NoError(t, err)
	_, err = half.Write([]byte("half"))
	require.NoError(t, err)
	require.NoError(t, half.Close())

	o := store.PruneOptions{All: true, Before: time.Now().Add(-24 * time.Hour)}
	res, err := s.Prune(ctx, o)
	require.NoError(t, err)
	require.Equal(t, []string{"example.com/pinned@" + old.Digest.String()}, res.Dropped)
	require.Equal(t, 1, res.Blobs, "the manifest: its layer came since then")
	require.Zero(t, res.Ingests)
	res, err = s.Prune(ctx, store.PruneOptions{All: true})
	require.NoError(t, err)
	require.Equal(t, []string{"example.com/pinned@" + young.Digest.String()}, res.Dropped)
	require.Equal(t, 1, res.Ingests)
	require.Empty(t, blobs(t, s))
}

func TestPrune_KeepsWhatIsReferenced(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	packed := image(t, s, "packed")
	source := put(t, s, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Manifests: []ocispec.Descriptor{packed, {MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("another platform"), Size: 1}},
	})
	// The same manifest under a second name, of another source index: only the list has it.
	second := put(t, s, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{packed},
	})
	pi := clusterimage.PackedImage{Name: "docker.io/library/a:1", Platform: "linux/amd64", Manifest: packed, Index: &source}
	pi2 := pi
	pi2.Name, pi2.Index = "docker.io/library/b:1", &second
	desc, err := clusterimage.Compose(ctx, s.Content(), clusterimage.Composition{
		Rootfs: []ocispec.Descriptor{image(t, s, "rootfs")},
		Images: []clusterimage.PackedImage{pi, pi2},
		Keep:   []ocispec.Descriptor{image(t, s, "attestation")},
	})
	require.NoError(t, err)
	require.NoError(t, s.Tag(ctx, "example.com/c:1", desc))
	keep := blobs(t, s)

	image(t, s, "loose")
	pinned := image(t, s, "pinned")
	require.NoError(t, s.Tag(ctx, "example.com/pinned@"+pinned.Digest.String(), pinned))
	res, err := s.Prune(ctx, store.PruneOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, 2, res.Blobs, "loose: a layer and a manifest; configs are equal")
	dry := res
	require.Len(t, res.Removed, 2)
	require.Equal(t, res.Bytes, res.Freed, "nothing else links to them")
	res, err = s.Prune(ctx, store.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, dry, res)
	res, err = s.Prune(ctx, store.PruneOptions{All: true})
	require.NoError(t, err)
	require.Equal(t, 2, res.Blobs, "pinned")
	require.Equal(t, []string{"example.com/pinned@" + pinned.Digest.String()}, res.Dropped)
	require.Equal(t, keep, blobs(t, s))

	require.NoError(t, s.Untag(ctx, "example.com/c:1"))
	res, err = s.Prune(ctx, store.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, len(keep), res.Blobs)
	require.Empty(t, blobs(t, s))
}

func TestLink(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := open(t)
	file := filepath.Join(t.TempDir(), "blob")
	require.NoError(t, os.WriteFile(file, data(), 0o444))
	isNew, err := s.Link(ctx, blob(), file)
	require.NoError(t, err)
	require.True(t, isNew)
	a, err := os.Stat(file)
	require.NoError(t, err)
	b, err := os.Stat(s.BlobPath(blob().Digest))
	require.NoError(t, err)
	require.True(t, os.SameFile(a, b))
	isNew, err = s.Link(ctx, blob(), file)
	require.NoError(t, err)
	require.False(t, isNew)
	short := blob()
	short.Size--
	_, err = open(t).Link(ctx, short, file)
	require.ErrorContains(t, err, "has 1000000 bytes, not 999999")
	_, err = s.Link(ctx, blob(), file+"x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Where no hard link can be had the copy is verified.
func TestLink_OtherFileSystem(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir, err := os.MkdirTemp("/dev/shm", "sealer-test-") //nolint:usetesting // on another file system
	if err != nil {
		t.Skip("there is no second file system at /dev/shm")
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	file := filepath.Join(dir, "blob")
	s := open(t)
	wrong := append([]byte("x"), data()[1:]...)
	require.NoError(t, os.WriteFile(file, wrong, 0o644))
	_, err = s.Link(ctx, blob(), file)
	require.Error(t, err)
	require.Empty(t, blobs(t, s))
	require.NoError(t, os.WriteFile(file, data(), 0o644))
	isNew, err := s.Link(ctx, blob(), file)
	require.NoError(t, err)
	require.True(t, isNew)
	require.Len(t, blobs(t, s), 1)
}

// A small blob is written without an ingest on disk, by whoever says how large it is.
func TestContent_Small(t *testing.T) {
	t.Parallel()
	st := open(t)
	ctx := t.Context()
	data := []byte("a small blob")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}

	w, err := st.Content().Writer(ctx, content.WithRef("any"), content.WithDescriptor(desc))
	require.NoError(t, err)
	_, err = w.Write(data[:5])
	require.NoError(t, err)
	status, err := w.Status()
	require.NoError(t, err)
	require.Equal(t, "any", status.Ref)
	require.EqualValues(t, 5, status.Offset)
	ingests, err := st.Content().ListStatuses(ctx)
	require.NoError(t, err)
	require.Empty(t, ingests)
	require.NoError(t, w.Close())
	require.NoFileExists(t, st.BlobPath(desc.Digest))

	require.NoError(t, content.WriteBlob(ctx, st.Content(), "any", bytes.NewReader(data), desc))
	got, err := os.ReadFile(st.BlobPath(desc.Digest))
	require.NoError(t, err)
	require.Equal(t, data, got)
	_, err = st.Content().Writer(ctx, content.WithRef("any"), content.WithDescriptor(desc))
	require.True(t, errdefs.IsAlreadyExists(err), "%v", err)
	_, err = st.Content().Writer(ctx, content.WithDescriptor(desc))
	require.True(t, errdefs.IsInvalidArgument(err), "%v", err)
}

// Small blobs go by way of memory; they are checked like all others.
func TestIngest_Small(t *testing.T) {
	st := open(t)
	ctx := t.Context()
	data := []byte("a small blob")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}

	w, err := st.Ingest(ctx, desc)
	require.NoError(t, err)
	_, err = w.Write([]byte("a small blub"))
	require.NoError(t, err)
	_, err = w.Write([]byte("!"))
	require.ErrorContains(t, err, "more than its 12 bytes")
	require.ErrorContains(t, w.Commit(ctx, desc.Size, desc.Digest), "the bytes have digest sha256:")
	require.NoError(t, w.Close())
	require.NoFileExists(t, st.BlobPath(desc.Digest))

	w, err = st.Ingest(ctx, desc)
	require.NoError(t, err)
	_, err = w.Write(data[:5])
	require.NoError(t, err)
	require.ErrorContains(t, w.Commit(ctx, desc.Size, desc.Digest), "5 bytes instead of 12")

	w, err = st.Ingest(ctx, desc)
	require.NoError(t, err)
	_, err = w.Write(data[:5])
	require.NoError(t, err)
	status, err := w.Status()
	require.NoError(t, err)
	require.EqualValues(t, 5, status.Offset, "where a cut download goes on")
	_, err = w.Write(data[5:])
	require.NoError(t, err)
	require.NoError(t, w.Commit(ctx, desc.Size, desc.Digest))
	require.NoError(t, w.Close())
	got, err := os.ReadFile(st.BlobPath(desc.Digest))
	require.NoError(t, err)
	require.Equal(t, data, got)

	_, err = st.Ingest(ctx, desc)
	require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
	require.NoError(t, st.AbortIngest(ctx, desc.Digest), "there is nothing to throw away")
}
