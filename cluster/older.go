// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// marker stands in the shared script of sealer's own base images, scripts/lib.sh.
const marker = "STATE=/var/lib/sealer/"

// maxScript bounds how much of that script is read, in bytes.
const maxScript = 64 << 10

// describeOlder tells the cluster what the image of an older tool, or one that was built upon it, holds: its container
// images, which are in no list of ours, and the programs for hosts. It reads the layers of one rootfs.
func describeOlder(ctx context.Context, c *runtime.Cluster, o RunOptions) error {
	for _, r := range o.Image.Rootfs {
		registry := r.Extension.RegistryTree
		if r.Absent || registry == nil {
			continue
		}
		images := registry.Images
		if len(images) == 0 {
			var err error
			if images, err = clusterimage.ReadTree(ctx, o.Content, r.Manifest.Layers); err != nil {
				return fmt.Errorf("reading the image %q: %w", o.ImageName, err)
			}
		}
		for _, i := range images {
			name := i.Name
			if name == "" {
				// The folder is served for every domain, this one included, which is kubeadm's.
				name = "registry.k8s.io/" + i.Path
			}
			c.Images = append(c.Images, name)
		}
		c.Older = &runtime.Older{Tool: registry.Tool, Programs: map[string]bool{}}
		for _, l := range r.Manifest.Layers {
			err := clusterimage.WalkLayer(ctx, o.Content, l, func(f clusterimage.LayerFile) error { return olderFile(c.Older, f) })
			if err != nil {
				return fmt.Errorf("reading layer %s of the image %q: %w", l.Digest, o.ImageName, err)
			}
		}
		return nil
	}
	return nil
}

func olderFile(older *runtime.Older, f clusterimage.LayerFile) error {
	dir, name := path.Split(f.Path)
	if f.Whiteout || f.Header.Typeflag == tar.TypeDir {
		return nil
	}
	switch {
	case f.Path == "scripts/lib.sh":
		text, err := io.ReadAll(io.LimitReader(f.Content, maxScript))
		older.Prepared = bytes.Contains(text, []byte(marker))
		return err
	case dir != "bin/" && dir != "cri/" && dir != "tgz/":
		return nil
	case strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz"):
		programsIn(older, f.Content)
	default:
		older.Programs[name] = true
	}
	return nil
}

// programsIn lists an archive. One that cannot be read holds nothing that could be used.
func programsIn(older *runtime.Older, r io.Reader) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return
	}
	tr := tar.NewReader(z)
	for {
		hdr, err := tr.Next()
		if err != nil {
			return
		}
		if hdr.Typeflag == tar.TypeReg {
			older.Programs[path.Base(hdr.Name)] = true
		}
	}
}

// adopt puts the distribution's own files in place of an older tool's.
func (r *run) adopt(h *runtime.Host) []runtime.Step {
	adopter, ok := r.distribution.(runtime.Adopter)
	if !ok || r.cluster.Older == nil || r.cluster.Older.Prepared {
		return nil
	}
	return adopter.Adopt(r.cluster, h)
}

// OlderError is an image of an older tool for a distribution that cannot be installed from it.
type OlderError struct{ Image, Tool, Distribution string }

func (e *OlderError) Error() string {
	return fmt.Sprintf("the image %q is one of %s: its own scripts are not run, and for %s sealer has no others to put in their place", e.Image, e.Tool, e.Distribution)
}

// Hint says what can be done.
func (e *OlderError) Hint() string {
	return "build an image FROM it, with the scripts of sealer's own base image for this distribution: COPY etc etc, COPY scripts scripts"
}

// checkOlder refuses what cannot be adopted.
func (r *run) checkOlder() error {
	older := r.cluster.Older
	if older == nil || older.Prepared {
		return nil
	}
	if _, ok := r.distribution.(runtime.Adopter); ok {
		return nil
	}
	return &OlderError{Image: r.ImageName, Tool: older.Tool, Distribution: r.distribution.Name()}
}
