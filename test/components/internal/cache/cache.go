// SPDX-License-Identifier: Apache-2.0

// Package cache keeps built folders: each is named after everything it was made from, appears whole or not at all,
// and is built by one process at a time.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// keyFile stands in a finished folder and holds its key. A folder without one was not made here.
const keyFile = "key"

// Key returns a name for what can be made from the sources below dir with the given settings. Tests and texts for
// people do not count, as nothing is made from them; nor does what lies below the path without, where it is not empty.
func Key(dir, without string, settings ...string) (string, error) {
	h := sha256.New()
	for _, s := range settings {
		fmt.Fprintf(h, "setting %d %s\n", len(s), s)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path == without {
			return filepath.SkipDir
		}
		if d.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && path != dir) {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".md") || strings.HasPrefix(name, ".") {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "file %s %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hashing the sources in %s: %w", dir, err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// unused is how long Sweep keeps what nobody has asked for.
const unused = 48 * time.Hour

// Has tells whether dir was made under the given key, and notes for Sweep that it was asked for.
func Has(dir, key string) bool {
	path := filepath.Join(dir, keyFile)
	content, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(content)) != key {
		return false
	}
	_ = os.Chtimes(path, time.Time{}, time.Now()) // another user's folder is good, too
	return true
}

// Sweep removes those folders in parent that were made here and that nobody has asked for in the last two days: each
// change of the sources leaves one. What is being made stays.
func Sweep(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("removing what is not used any more: %w", err)
	}
	for _, e := range entries {
		name, left := strings.CutSuffix(strings.TrimPrefix(e.Name(), "."), ".new") // left by a run that was killed
		age := filepath.Join(parent, e.Name())
		if !left {
			age = filepath.Join(age, keyFile)
		}
		info, err := os.Stat(age)
		if err != nil || !e.IsDir() || time.Since(info.ModTime()) < unused {
			continue
		}
		if err := remove(parent, name, e.Name()); err != nil {
			return fmt.Errorf("removing what is not used any more: %w", err)
		}
	}
	return nil
}

// remove removes an entry of parent unless name, the folder that it is or was to be, is being made.
func remove(parent, name, entry string) error {
	f, err := os.OpenFile(lockFile(parent, name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil
	}
	dir := filepath.Join(parent, entry)
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) { // first: half of it is not to be found
		return err
	}
	return os.RemoveAll(dir)
}

func lockFile(parent, name string) string { return filepath.Join(parent, "."+name+".lock") }

// Make fills dir by way of fill, unless it was made under the key before. fill gets an empty folder, which takes
// the place of dir when fill has succeeded. A second process waits for the first, and then finds the work done;
// messages says so.
func Make(ctx context.Context, dir, key string, messages io.Writer, fill func(context.Context, string) error) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	unlock, err := lock(ctx, lockFile(parent, filepath.Base(dir)), messages)
	if err != nil {
		return err
	}
	defer unlock()
	if Has(dir, key) {
		return nil
	}
	if err := checkReplaceable(dir); err != nil {
		return err
	}
	temporary := filepath.Join(parent, "."+filepath.Base(dir)+".new")
	if err := os.RemoveAll(temporary); err != nil { // of a run that was killed: the lock is ours
		return fmt.Errorf("making %s: %w", dir, err)
	}
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	if err := fill(ctx, temporary); err != nil {
		return errors.Join(err, os.RemoveAll(temporary))
	}
	if err := os.WriteFile(filepath.Join(temporary, keyFile), []byte(key+"\n"), 0o644); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("replacing %s: %w", dir, err)
	}
	if err := os.Rename(temporary, dir); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	return nil
}

// checkReplaceable keeps a folder that holds something else from being removed.
func checkReplaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking into %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err != nil {
		return fmt.Errorf("making %s: it is not empty and was not made by this program", dir)
	}
	return nil
}

// lock waits until no other process holds the lock. The file stays: were it removed, a process that waits would
// hold the lock of a file that nobody else can find.
func lock(ctx context.Context, path string, messages io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		}
		if !told {
			told = true
			fmt.Fprintln(messages, "waiting for another build to end: it holds", path)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the lock %s: %w", path, ctx.Err()), f.Close())
		case <-poll.C:
		}
	}
}
