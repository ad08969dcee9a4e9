// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// base is an image that FROM or COPY --from names, in the store.
type base struct {
	top      ocispec.Descriptor // what the name stands for
	manifest ocispec.Descriptor // of one platform
	blobs    []ocispec.Descriptor
	image    *clusterimage.Image // nil: another kind of image
}

// bases by platform and name.
type bases map[string]map[string]base

// resolveBases brings every image that the build starts from into the store: what is there is taken as it is, the rest
// is pulled. BuildKit then finds all of them without a network of its own.
func resolveBases(ctx context.Context, o Options, in *inputs) (bases, error) {
	out := bases{}
	for _, id := range slices.Sorted(maps.Keys(in.bases)) {
		out[id] = map[string]base{}
		for _, w := range in.bases[id] {
			b, err := resolveBase(ctx, o, in.locks, w.name, w.platform)
			if err != nil {
				return nil, convert.At(in.file, w.line, err)
			}
			out[id][w.name] = b
		}
	}
	return out, nil
}

// resolveBase finds one image, the one that the lock says where there is one, and notes what its name stands for.
func resolveBase(ctx context.Context, o Options, locks *locking, name string, p ocispec.Platform) (base, error) {
	pinned, err := locks.base(name, p, o.LockFile())
	if err != nil {
		return base{}, err
	}
	b, err := fetchBase(ctx, o, pinned, p)
	if err == nil {
		locks.note(name, p, b.top.Digest)
	}
	return b, err
}

func fetchBase(ctx context.Context, o Options, name string, p ocispec.Platform) (base, error) {
	if o.Pull != Always || o.Locked {
		b, err := findBase(ctx, o.Store, name, p)
		if err == nil {
			return b, nil
		}
		var missing *incompleteError
		var other *clusterimage.PlatformError
		if !errdefs.IsNotFound(err) && !errors.As(err, &missing) && !errors.As(err, &other) || o.Pull == Never {
			return base{}, err
		}
	}
	task := o.Display.Task(fmt.Sprintf("pulling %s for %s", name, platforms.FormatAll(p)))
	_, err := o.Registry.Pull(ctx, o.Store, name, registryPull(p))
	task.Done(err)
	if err != nil {
		return base{}, err
	}
	return findBase(ctx, o.Store, name, p)
}

// incompleteError says that the store has an image, but not all of it.
type incompleteError struct{ name string }

func (e *incompleteError) Error() string {
	return fmt.Sprintf("%s is not complete in the store", e.name)
}

// findBase looks for an image in the store, with everything that one platform of it needs.
func findBase(ctx context.Context, st *store.Store, name string, p ocispec.Platform) (base, error) {
	tagged, err := st.Resolve(ctx, name)
	if err != nil {
		return base{}, err
	}
	b := base{top: tagged.Descriptor}
	cs := st.Content()
	img, err := clusterimage.Read(ctx, cs, tagged.Descriptor)
	switch {
	case err == nil:
		b.image = img
		rootfs, err := img.Platform(p)
		if err != nil {
			return base{}, err
		}
		if rootfs.Absent {
			return base{}, &incompleteError{name}
		}
		b.manifest = rootfs.Descriptor
		all, err := img.Descriptors(ctx, cs, []ocispec.Platform{rootfs.Platform})
		if err != nil {
			return base{}, incomplete(name, err)
		}
		if !complete(st, all) {
			return base{}, &incompleteError{name}
		}
		if img.Older != "" {
			// Its registry's folder comes with its layers, and what it says of itself with a config in our words.
			if b.manifest, err = clusterimage.Adopt(ctx, cs, rootfs); err != nil {
				return base{}, err
			}
		}
	case errors.Is(err, clusterimage.ErrNotClusterImage):
		if b.manifest, err = chooseManifest(ctx, st, name, tagged.Descriptor, p); err != nil {
			return base{}, incomplete(name, err)
		}
	default:
		return base{}, incomplete(name, err)
	}
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, cs, b.manifest, &m); err != nil {
		return base{}, incomplete(name, err)
	}
	b.blobs = append([]ocispec.Descriptor{b.manifest, m.Config}, m.Layers...)
	if !complete(st, b.blobs) {
		return base{}, &incompleteError{name}
	}
	return b, nil
}

func incomplete(name string, err error) error {
	if errdefs.IsNotFound(err) {
		return &incompleteError{name}
	}
	return err
}

func complete(st *store.Store, blobs []ocispec.Descriptor) bool {
	for _, d := range blobs {
		if info, err := os.Stat(st.BlobPath(d.Digest)); err != nil || info.Size() != d.Size {
			return false
		}
	}
	return true
}

// chooseManifest finds a platform in an ordinary image.
func chooseManifest(ctx context.Context, st *store.Store, name string, desc ocispec.Descriptor, p ocispec.Platform) (ocispec.Descriptor, error) {
	if !clusterimage.IsIndex(desc.MediaType) {
		return desc, nil
	}
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, st.Content(), desc, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	match := clusterimage.Matcher(p)
	var best *ocispec.Descriptor
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" {
			continue
		}
		have = append(have, platforms.FormatAll(*d.Platform))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &d
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, &clusterimage.PlatformError{Image: name, Want: platforms.FormatAll(p), Have: have}
	}
	return *best, nil
}

// images are the packed images of the ClusterImages that the target stage starts from.
func (b bases) images(in *inputs) []clusterimage.PackedImage {
	var out []clusterimage.PackedImage
	for _, id := range slices.Sorted(maps.Keys(in.roots)) {
		p, err := platforms.Parse(id)
		if err != nil {
			continue
		}
		from := b.find(in.roots[id], id)
		if from.image == nil {
			continue
		}
		match := clusterimage.Matcher(p)
		for _, pi := range from.image.Images {
			if ip, err := platforms.Parse(pi.Platform); err == nil && match.Match(ip) {
				out = append(out, pi)
			}
		}
	}
	return out
}

func (b bases) find(name, platform string) base {
	if found, ok := b[platform][name]; ok {
		return found
	}
	for _, byName := range b { // FROM --platform: of another
		if found, ok := byName[name]; ok {
			return found
		}
	}
	return base{}
}

// inherit adds what a base has packed and nothing new replaces.
func inherit(images, inherited []clusterimage.PackedImage) []clusterimage.PackedImage {
	out := slices.Clone(images)
	for _, pi := range inherited {
		same := func(have clusterimage.PackedImage) bool { return have.Name == pi.Name && have.Platform == pi.Platform }
		if !slices.ContainsFunc(out, same) {
			out = append(out, pi)
		}
	}
	return out
}
