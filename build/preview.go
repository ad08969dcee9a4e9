// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/kubefile"
)

// Preview is what a build for one platform would pack, as far as that is known without building.
type Preview struct {
	Platform  ocispec.Platform
	Images    []imagelist.Image          // that the Kubefile's files and --image-list ask for
	Ignored   []IgnoredImage             // that they ask for, and --ignored-image-list leaves out
	Inherited []clusterimage.PackedImage // that only the base packs
	Problems  []imagelist.Problem
	Unseen    []Unseen // what may ask for more
}

// IgnoredImage is an image that is not packed, and the pattern that says so.
type IgnoredImage struct {
	imagelist.Image
	Pattern string
	At      imagelist.Origin // of the pattern
}

// PreviewImages looks for the images that a build would pack, once for each platform, without building and without a
// network: in the files that COPY, ADD and APP lines bring from the context, and in the base, if the store has it.
func PreviewImages(ctx context.Context, o Options) ([]Preview, error) {
	o.Tag = "preview" // nothing gets it
	if err := o.complete(); err != nil {
		return nil, err
	}
	in, err := readInputs(o)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(o.ContextDir) // links do not lead out of it
	if err != nil {
		return nil, fmt.Errorf("opening the build context: %w", err)
	}
	defer func() { _ = root.Close() }()
	var previews []Preview
	for _, p := range o.Platforms {
		scope, err := kubefile.NewScope(in.file, kubefile.ScopeOptions{BuildArgs: o.BuildArgs, Target: p, Build: buildPlatform()})
		if err != nil {
			return nil, err
		}
		s, err := newSketcher(in, scope, root.FS())
		if err != nil {
			return nil, err
		}
		one, err := s.preview(ctx, o, in, p)
		if err != nil {
			return nil, err
		}
		previews = append(previews, one)
	}
	return previews, nil
}

func (s *sketcher) preview(ctx context.Context, o Options, in *inputs, p ocispec.Platform) (Preview, error) {
	last, err := s.stage(len(s.file.Stages) - 1)
	if err != nil {
		return Preview{}, err
	}
	out := Preview{Platform: p}
	options := o.discovery()
	if err := s.base(ctx, o, in, &out, &options); err != nil {
		return Preview{}, err
	}
	found, err := imagelist.Discover(ctx, last.files, options...)
	if err != nil {
		return Preview{}, err
	}
	out.Images, out.Ignored = sift(in.ignored, imagelist.Merge(found.Images, in.listed))
	out.Problems, out.Unseen = found.Problems, s.unseen
	packs := func(i clusterimage.PackedImage) bool {
		return slices.ContainsFunc(out.Images, func(have imagelist.Image) bool { return have.Name == i.Name })
	}
	out.Inherited = slices.DeleteFunc(out.Inherited, packs)
	return out, nil
}

// sift takes out what is not packed.
func sift(ignored *imagelist.Ignored, images []imagelist.Image) (packed []imagelist.Image, out []IgnoredImage) {
	for _, image := range images {
		if pattern, at := ignored.Match(image.Name); pattern != "" {
			out = append(out, IgnoredImage{image, pattern, at})
			continue
		}
		packed = append(packed, image)
	}
	return packed, out
}

// base looks into the image at the bottom of the target stage.
func (s *sketcher) base(ctx context.Context, o Options, in *inputs, out *Preview, options *[]imagelist.Option) error {
	id := platforms.FormatAll(out.Platform)
	name := in.roots[id]
	if name == "" {
		return nil
	}
	line := 1
	for _, w := range in.bases[id] {
		if w.name == name {
			line = w.line
		}
	}
	found, err := findBase(ctx, o.Store, name, out.Platform)
	missing := (*incompleteError)(nil)
	other := (*clusterimage.PlatformError)(nil)
	switch {
	case errdefs.IsNotFound(err) || errors.As(err, &missing) || errors.As(err, &other):
		s.missing(line, "what %s packs is not known: it is not in the store for %s", name, id)
		return nil
	case err != nil:
		return err
	case found.image == nil:
		s.missing(line, "the files of %s are not looked into", name)
		return nil
	}
	match := clusterimage.Matcher(out.Platform)
	for _, image := range found.image.Images {
		if p, err := platforms.Parse(image.Platform); err == nil && match.Match(p) {
			out.Inherited = append(out.Inherited, image)
		}
	}
	if rootfs, err := found.image.Platform(out.Platform); err == nil && o.KubeVersion == "" {
		if version := rootfs.Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion]; imagelist.CheckKubeVersion(version) == nil {
			*options = append(*options, imagelist.WithKubeVersion(version))
		}
	}
	return nil
}
