// SPDX-License-Identifier: Apache-2.0

// Package rootfs unpacks the layers of cluster rootfs manifests, each once
// however many images share it, and mounts them writable: what is written goes
// to a layer of its own on top, the image's layers stay as they are.
//
// Layers and mounts are kept by containers/storage (overlay, or plain copies
// where the file system has no overlay). It wants root, and runs its own
// program again to unpack in a changed root: main must call Init first.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/reexec"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

const (
	overlay = "overlay"
	vfs     = "vfs"
)

// Init must come first in main, before flags and anything else. Where it returns true the process was
// started to unpack a layer, has done so, and must return at once.
func Init() bool { return reexec.Init() }

// Options say where a Storage keeps its things.
type Options struct {
	Dir    string       // unpacked layers and what was written on top
	RunDir string       // what is mounted; best on a tmpfs, as below /run
	Driver string       // "overlay" or "vfs"; default: what Dir has already, else overlay where it works, else vfs
	Logger *slog.Logger // default: silent
}

// Storage holds unpacked layers and the mounts on top of them. Several processes may use one Dir at once.
type Storage struct {
	store storage.Store
	dir   string
	log   *slog.Logger
}

// Open opens the storage in o.Dir, and makes it where there is none. The caller closes it.
func Open(o Options) (*Storage, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []*string{&o.Dir, &o.RunDir} {
		abs, err := filepath.Abs(*dir)
		if err == nil {
			err = os.MkdirAll(abs, 0o700)
		}
		if err != nil {
			return nil, fmt.Errorf("opening the rootfs storage in %q: %w", *dir, err)
		}
		*dir = abs
	}
	st, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("opening the rootfs storage in %q: %w", o.Dir, err)
	}
	return &Storage{store: st, dir: o.Dir, log: o.Logger}, nil
}

func open(o Options) (storage.Store, error) {
	driver := o.Driver
	if driver == "" {
		driver = overlay
		if _, err := os.Stat(filepath.Join(o.Dir, vfs+"-layers")); err == nil {
			driver = vfs
		}
	}
	st, err := openWith(o, driver)
	unfit := errors.Is(err, graphdriver.ErrNotSupported) || errors.Is(err, graphdriver.ErrPrerequisites) ||
		errors.Is(err, graphdriver.ErrIncompatibleFS)
	if err == nil || !unfit || o.Driver != "" || driver == vfs {
		return st, err
	}
	if _, statErr := os.Stat(filepath.Join(o.Dir, overlay+"-layers", "layers.json")); statErr == nil {
		return nil, err // it worked once: copies beside it would hide what is there
	}
	o.Logger.Warn("overlay does not work here; copying layers instead", "dir", o.Dir, "error", err)
	return openWith(o, vfs)
}

func openWith(o Options, driver string) (storage.Store, error) {
	opts := types.StoreOptions{GraphRoot: o.Dir, RunRoot: o.RunDir, GraphDriverName: driver}
	if driver == overlay {
		opts.GraphDriverOptions = []string{
			"overlay.sync=filesystem",      // a layer is on disk before it counts as there
			"overlay.skip_mount_home=true", // leave no bind mount behind
		}
	}
	return storage.GetStore(opts)
}

// Close lets go of the storage. Mounts stay.
func (s *Storage) Close() error {
	s.store.Free()
	return nil
}

// Driver is "overlay" or "vfs".
func (s *Storage) Driver() string { return s.store.GraphDriverName() }

// Mount makes the rootfs of a manifest available under a name and returns its path. What it takes from p is verified
// by digest. A name that is mounted already gives the same path; one that was unmounted, or whose mount went with a
// reboot, comes back with what was written to it. A name stands for one manifest: another one is an error.
func (s *Storage) Mount(ctx context.Context, p Provider, manifest ocispec.Descriptor, name string) (_ string, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	image := manifest.Digest.Encoded()
	c, err := s.store.Container(name)
	if errors.Is(err, storage.ErrContainerUnknown) {
		if err = s.addImage(ctx, p, manifest); err != nil {
			return "", fmt.Errorf("unpacking rootfs %s: %w", manifest.Digest, err)
		}
		c, err = s.store.CreateContainer("", []string{name}, image, "", "", nil)
	}
	if err != nil {
		return "", fmt.Errorf("mounting %q: %w", name, err)
	}
	if c.ImageID != image {
		return "", fmt.Errorf("mounting %q: it is in use for sha256:%s, not for %s", name, c.ImageID, manifest.Digest)
	}
	path, err := s.mountpoint(c)
	if err == nil && path == "" {
		path, err = s.store.Mount(c.ID, "")
	}
	if err != nil {
		return "", fmt.Errorf("mounting %q: %w", name, err)
	}
	return path, nil
}

// mountpoint is where a container is mounted now; empty where it is not.
func (s *Storage) mountpoint(c *storage.Container) (string, error) {
	l, err := s.store.Layer(c.LayerID)
	if err != nil || l.MountCount == 0 || l.MountPoint == "" {
		return "", err
	}
	if s.Driver() == vfs {
		return l.MountPoint, nil
	}
	mounted, err := mountinfo.Mounted(l.MountPoint) // after a reboot the count may say otherwise
	if errors.Is(err, fs.ErrNotExist) || err == nil && !mounted {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return l.MountPoint, nil
}

// Unmount unmounts a name; what was written to it stays. A name that is unknown or not mounted is no error.
func (s *Storage) Unmount(ctx context.Context, name string) (err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return s.unmount(name)
}

func (s *Storage) unmount(name string) error {
	c, err := s.store.Container(name)
	if errors.Is(err, storage.ErrContainerUnknown) {
		return nil
	}
	var path string
	if err == nil {
		path, err = s.mountpoint(c)
	}
	if err == nil && path != "" {
		_, err = s.store.Unmount(c.ID, true)
	}
	if err != nil {
		return fmt.Errorf("unmounting %q: %w", name, err)
	}
	return nil
}

// Remove unmounts a name and deletes what was written to it, and the layers that nothing else needs. An unknown name is no error.
func (s *Storage) Remove(ctx context.Context, name string) (err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := s.unmount(name); err != nil {
		return err
	}
	c, err := s.store.Container(name)
	switch {
	case errors.Is(err, storage.ErrContainerUnknown):
	case err != nil:
		return fmt.Errorf("removing %q: %w", name, err)
	default:
		if err := s.store.DeleteContainer(c.ID); err != nil {
			return fmt.Errorf("removing %q: %w", name, err)
		}
	}
	if err := s.sweep(); err != nil {
		return fmt.Errorf("removing %q: unpacked layers: %w", name, err)
	}
	return nil
}

// Names are the names that Mount has made and Remove has not removed, sorted.
func (s *Storage) Names(context.Context) ([]string, error) {
	cs, err := s.store.Containers()
	if err != nil {
		return nil, fmt.Errorf("listing rootfs mounts: %w", err)
	}
	var names []string
	for _, c := range cs {
		names = append(names, c.Names...)
	}
	slices.Sort(names)
	return names, nil
}

// Wipe unmounts everything below Dir and deletes Dir and RunDir. The storage is of no use afterwards.
func (s *Storage) Wipe(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // its file is deleted
	run := s.store.RunRoot()
	s.store.Free()
	// What the kernel has mounted counts, not what a run that was cut wrote down.
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.dir))
	if err != nil {
		return fmt.Errorf("looking for mounts below %q: %w", s.dir, err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, 0); err != nil {
			return fmt.Errorf("unmounting %q: %w", m.Mountpoint, err)
		}
	}
	for _, dir := range []string{s.dir, run} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("deleting the rootfs storage: %w", err)
		}
	}
	return nil
}

// sweep deletes images that no container needs, and layers that nothing needs: those of an
// unpacking that was cut before its image was complete.
func (s *Storage) sweep() error {
	used := map[string]bool{}
	cs, err := s.store.Containers()
	if err != nil {
		return err
	}
	for _, c := range cs {
		used[c.ImageID], used[c.LayerID] = true, true
	}
	images, err := s.store.Images()
	if err != nil {
		return err
	}
	for _, i := range images {
		if used[i.ID] {
			used[i.TopLayer] = true
			continue
		}
		if _, err := s.store.DeleteImage(i.ID, true); err != nil {
			return err
		}
	}
	for {
		layers, err := s.store.Layers()
		if err != nil {
			return err
		}
		parents := map[string]bool{}
		for _, l := range layers {
			parents[l.Parent] = true
		}
		again := false
		for _, l := range layers {
			if used[l.ID] || parents[l.ID] {
				continue
			}
			if err := s.store.DeleteLayer(l.ID); err != nil {
				return err
			}
			again = true
		}
		if !again {
			return nil
		}
	}
}

// lock keeps other processes from changing names and layers meanwhile.
func (s *Storage) lock(ctx context.Context) (unlock func() error, err error) {
	l := flock.New(filepath.Join(s.dir, "sealer.lock"))
	if _, err := l.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for the rootfs storage in %q: %w", s.dir, err)
	}
	return l.Unlock, nil
}

// DigestError is content that is not what its digest says.
type DigestError struct {
	What      string // "layer", "config", "manifest", "content of layer"
	Want, Got digest.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("reading %s %s: it is %s", e.What, e.Want, e.Got)
}

// AbsentError is a document or layer whose blob is not in the store.
type AbsentError struct {
	Digest digest.Digest
	Err    error
}

func (e *AbsentError) Error() string { return fmt.Sprintf("reading %s: %v", e.Digest, e.Err) }
func (e *AbsentError) Unwrap() error { return e.Err }

// Is makes it an fs.ErrNotExist too.
func (e *AbsentError) Is(target error) bool { return target == fs.ErrNotExist }
