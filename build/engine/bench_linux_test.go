// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"

	"github.com/sealerio/sealer/build/engine"
)

// The tree of the benchmarks: a part of what a base image's context is, in the same proportion.
const (
	benchBig   = 256 << 20
	benchFiles = 2500
)

func benchTree(b *testing.B) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "tree")
	require.NoError(b, os.MkdirAll(filepath.Join(dir, "small"), 0o755))
	big, err := os.Create(filepath.Join(dir, "big"))
	require.NoError(b, err)
	_, err = io.CopyN(big, rand.Reader, benchBig)
	require.NoError(b, err)
	require.NoError(b, big.Close())
	for i := range benchFiles {
		require.NoError(b, os.WriteFile(filepath.Join(dir, "small", fmt.Sprint(i)), fmt.Append(nil, i), 0o644))
	}
	return dir
}

// BenchmarkContext is the way of a build context into an empty engine, the floors of reading, hashing and writing it, and
// the second time, when nothing has changed.
func BenchmarkContext(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("the engine mounts file systems: needs root")
	}
	tree := benchTree(b)
	files, err := fsutil.NewFS(tree)
	require.NoError(b, err)
	solve := func(e *engine.Engine) {
		b.Helper()
		def, err := llb.Local("context", llb.SharedKeyHint("context")).Marshal(context.Background())
		require.NoError(b, err)
		_, err = e.Client().Solve(context.Background(), def, client.SolveOpt{LocalMounts: map[string]fsutil.FS{"context": files}, SharedKey: "bench"}, nil)
		require.NoError(b, err)
	}
	open := func() *engine.Engine {
		b.Helper()
		e, err := engine.Open(context.Background(), engine.Options{Root: b.TempDir()})
		require.NoError(b, err)
		return e
	}
	b.Run("cold", func(b *testing.B) {
		b.SetBytes(benchBig)
		for b.Loop() {
			b.StopTimer()
			e := open()
			b.StartTimer()
			solve(e)
			b.StopTimer()
			require.NoError(b, e.Close())
			b.StartTimer()
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		e := open()
		defer func() { require.NoError(b, e.Close()) }()
		solve(e)
		b.ResetTimer()
		for b.Loop() {
			solve(e)
		}
	})
	b.Run("floor/cp", func(b *testing.B) {
		b.SetBytes(benchBig)
		for b.Loop() {
			require.NoError(b, exec.Command("cp", "-a", "--reflink=never", tree, b.TempDir()).Run())
		}
	})
	b.Run("floor/sha256", func(b *testing.B) {
		b.SetBytes(benchBig)
		for b.Loop() {
			require.NoError(b, hashTree(tree))
		}
	})
}

func hashTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(sha256.New(), f)
		return err
	})
}
