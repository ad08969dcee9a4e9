//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The same context gives the same digest: on another store, from another
// folder, with other times on its files.
func TestBuild_Reproducible(t *testing.T) {
	dropAfter(t, "clean-one", "clean-two", "context-one", "context-two")
	one, two := filepath.Join(shared.Dir, "context-one"), filepath.Join(shared.Dir, "context-two")
	require.NoError(t, shared.WriteBase(one))
	require.NoError(t, shared.WriteBase(two))
	breakLinks(t, two)
	first := sealer(t, "clean-one", "build", "-t", shared.BaseImage(), one)
	second := sealer(t, "clean-two", "build", "-t", shared.BaseImage(), two)
	require.Equal(t, first, second)
	require.Regexp(t, `^sha256:[0-9a-f]{64}$`, first)
}

// breakLinks gives the small files of dir inodes and times of their own.
func breakLinks(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Size() > 1<<20 {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, info.Mode().Perm()); err != nil {
			return err
		}
		return os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0))
	}))
}

// Ten builds are killed at moments that nobody chose. The one after them
// succeeds, asks for nothing again that had come whole, and leaves nothing that
// prune does not take away.
func TestBuild_Killed(t *testing.T) {
	const root = "killed"
	context := filepath.Join(shared.Dir, "context-killed")
	require.NoError(t, shared.WriteBase(context))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))

	complete := map[string]bool{}
	for range 10 {
		before := blobs(t, root)
		asked := blobRequests(t)
		cmd := shared.Command(t.Context(), root, "build", "-t", shared.BaseImage(), context)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended: // it was quicker than the knife
			require.NoError(t, err, stderr.String())
		case <-time.After(time.Duration(20+random.IntN(3000)) * time.Millisecond):
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
			<-ended
		}
		for digest, n := range blobRequests(t) {
			require.False(t, before[digest] && n > asked[digest], "blob %s was there and was asked for again", digest)
		}
		for digest := range blobs(t, root) {
			complete[digest] = true
		}
	}
	requireNothingLeft(t, root)

	asked := blobRequests(t)
	sealer(t, root, "build", "-t", shared.BaseImage(), context)
	for digest, n := range blobRequests(t) {
		require.False(t, complete[digest] && n > asked[digest], "blob %s was there and was asked for again", digest)
	}

	sealer(t, root, "rmi", shared.BaseImage())
	var result struct{ Blobs int }
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "prune", "--all", "-o", "json")), &result))
	require.Positive(t, result.Blobs)
	require.Empty(t, blobs(t, root), "blobs left in the store")
	left := size(t, filepath.Join(shared.Dir, root))
	require.Less(t, left, int64(8<<20), "prune --all left %d bytes", left)
}

// blobs are the digests of the complete blobs in root's store.
func blobs(t *testing.T, root string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(shared.Dir, root, "store", "blobs", "sha256"))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Name()] = true
	}
	return found
}

// blobRequests counts the GETs of each blob that the registry has seen.
func blobRequests(t *testing.T) map[string]int {
	t.Helper()
	log, err := shared.AccessLog()
	require.NoError(t, err)
	counts := map[string]int{}
	for line := range strings.Lines(string(log)) {
		if _, rest, ok := strings.Cut(line, `"GET /v2/`); ok {
			if _, digest, ok := strings.Cut(rest, "/blobs/sha256:"); ok && len(digest) >= 64 {
				counts[digest[:64]]++
			}
		}
	}
	return counts
}

func size(t *testing.T, dir string) (total int64) {
	t.Helper()
	seen := map[uint64]bool{}
	require.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if ok && !seen[stat.Ino] {
			seen[stat.Ino] = true
			total += stat.Blocks * 512
		}
		return nil
	}))
	return total
}

// requireNothingLeft checks that no mount and no process of a build is left.
func requireNothingLeft(t *testing.T, root string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), filepath.Join(shared.Dir, root))
	require.Eventually(t, func() bool { return len(processesWith(filepath.Join(shared.Dir, root))) == 0 },
		10*time.Second, 100*time.Millisecond, "processes left: %v", processesWith(filepath.Join(shared.Dir, root)))
}

// processesWith lists the command lines and environments on this machine that hold text.
func processesWith(text string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if bytes.Contains(line, []byte(text)) {
			found = append(found, fmt.Sprintf("%s: %s", path, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// A Ctrl-C in the middle of a RUN ends the build with 130 and leaves nothing.
func TestBuild_Interrupted(t *testing.T) {
	const root = "interrupted"
	dropAfter(t, root)
	context := filepath.Join(shared.Dir, "context-interrupted")
	require.NoError(t, os.MkdirAll(context, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(context, "Kubefile"), []byte("FROM scratch\nRUN echo begun && sleep 300\n"), 0o600))
	cmd := shared.Command(t.Context(), root, "build", "--progress", "plain", "-t", "x.example/y:1", context)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stderr)
	begun := false
	for !begun && lines.Scan() {
		begun = strings.HasSuffix(lines.Text(), " begun")
	}
	require.True(t, begun, "the RUN never ran")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	for lines.Scan() { // to its end, before Wait
	}
	err = cmd.Wait()
	require.Error(t, err)
	require.Equal(t, 130, cmd.ProcessState.ExitCode())
	requireNothingLeft(t, root)
	require.Equal(t, "[]", sealer(t, root, "images", "-o", "json"))
	// The lock is free.
	require.NoError(t, os.WriteFile(filepath.Join(context, "Kubefile"), []byte("FROM scratch\nRUN echo again > f\n"), 0o600))
	sealer(t, root, "build", "-t", "x.example/y:1", context)
}
