// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// View is a rootfs that is mounted in a folder for people to look at.
type View struct {
	// Dir is the folder, an absolute path.
	Dir string `json:"dir"`
	// Image and Platform are what is mounted, and Digest that of the image.
	Image    string `json:"image"`
	Digest   string `json:"digest"`
	Platform string `json:"platform"`
	// Writable views keep what is written to them until Hide.
	Writable bool `json:"writable"`
	// Mounted is false where a reboot took the mount away.
	Mounted bool `json:"mounted"`
}

// viewsDir, below the storage's folder, has a file for each view.
const viewsDir = "sealer-views"

func viewName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "view-" + hex.EncodeToString(sum[:8])
}

// Show mounts the rootfs of a manifest at v.Dir, which is created where it is
// missing, and must be empty. It wants root. The mount outlives this process; Hide ends it.
func (s *Storage) Show(ctx context.Context, p Provider, manifest ocispec.Descriptor, v View) (_ View, err error) {
	if v.Dir, err = filepath.Abs(v.Dir); err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	if err := os.MkdirAll(v.Dir, 0o755); err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	if entries, err := os.ReadDir(v.Dir); err != nil || len(entries) > 0 {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, cmp.Or(err, fs.ErrExist))
	}
	data, err := json.Marshal(v)
	if err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	name := viewName(v.Dir)
	if err := os.MkdirAll(filepath.Join(s.dir, viewsDir), 0o700); err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	// Noted before it is mounted: what is cut can be taken away.
	if err := atomicfile.Write(filepath.Join(s.dir, viewsDir, name+".json"), data, 0o600); err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Hide(context.WithoutCancel(ctx), v))
		}
	}()
	path, err := s.Mount(ctx, p, manifest, name)
	if err != nil {
		return v, err
	}
	if err := unix.Mount(path, v.Dir, "", unix.MS_BIND, ""); err != nil {
		return v, fmt.Errorf("mounting at %q: %w", v.Dir, err)
	}
	if !v.Writable {
		if err := unix.Mount("", v.Dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return v, fmt.Errorf("mounting at %q read-only: %w", v.Dir, err)
		}
	}
	v.Mounted = true
	return v, nil
}

// maxView bounds the file of a view, in bytes.
const maxView = 64 << 10

// Views lists what Show has mounted and Hide has not taken away, by folder.
func (s *Storage) Views(ctx context.Context) ([]View, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, viewsDir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	var out []View
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || info.Size() > maxView {
			return nil, fmt.Errorf("reading %q: %w", file, cmp.Or(err, fs.ErrInvalid))
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("listing mounts: %w", err)
		}
		var v View
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, fmt.Errorf("reading %q: %w", file, err)
		}
		v.Mounted = isMounted(v.Dir)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b View) int { return cmp.Compare(a.Dir, b.Dir) })
	return out, nil
}

func isMounted(dir string) bool {
	mounted, err := mountinfo.Mounted(dir)
	return err == nil && mounted
}

// Hide takes a view away, with what was written to it, and its folder where that is empty. One that is not there is no error.
func (s *Storage) Hide(ctx context.Context, v View) error {
	for isMounted(v.Dir) {
		if err := unix.Unmount(v.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %q: %w", v.Dir, err)
		}
	}
	name := viewName(v.Dir)
	if err := s.Remove(ctx, name); err != nil {
		return err
	}
	_ = os.Remove(v.Dir) // what the user has put there stays
	if err := os.Remove(filepath.Join(s.dir, viewsDir, name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the mount %q: %w", v.Dir, err)
	}
	return nil
}

// Sweep takes away views whose mount is gone, and the layers that nothing needs, and returns how many views those were.
func (s *Storage) Sweep(ctx context.Context) (int, error) {
	views, err := s.Views(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, v := range views {
		if v.Mounted {
			continue
		}
		if err := s.Hide(ctx, v); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
