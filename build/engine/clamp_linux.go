// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"
)

// clampSnapshotter makes layers the same whenever they are made: when a snapshot is committed, what a step wrote later
// than the epoch gets the epoch's time. BuildKit's own way, rewrite-timestamp, unpacks and compresses every layer again
// in every export.
type clampSnapshotter struct {
	snapshots.Snapshotter
	epoch time.Time
}

func (s *clampSnapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	mounts, err := s.Mounts(ctx, key)
	if err != nil {
		return err
	}
	if dir := writableDir(mounts); dir != "" {
		if err := clamp(dir, s.epoch); err != nil {
			return fmt.Errorf("setting times in %q: %w", dir, err)
		}
	}
	return s.Snapshotter.Commit(ctx, name, key, opts...)
}

// Cleanup implements snapshots.Cleaner, which containerd's collector looks for.
func (s *clampSnapshotter) Cleanup(ctx context.Context) error {
	if c, ok := s.Snapshotter.(snapshots.Cleaner); ok {
		return c.Cleanup(ctx)
	}
	return nil
}

// writableDir is the folder that holds what was written: an overlay's upper folder, or the whole of a plain one.
func writableDir(mounts []mount.Mount) string {
	if len(mounts) != 1 {
		return ""
	}
	m := mounts[0]
	for _, o := range m.Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	if m.Type == "bind" {
		return m.Source
	}
	return ""
}

func clamp(dir string, epoch time.Time) error {
	times := []unix.Timespec{unix.NsecToTimespec(epoch.UnixNano()), unix.NsecToTimespec(epoch.UnixNano())}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !info.ModTime().After(epoch) {
			return nil
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}
