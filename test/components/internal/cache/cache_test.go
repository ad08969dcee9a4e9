// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func key(t *testing.T, dir string, settings ...string) string {
	t.Helper()
	k, err := Key(dir, "", settings...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module a\n")
	write(t, filepath.Join(dir, "cmd", "main.go"), "package main\n")
	before := key(t, dir, "go1.26")

	if later := key(t, dir, "go1.26"); later != before {
		t.Errorf("nothing changed, but the key did: %s, %s", before, later)
	}
	if other := key(t, dir, "go1.27"); other == before {
		t.Error("another compiler has to give another key")
	}
	if split := key(t, dir, "go1", ".26"); split == before {
		t.Error("other settings have to give another key, though their texts join to the same")
	}
	for _, ignored := range []string{"README.md", "cmd/main_test.go", "cmd/testdata/x", ".editor/x", ".swap"} {
		write(t, filepath.Join(dir, ignored), "x")
	}
	if later := key(t, dir, "go1.26"); later != before {
		t.Error("tests and texts must not change the key")
	}
	write(t, filepath.Join(dir, "cmd", "main.go"), "package main // changed\n")
	changed := key(t, dir, "go1.26")
	if changed == before {
		t.Error("a changed source has to give another key")
	}
	if err := os.Rename(filepath.Join(dir, "cmd", "main.go"), filepath.Join(dir, "cmd", "other.go")); err != nil {
		t.Fatal(err)
	}
	if renamed := key(t, dir, "go1.26"); renamed == changed {
		t.Error("a renamed source has to give another key")
	}
}

func fill(_ context.Context, dir string) error {
	return os.WriteFile(filepath.Join(dir, "result"), []byte("x"), 0o644)
}

func TestMake_OnceForManyAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := Make(t.Context(), dir, "k", io.Discard, func(ctx context.Context, dir string) error {
				fills.Add(1)
				return fill(ctx, dir)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if fills.Load() != 1 {
		t.Errorf("filled %d times, want once", fills.Load())
	}
	if !Has(dir, "k") || Has(dir, "other") {
		t.Error("Has does not tell the key")
	}
}

func TestMake_FailureLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	broken := errors.New("broken")
	err := Make(t.Context(), dir, "k", io.Discard, func(ctx context.Context, dir string) error {
		return errors.Join(fill(ctx, dir), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != ".out.lock" {
		t.Errorf("got %v, want the lock alone", entries)
	}
}

func TestMake_Replaces(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	for _, k := range []string{"first", "second"} {
		if err := Make(t.Context(), dir, k, io.Discard, fill); err != nil {
			t.Fatal(err)
		}
		if !Has(dir, k) {
			t.Errorf("the folder has another key than %s", k)
		}
	}
}

func TestMake_SparesForeignFolders(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	write(t, precious, "x")
	if err := Make(t.Context(), dir, "k", io.Discard, fill); err == nil {
		t.Error("a folder that holds something else has to be an error")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestMake_WaitEndsWithContext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := Make(t.Context(), dir, "k", io.Discard, func(context.Context, string) error {
		// A second Make of the same folder has to wait for this one, and gives up with its context.
		if err := Make(ctx, dir, "k", io.Discard, fill); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSweep(t *testing.T) {
	parent := t.TempDir()
	folder := func(name string) string { return filepath.Join(parent, name) }
	for _, name := range []string{"old", "asked", "new", "made"} {
		if err := Make(t.Context(), folder(name), "k", io.Discard, fill); err != nil {
			t.Fatal(err)
		}
	}
	write(t, folder("stranger/file"), "x") // has no key: not ours
	write(t, folder(".killed.new/result"), "x")
	past := time.Now().Add(-49 * time.Hour)
	for _, name := range []string{"old/key", "asked/key", "made/key", "stranger", ".killed.new"} {
		if err := os.Chtimes(folder(name), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if !Has(folder("asked"), "k") {
		t.Fatal("it was made")
	}
	unlock, err := lock(t.Context(), lockFile(parent, "made"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()

	if err := Sweep(parent); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"old": false, ".killed.new": false, "asked": true, "new": true, "made": true, "stranger": true} {
		if _, err := os.Stat(folder(name)); (err == nil) != stays {
			t.Errorf("%s: stays is %t, want %t", name, err == nil, stays)
		}
	}
}
