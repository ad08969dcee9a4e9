//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
)

// buildArchived builds an image with two packed images of 4 MiB each, and returns its digest.
func buildArchived(t *testing.T, root, image string) string {
	t.Helper()
	var list strings.Builder
	for _, repo := range []string{"archived/one:v1", "archived/two:v1"} {
		pushRandom(t, shared.Registry+"/"+repo, 4<<20)
		list.WriteString(shared.Registry + "/" + repo + "\n")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPY imageList greeting ./\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte(list.String()), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "greeting"), []byte("hello\n"), 0o600))
	return sealer(t, root, "build", "-t", image, dir)
}

func pushRandom(t *testing.T, ref string, size int64) {
	t.Helper()
	img, err := random.Image(size, 1)
	require.NoError(t, err)
	parsed, err := name.ParseReference(ref)
	require.NoError(t, err)
	require.NoError(t, remote.Write(parsed, img))
}

// digestOf is what a name stands for in root's store.
func digestOf(t *testing.T, root, image string) string {
	t.Helper()
	var value struct{ Digest string }
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "inspect", image, "-o", "json")), &value))
	return value.Digest
}

// An archive goes through a file, a pipe, parts and other tools, and is the same image.
func TestSave_Ways(t *testing.T) {
	const root, image = "save", "r.example/team/archived:v1"
	want := buildArchived(t, root, image)
	dir := t.TempDir()
	path := filepath.Join(dir, "archived.tar")
	require.Equal(t, path, sealer(t, root, "save", image, "-o", path))

	t.Run("file", func(t *testing.T) {
		sealer(t, "load-file", "load", "-i", path)
		require.Equal(t, want, digestOf(t, "load-file", image))
		sealer(t, "load-file", "save", image, "-o", path+".again")
		require.Equal(t, read(t, path), read(t, path+".again"), "the same image gives the same bytes")
	})
	t.Run("pipe", func(t *testing.T) {
		save, load := shared.Command(t.Context(), root, "save", image), shared.Command(t.Context(), "load-pipe", "load")
		pipe, err := save.StdoutPipe()
		require.NoError(t, err)
		load.Stdin = pipe
		require.NoError(t, save.Start())
		out, err := load.CombinedOutput()
		require.NoError(t, err, string(out))
		require.NoError(t, save.Wait())
		require.Equal(t, want, digestOf(t, "load-pipe", image))
	})
	t.Run("parts", func(t *testing.T) {
		base := filepath.Join(dir, "parts.tar")
		files := strings.Split(sealer(t, root, "save", image, "-o", base, "--split", "2MiB"), "\n")
		require.Greater(t, len(files), 4)
		sealer(t, "load-parts", "load", "-i", files[0])
		require.Equal(t, want, digestOf(t, "load-parts", image))
		require.NoError(t, os.Remove(files[1]))
		_, stderr, code := runAny(t, "load-missing", "load", "-i", base)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, filepath.Base(files[1]))
	})
	t.Run("looked at where it lies", func(t *testing.T) {
		base := filepath.Join(dir, "looked.tar")
		sealer(t, root, "save", image, "-o", base, "--split", "2MiB")
		for _, archive := range []string{"oci-archive:" + path, "oci-archive:" + base, "oci-archive:" + path + ":" + image} {
			require.Equal(t, sealer(t, root, "inspect", image, "-o", "json"), sealer(t, "look", "inspect", archive, "-o", "json"))
			require.Contains(t, sealer(t, "look", "tree", archive), "rootfs ")
			require.Contains(t, sealer(t, "look", "why", archive, shared.Registry+"/archived/one"), "imageList:")
			require.Contains(t, sealer(t, "look", "verify", archive), "0 bad")
		}
		require.Contains(t, sealer(t, root, "diff", image, "oci-archive:"+base), "0 blobs to ship")
		require.Equal(t, "[]", sealer(t, "look", "images", "-o", "json"), "nothing was loaded")
		_, stderr, code := runAny(t, "look", "inspect", path)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "oci-archive:"+path)
	})
	t.Run("compressed and in docker's format", func(t *testing.T) {
		docker := filepath.Join(dir, "docker-format.tar")
		sealer(t, root, "save", image, "--format", "docker-archive", "-o", docker)
		command(t, "gzip", "-k", docker)
		command(t, "zstd", "-q", "-k", path)
		digests := map[string]bool{}
		for _, file := range []string{docker, docker + ".gz"} {
			digests[loadPipe(t, "docker-format", file)] = true
			digests[sealer(t, "docker-format", "load", "-o", "json", "-i", file)] = true
		}
		require.Len(t, digests, 1)
		loadPipe(t, "load-zst", path+".zst")
		require.Equal(t, want, digestOf(t, "load-zst", image))
	})
	t.Run("tools", func(t *testing.T) {
		crane := buildCrane(t)
		layout, target := filepath.Join(dir, "layout"), shared.Registry+"/archived/crane:v1"
		require.NoError(t, os.Mkdir(layout, 0o755))
		command(t, "tar", "-C", layout, "-xf", path)
		command(t, crane, "push", "--index", layout, target)
		require.Contains(t, command(t, crane, "manifest", target), strings.TrimSpace(want))
		other := shared.Registry + "/archived/skopeo:v1"
		command(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--dest-tls-verify=false", "oci-archive:"+path, "docker://"+other)
		require.Equal(t, want, sealer(t, "load-skopeo", "pull", other))

		foreign := filepath.Join(dir, "foreign.tar")
		command(t, "skopeo", "copy", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "docker://"+other, "oci-archive:"+foreign+":v1")
		_, stderr, code := runAny(t, "load-foreign", "load", "-i", foreign)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "--tag")
		sealer(t, "load-foreign", "load", "-i", foreign, "--tag", image)
		require.Equal(t, want, digestOf(t, "load-foreign", image))

		docker := filepath.Join(dir, "docker.tar")
		sealer(t, root, "save", image, "--format", "docker-archive", "-o", docker)
		require.Contains(t, command(t, "skopeo", "inspect", "docker-archive:"+docker), "io.sealer.clusterimage")
		require.Equal(t, "hello\n", savedFiles(t, docker)["greeting"])
	})
}

// loadPipe loads a file through standard input.
func loadPipe(t *testing.T, root, file string) string {
	t.Helper()
	cmd := shared.Command(t.Context(), root, "load", "-o", "json")
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	cmd.Stdin = io.MultiReader(f) // a pipe, since it is no *os.File
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, errs.String())
	return strings.TrimSpace(string(out))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// The difference to an image is refused where that image is not.
func TestSave_Since(t *testing.T) {
	const root, v1, v2 = "since", "r.example/since:v1", "r.example/since:v2"
	buildArchived(t, root, v1)
	pushRandom(t, shared.Registry+"/archived/one:v1", 1<<20)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nCOPY imageList greeting ./\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), []byte(shared.Registry+"/archived/one:v1\n"+shared.Registry+"/archived/two:v1\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "greeting"), []byte("hello\n"), 0o600))
	want := sealer(t, root, "build", "-t", v2, dir)
	full, diff := filepath.Join(dir, "full.tar"), filepath.Join(dir, "diff.tar")
	sealer(t, root, "save", v1, "-o", full)
	sealer(t, root, "save", v2, "--since", v1, "-o", diff)
	info, err := os.Stat(diff)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(1<<20+1<<17))

	_, stderr, code := runAny(t, "since-load", "load", "-i", diff)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "hint: first load or pull "+v1)
	require.Empty(t, blobs(t, "since-load"))
	sealer(t, "since-load", "load", "-i", full)
	sealer(t, "since-load", "load", "-i", diff)
	require.Equal(t, want, digestOf(t, "since-load", v2))
}

// A load that is killed wherever it is, by cut pipes and by signals, is
// continued; what had come whole is not written again, and nothing has a name before.
func TestLoad_Killed(t *testing.T) {
	const image = "r.example/team/archived:v1"
	want := buildArchived(t, "killed-save", image)
	path := filepath.Join(t.TempDir(), "archived.tar")
	sealer(t, "killed-save", "save", image, "-o", path)
	archive := read(t, path)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, seed))
	const root = "killed-load"

	before := map[string]time.Time{}
	for i := range 12 {
		cmd := shared.Command(t.Context(), root, "load")
		if i%2 == 0 { // the pipe ends
			cmd.Stdin = bytes.NewReader(archive[:rng.IntN(len(archive))])
			require.Error(t, cmd.Run())
		} else { // the process does
			cmd.Stdin = &slowReader{r: bytes.NewReader(archive)}
			require.NoError(t, cmd.Start())
			time.AfterFunc(time.Duration(20+rng.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			if cmd.Wait() == nil {
				break
			}
		}
		require.Equal(t, "[]", sealer(t, root, "images", "-o", "json"))
		requireUntouched(t, root, before)
	}
	sealer(t, root, "load", "-i", path)
	requireUntouched(t, root, before)
	require.Equal(t, want, digestOf(t, root, image))
	sealer(t, root, "prune")
	left, err := os.ReadDir(filepath.Join(shared.Dir, root, "store", "ingest"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// slowReader gives 64 KiB in a millisecond.
type slowReader struct{ r io.Reader }

func (s *slowReader) Read(p []byte) (int, error) {
	<-time.After(time.Millisecond)
	return s.r.Read(p[:min(len(p), 64<<10)])
}

// requireUntouched checks that the blobs of before are the same files, and adds the new ones.
func requireUntouched(t *testing.T, root string, before map[string]time.Time) {
	t.Helper()
	for digest := range blobs(t, root) {
		info, err := os.Stat(filepath.Join(shared.Dir, root, "store", "blobs", "sha256", digest))
		require.NoError(t, err)
		if at, ok := before[digest]; ok {
			require.Equal(t, at, info.ModTime(), "blob %s was written again", digest)
		}
		before[digest] = info.ModTime()
	}
}

// A save that is killed leaves a whole file of the name or none; one whose reader goes away leaves the store as it was.
func TestSave_Killed(t *testing.T) {
	const root, image = "killed-save", "r.example/team/archived:v1"
	buildArchived(t, root, image)
	dir := t.TempDir()
	path := filepath.Join(dir, "archived.tar")
	sealer(t, root, "save", image, "-o", path)
	whole := read(t, path)
	require.NoError(t, os.Remove(path))
	ended, none := 0, 0
	for i := range 8 {
		cmd := shared.Command(t.Context(), root, "save", image, "-o", path)
		require.NoError(t, cmd.Start())
		time.AfterFunc(time.Duration(30+10*i)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() == nil {
			ended++
			require.FileExists(t, path)
		} else if _, err := os.Stat(path); err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist)
			none++
			continue
		}
		require.True(t, bytes.Equal(whole, read(t, path)), "a file that is there is whole")
		require.NoError(t, os.Remove(path))
	}
	t.Logf("of 8, %d ended before they were killed, %d left no file", ended, none)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `"$0" save `+image+` | head -c 100000 >/dev/null`, shared.Sealer())
	cmd.Env = shared.Command(t.Context(), root).Env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	sealer(t, root, "prune") // does not wait for a holder that is gone
	sealer(t, root, "save", image, "-o", path)
}

// A disk that is full is named, with what would be needed; nothing half is left, and once there is room it goes on.
func TestSave_FullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	const root, image = "full-save", "r.example/team/archived:v1"
	want := buildArchived(t, root, image)
	small := filepath.Join(shared.Dir, "small-disk")
	require.NoError(t, os.MkdirAll(small, 0o755))
	require.NoError(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=3m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(small, 0)) })

	for _, args := range [][]string{{}, {"--split", "2MiB"}} {
		out, stderr, code := runAny(t, root, append([]string{"save", image, "-o", filepath.Join(small, "f.tar")}, args...)...)
		require.Equal(t, 1, code)
		require.Empty(t, out)
		require.Contains(t, stderr, "no space left on device")
		require.Contains(t, stderr, "it needs")
		require.Empty(t, filesBelow(t, small))
	}

	path := filepath.Join(t.TempDir(), "f.tar")
	sealer(t, root, "save", image, "-o", path)
	_, stderr, code := runAny(t, "small-disk", "load", "-i", path)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no space left on device")
	require.NoError(t, syscall.Mount("tmpfs", small, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
	sealer(t, "small-disk", "load", "-i", path)
	require.Equal(t, want, digestOf(t, "small-disk", image))
}

func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	return files
}
