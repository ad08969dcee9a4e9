// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"go.etcd.io/bbolt"
)

const (
	overlayfs      = "overlayfs"
	nativeSnapshot = "native"
)

// chooseSnapshotter remembers its answer in the state folder: the test mounts an overlay, and the unmount waits for
// the disk, which takes more than a second after a build that wrote gigabytes.
func chooseSnapshotter(o Options) (string, error) {
	switch o.Snapshotter {
	case overlayfs, nativeSnapshot:
		return o.Snapshotter, nil
	case "":
	default:
		return "", fmt.Errorf("unknown snapshotter %q: overlayfs and native are known", o.Snapshotter)
	}
	memory := filepath.Join(o.Root, "snapshotter")
	switch b, err := os.ReadFile(memory); {
	case err == nil:
		if name := strings.TrimSpace(string(b)); name == overlayfs || name == nativeSnapshot {
			return name, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("reading the chosen snapshotter: %w", err)
	}
	name := overlayfs
	if err := overlayutils.Supported(o.Root); err != nil {
		o.notice("overlayfs does not work in %s (%v): copying files between build steps instead, which is slower", o.Root, err)
		name = nativeSnapshot
	}
	// A torn file is a name that is not known: the next start decides again.
	if err := os.WriteFile(memory, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("remembering the snapshotter: %w", err)
	}
	return name, nil
}

// newSnapshotter opens a snapshotter; unsynced says that its database need not wait for the disk (native's always does).
func newSnapshotter(name, dir string, unsynced bool) (snapshots.Snapshotter, error) {
	if name == nativeSnapshot {
		return native.NewSnapshotter(dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := storage.NewMetaStore(filepath.Join(dir, "metadata.db"), func(o *bbolt.Options) error {
		o.NoSync = unsynced
		return nil
	})
	if err != nil {
		return nil, err
	}
	return overlay.NewSnapshotter(dir, overlay.AsynchronousRemove, overlay.WithMetaStore(db))
}
