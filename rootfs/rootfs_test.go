// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/rootfs"
	"github.com/sealerio/sealer/store"
)

// TestMain serves two programs that the tests start again: the unpacker, and one that never ends unpacking.
func TestMain(m *testing.M) {
	if rootfs.Init() {
		return
	}
	if dir := os.Getenv("ROOTFS_TEST_STALL"); dir != "" {
		stall(dir)
	}
	os.Exit(m.Run())
}

type entry struct {
	tar.Header
	data string
}

func file(name, data string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, data}
}

func layer(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		e.Format = tar.FormatPAX
		require.NoError(t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func compress(t *testing.T, how string, data []byte) ([]byte, string) {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "zstd":
		w = must(zstd.NewWriter(&out))
	case "gzip":
		w = gzip.NewWriter(&out)
	default:
		return data, ocispec.MediaTypeImageLayer
	}
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes(), ocispec.MediaTypeImageLayer + "+" + how
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func put(t *testing.T, st *store.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), st.Content(), desc.Digest.String(), bytes.NewReader(data), desc))
	return desc
}

func newStore(t *testing.T) *store.Store {
	return must(store.Open(filepath.Join(t.TempDir(), "store")))
}

// image writes a rootfs manifest of the layers, compressed in turn by zstd, gzip and not at all.
func image(t *testing.T, st *store.Store, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	var config ocispec.Image
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		blob, mediaType := compress(t, []string{"zstd", "gzip", ""}[i%3], l)
		m.Layers = append(m.Layers, put(t, st, mediaType, blob))
	}
	m.Config = put(t, st, ocispec.MediaTypeImageConfig, must(json.Marshal(config)))
	return put(t, st, m.MediaType, must(json.Marshal(m)))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting and chown need root")
	}
}

func open(t *testing.T, dir, driver string) *rootfs.Storage {
	t.Helper()
	needRoot(t)
	s, err := rootfs.Open(rootfs.Options{Dir: filepath.Join(dir, "rootfs"), RunDir: filepath.Join(dir, "run"), Driver: driver})
	if driver == "overlay" && err != nil {
		t.Skipf("no overlayfs here: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { // s may be closed by now
		again, err := rootfs.Open(rootfs.Options{Dir: filepath.Join(dir, "rootfs"), RunDir: filepath.Join(dir, "run")})
		require.NoError(t, err)
		require.NoError(t, again.Wipe(context.WithoutCancel(t.Context())))
	})
	return s
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	return string(must(os.ReadFile(filepath.Join(elem...))))
}

func bothDrivers(t *testing.T, f func(t *testing.T, driver string)) {
	for _, d := range []string{"overlay", "vfs"} {
		t.Run(d, func(t *testing.T) { f(t, d) })
	}
}

func TestMount_EverythingThatALayerHolds(t *testing.T) {
	bothDrivers(t, func(t *testing.T, driver string) {
		st := newStore(t)
		owned := file("etc/owned", "x")
		owned.Uid, owned.Gid, owned.Mode = 1234, 5678, 0o4750
		xattr := file("bin/ping", "elf")
		xattr.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "hello", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
		base := layer(t,
			entry{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
			owned, xattr, file("bin/kubelet", "binary"),
			entry{Header: tar.Header{Name: "bin/kubelet-link", Typeflag: tar.TypeLink, Linkname: "bin/kubelet"}},
			entry{Header: tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox"}},
			entry{Header: tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}},
			file("gone", "x"), file("opaque/old", "x"), file("kept/old", "x"), file("replaced", "old"),
		)
		upper := layer(t, file(".wh.gone", ""), file("opaque/.wh..wh..opq", ""), file("opaque/new", "y"), file("kept/new", "y"),
			file("replaced", "new"))
		last := layer(t, file("manifests/a.yaml", "kind: Pod\n"))
		desc := image(t, st, base, upper, last)

		s := open(t, t.TempDir(), driver)
		dir, err := s.Mount(t.Context(), st.Content(), desc, "one")
		require.NoError(t, err)

		info := must(os.Stat(filepath.Join(dir, "etc/owned")))
		require.Equal(t, uint32(1234), info.Sys().(*syscall.Stat_t).Uid)
		require.Equal(t, uint32(5678), info.Sys().(*syscall.Stat_t).Gid)
		require.Equal(t, os.FileMode(0o750)|os.ModeSetuid, info.Mode())
		buf := make([]byte, 100)
		n, err := unix.Getxattr(filepath.Join(dir, "bin/ping"), "user.note", buf)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf[:n]))
		n, err = unix.Getxattr(filepath.Join(dir, "bin/ping"), "security.capability", buf)
		require.NoError(t, err)
		require.Equal(t, 20, n)
		require.True(t, os.SameFile(must(os.Stat(filepath.Join(dir, "bin/kubelet"))), must(os.Stat(filepath.Join(dir, "bin/kubelet-link")))))
		require.Equal(t, "/bin/busybox", must(os.Readlink(filepath.Join(dir, "bin/sh"))))
		require.Equal(t, os.ModeNamedPipe, must(os.Stat(filepath.Join(dir, "run/fifo"))).Mode().Type())
		require.NoFileExists(t, filepath.Join(dir, "gone"))
		require.NoFileExists(t, filepath.Join(dir, "opaque/old"))
		require.Equal(t, "y", read(t, dir, "opaque/new"))
		require.Equal(t, "x", read(t, dir, "kept/old"))
		require.Equal(t, "new", read(t, dir, "replaced"))
		require.Equal(t, "kind: Pod\n", read(t, dir, "manifests/a.yaml"))
	})
}

func TestMount_WritableAndRepeatable(t *testing.T) {
	bothDrivers(t, func(t *testing.T, driver string) {
		st := newStore(t)
		desc := image(t, st, layer(t, file("a", "from the image")))
		tmp := t.TempDir()
		s := open(t, tmp, driver)
		mount := func(s *rootfs.Storage, name string) string {
			t.Helper()
			return must(s.Mount(t.Context(), st.Content(), desc, name))
		}
		one := mount(s, "one")
		require.Equal(t, one, mount(s, "one"), "mounted twice is mounted once")
		require.NoError(t, os.WriteFile(filepath.Join(one, "a"), []byte("changed"), 0o644))
		two := mount(s, "two")
		require.NotEqual(t, one, two)
		require.Equal(t, "from the image", read(t, two, "a"), "the layers stay as they are")

		require.NoError(t, s.Unmount(t.Context(), "one"))
		require.NoError(t, s.Unmount(t.Context(), "one"))
		require.NoError(t, s.Unmount(t.Context(), "unknown"))
		if driver == "overlay" {
			require.NoFileExists(t, filepath.Join(one, "a"))
		}
		require.Equal(t, "changed", read(t, mount(s, "one"), "a"), "what was written is still there")

		if driver == "overlay" { // a reboot takes the mounts, and what is in /run, or not
			for _, clearRun := range []bool{false, true} {
				require.NoError(t, s.Close())
				require.NoError(t, unix.Unmount(one, 0))
				if clearRun {
					require.NoError(t, os.RemoveAll(filepath.Join(tmp, "run")))
				}
				s = must(rootfs.Open(rootfs.Options{Dir: filepath.Join(tmp, "rootfs"), RunDir: filepath.Join(tmp, "run")}))
				require.Equal(t, one, mount(s, "one"))
				require.Equal(t, "changed", read(t, one, "a"))
			}
		}
		names, err := s.Names(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"one", "two"}, names)

		other := image(t, st, layer(t, file("b", "")))
		_, err = s.Mount(t.Context(), st.Content(), other, "one")
		require.ErrorContains(t, err, "it is in use for "+desc.Digest.String())

		require.NoError(t, s.Remove(t.Context(), "one"))
		require.NoError(t, s.Remove(t.Context(), "one"))
		require.Equal(t, "from the image", read(t, two, "a"))
		require.Equal(t, "from the image", read(t, mount(s, "one"), "a"), "removed and mounted again is new")
	})
}

// counting counts how often each blob is read.
type counting struct {
	content.Provider
	reads map[digest.Digest]int
}

func (c counting) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	c.reads[d.Digest]++
	return c.Provider.ReaderAt(ctx, d)
}

func TestMount_LayersAreSharedAndSweptWithTheirLastUser(t *testing.T) {
	st := newStore(t)
	shared := layer(t, file("base", strings.Repeat("base", 1000)))
	one := image(t, st, shared, layer(t, file("one", "")))
	two := image(t, st, shared, layer(t, file("two", "")))
	blob, _ := compress(t, "zstd", shared)
	tmp := t.TempDir()
	s := open(t, tmp, "overlay")
	p := counting{st.Content(), map[digest.Digest]int{}}
	layers := func() int {
		entries := must(os.ReadDir(filepath.Join(tmp, "rootfs", "overlay")))
		n := 0
		for _, e := range entries {
			if e.IsDir() && len(e.Name()) == 64 {
				n++
			}
		}
		return n
	}
	must(s.Mount(t.Context(), p, one, "one"))
	require.Equal(t, 3, layers()) // two, and the writable one
	must(s.Mount(t.Context(), p, two, "two"))
	require.Equal(t, 5, layers())
	require.Equal(t, 1, p.reads[digest.FromBytes(blob)])
	require.NoError(t, s.Remove(t.Context(), "one"))
	require.Equal(t, 3, layers())
	require.NoError(t, s.Remove(t.Context(), "two"))
	require.Equal(t, 0, layers())
}

func TestMount_RefusesWhatIsNotWhatItSays(t *testing.T) {
	st := newStore(t)
	good := layer(t, file("a", "good"))
	evil := layer(t, file("a", "evil"))
	build := func(layers []ocispec.Descriptor, diffIDs ...digest.Digest) ocispec.Descriptor {
		var config ocispec.Image
		config.RootFS.DiffIDs = diffIDs
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: layers}
		m.Config = put(t, st, ocispec.MediaTypeImageConfig, must(json.Marshal(config)))
		return put(t, st, m.MediaType, must(json.Marshal(m)))
	}
	goodBlob, zstdType := compress(t, "zstd", good)
	goodDesc := put(t, st, zstdType, goodBlob)
	evilDesc := put(t, st, zstdType, first(compress(t, "zstd", evil)))
	rotten := put(t, st, zstdType, first(compress(t, "zstd", layer(t, file("a", "rotten")))))
	require.NoError(t, os.WriteFile(st.BlobPath(rotten.Digest), goodBlob, 0o644))
	absent := ocispec.Descriptor{MediaType: zstdType, Digest: digest.FromString("absent"), Size: 6}
	junk := put(t, st, zstdType, []byte("this is no layer"))

	s := open(t, t.TempDir(), "vfs")
	for name, c := range map[string]struct {
		desc ocispec.Descriptor
		want string
	}{
		"other content than the diff ID": {build([]ocispec.Descriptor{evilDesc}, digest.FromBytes(good)), "reading content of layer " + digest.FromBytes(good).String()},
		"rotten blob":                    {build([]ocispec.Descriptor{rotten}, digest.FromBytes(good)), "reading layer " + rotten.Digest.String()},
		"absent blob":                    {build([]ocispec.Descriptor{absent}, digest.FromBytes(good)), "reading " + absent.Digest.String()},
		"no tar":                         {build([]ocispec.Descriptor{junk}, junk.Digest), "unpacking layer " + junk.Digest.String()},
		"diff ID too few":                {build([]ocispec.Descriptor{goodDesc}), "0 diff IDs for 1 layers"},
		"diff ID that is none":           {build([]ocispec.Descriptor{goodDesc}, "sha256:../../x"), "../../x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Mount(t.Context(), st.Content(), c.desc, "x")
			require.ErrorContains(t, err, c.want)
		})
	}
	desc := build([]ocispec.Descriptor{goodDesc}, digest.FromBytes(good))
	require.Equal(t, "good", read(t, must(s.Mount(t.Context(), st.Content(), desc, "x")), "a"), "nothing bad was left under its name")
}

func first[A, B any](a A, _ B) A { return a }

// stalling gives the first half of big blobs, then nothing more.
type stalling struct{ content.Provider }

func (s stalling) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := s.Provider.ReaderAt(ctx, d)
	if err != nil || d.Size < 1<<20 {
		return ra, err
	}
	return stallingReader{ra}, nil
}

type stallingReader struct{ content.ReaderAt }

func (s stallingReader) ReadAt(p []byte, off int64) (int, error) {
	if off > s.Size()/2 {
		_, _ = os.Stdout.WriteString("stalled\n")
		select {}
	}
	return s.ReaderAt.ReadAt(p, off)
}

// stall is the process that is killed while it unpacks.
func stall(dir string) {
	st := must(store.Open(filepath.Join(dir, "store")))
	s := must(rootfs.Open(rootfs.Options{Dir: filepath.Join(dir, "rootfs"), RunDir: filepath.Join(dir, "run"), Driver: os.Getenv("ROOTFS_TEST_DRIVER")}))
	t := must(st.Resolve(context.Background(), "image:latest"))
	must(s.Mount(context.Background(), stalling{st.Content()}, t.Descriptor, "one"))
}

func TestMount_AfterAKillInTheMiddle(t *testing.T) {
	bothDrivers(t, func(t *testing.T, driver string) {
		needRoot(t)
		tmp := t.TempDir()
		st := must(store.Open(filepath.Join(tmp, "store")))
		noise := make([]byte, 8<<20)
		f := must(os.Open("/dev/urandom"))
		must(io.ReadFull(f, noise))
		require.NoError(t, f.Close())
		desc := image(t, st, layer(t, file("small", "s")), layer(t, file("big/1", string(noise[:4<<20])), file("big/2", string(noise[4<<20:]))))
		require.NoError(t, st.Tag(t.Context(), "image:latest", desc))

		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "ROOTFS_TEST_STALL="+tmp, "ROOTFS_TEST_DRIVER="+driver)
		cmd.Stderr = os.Stderr
		out := must(cmd.StdoutPipe())
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "stalled\n", line)
		require.NoError(t, cmd.Process.Kill())
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)

		s := open(t, tmp, driver)
		dir := must(s.Mount(t.Context(), st.Content(), desc, "one"))
		require.True(t, read(t, dir, "big/1")+read(t, dir, "big/2") == string(noise))
		require.Equal(t, "s", read(t, dir, "small"))
	})
}

func TestMount_EndsWithItsContext(t *testing.T) {
	st := newStore(t)
	desc := image(t, st, layer(t, file("a", "x")))
	s := open(t, t.TempDir(), "vfs")
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	p := cancelling{st.Content(), func() { cancel(enough) }}
	_, err := s.Mount(ctx, p, desc, "one")
	require.ErrorIs(t, err, enough)
	require.Equal(t, "x", read(t, must(s.Mount(t.Context(), st.Content(), desc, "one")), "a"))
}

type cancelling struct {
	content.Provider
	cancel func()
}

func (c cancelling) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if strings.HasPrefix(d.MediaType, ocispec.MediaTypeImageLayer) {
		c.cancel()
	}
	return c.Provider.ReaderAt(ctx, d)
}

func TestMount_ManyAtOnce(t *testing.T) {
	st := newStore(t)
	desc := image(t, st, layer(t, file("a", "x")), layer(t, file("b", "y")))
	s := open(t, t.TempDir(), "overlay")
	paths := make(chan string)
	for range 8 {
		go func() {
			p, err := s.Mount(t.Context(), st.Content(), desc, "one")
			if err != nil {
				p = err.Error()
			}
			paths <- p
		}()
	}
	want := <-paths
	require.DirExists(t, want)
	for range 7 {
		require.Equal(t, want, <-paths)
	}
}

func TestWipe_LeavesNothing(t *testing.T) {
	st := newStore(t)
	tmp := t.TempDir()
	s := open(t, tmp, "overlay")
	dir := must(s.Mount(t.Context(), st.Content(), image(t, st, layer(t, file("a", "x"))), "one"))
	require.NoError(t, s.Wipe(t.Context()))
	require.NoDirExists(t, filepath.Join(tmp, "rootfs"))
	require.NoDirExists(t, filepath.Join(tmp, "run"))
	require.NotContains(t, read(t, "/proc/self/mountinfo"), dir)
	require.NotContains(t, read(t, "/proc/self/mountinfo"), tmp)
	s2 := open(t, tmp, "overlay") // and all can begin anew
	must(s2.Mount(t.Context(), st.Content(), image(t, st, layer(t, file("a", "x"))), "one"))
}
