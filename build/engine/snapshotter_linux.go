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
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
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

func newSnapshotter(name, dir string) (snapshots.Snapshotter, error) {
	if name == nativeSnapshot {
		return native.NewSnapshotter(dir)
	}
	return overlay.NewSnapshotter(dir, overlay.AsynchronousRemove)
}
