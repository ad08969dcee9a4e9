// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// image reads a ClusterImage of the host's store by its digest.
func (n *Node) image(ctx context.Context, st *store.Store, d digest.Digest) (*clusterimage.Image, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("finding image %q: %w", d, err)
	}
	info, err := os.Stat(st.BlobPath(d))
	if err != nil {
		return nil, fmt.Errorf("finding image %s: %w", d, err)
	}
	return clusterimage.Read(ctx, st.Content(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: info.Size()})
}

// mountName is the name of a rootfs mount: the image, then the platform.
func mountName(image digest.Digest, platform ocispec.Platform) string {
	return image.Encoded() + "-" + strings.ReplaceAll(platforms.Format(platforms.Normalize(platform)), "/", "-")
}

// Mount unpacks the rootfs of an image for a platform ("" is this host's) as far as it is not, and mounts it writable. The path is the same each time.
func (n *Node) Mount(ctx context.Context, image digest.Digest, platform string) (path string, err error) {
	want := platforms.DefaultSpec()
	if platform != "" {
		if want, err = platforms.Parse(platform); err != nil {
			return "", fmt.Errorf("mounting %s: platform %q: %w", image, platform, err)
		}
	}
	st, err := n.openStore()
	if err != nil {
		return "", err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	img, err := n.image(ctx, st, image)
	if err != nil {
		return "", err
	}
	chosen, err := img.Platform(want)
	if err != nil {
		return "", err
	}
	fs, err := n.openRootfs()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	return fs.Mount(ctx, st.Content(), chosen.Descriptor, mountName(image, chosen.Platform))
}

// Unmount unmounts the rootfs of an image, all platforms; with remove it also deletes what was written to it and what was unpacked for it alone.
func (n *Node) Unmount(ctx context.Context, image digest.Digest, remove bool) (err error) {
	if err := image.Validate(); err != nil {
		return fmt.Errorf("unmounting %q: %w", image, err)
	}
	if _, err := os.Stat(n.rootfsDir()); os.IsNotExist(err) {
		return nil
	}
	fs, err := n.openRootfs()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	names, err := fs.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, image.Encoded()+"-") {
			continue
		}
		if remove {
			err = fs.Remove(ctx, name)
		} else {
			err = fs.Unmount(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
