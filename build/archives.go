// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/store/archive"
)

// sourced is an image, or all images, to be read from where they lie.
type sourced struct {
	imagelist.Image
	// files are where the path is looked for, in this order.
	files []fs.FS
	// anywhere allows paths outside of files: the command line named the list.
	anywhere bool
	// found: no list asks for the file, it is there. What it is not good for is a warning.
	found bool
}

// supplied is an image that came from an archive.
type supplied struct {
	image  clusterimage.PackedImage
	source string
}

// sources are the images of a list that do not come from registries.
func sources(images []imagelist.Image, anywhere bool, files ...fs.FS) []sourced {
	var out []sourced
	for _, image := range images {
		if image.Source != "" {
			out = append(out, sourced{Image: image, files: files, anywhere: anywhere, found: image.Source == "archive:"+image.Origins[0].File})
		}
	}
	return out
}

// fromRegistries are the others.
func fromRegistries(images []imagelist.Image) []imagelist.Image {
	return slices.DeleteFunc(slices.Clone(images), func(i imagelist.Image) bool { return i.Source != "" })
}

// OutsideError says that a list of the build context names a file outside of it.
type OutsideError struct{ Source, Path string }

func (e *OutsideError) Error() string {
	return fmt.Sprintf("%s: %q is outside of the build context", e.Source, e.Path)
}

// Hint says where it may be named.
func (e *OutsideError) Hint() string {
	return "a list in the context names files of the context; one that --image-list names may name any"
}

// openSource lists what a source holds.
func (p *packer) openSource(ctx context.Context, s sourced) (*archive.Archive, error) {
	src, err := archive.ParseSource(s.Source)
	if err != nil {
		return nil, err
	}
	if src.Transport == "docker-daemon" {
		return archive.OpenDaemon(ctx, os.Getenv("DOCKER_HOST"), src.Path, p.o.Store.Dir())
	}
	files, name := s.files, filepath.ToSlash(filepath.Clean(src.Path))
	if filepath.IsAbs(src.Path) || !filepath.IsLocal(src.Path) {
		if !s.anywhere {
			return nil, &OutsideError{Source: s.Source, Path: src.Path}
		}
		full := src.Path
		if !filepath.IsAbs(full) {
			full = filepath.Join(p.o.ContextDir, full)
		}
		files, name = []fs.FS{os.DirFS(filepath.Dir(full))}, filepath.Base(full)
	}
	fsys, info, err := look(files, name)
	if err != nil {
		return nil, &archive.Error{Source: s.Source, Err: err}
	}
	if info.IsDir() {
		sub, err := fs.Sub(fsys, name)
		if err != nil {
			return nil, &archive.Error{Source: s.Source, Err: err}
		}
		return archive.OpenFolder(ctx, s.Source, src.Ref, sub)
	}
	if !info.Mode().IsRegular() {
		return nil, &archive.Error{Source: s.Source, Err: errors.New("it is no regular file")}
	}
	return archive.OpenFile(ctx, s.Source, src.Ref, func() (io.ReadCloser, error) { return fsys.Open(name) })
}

// look finds the first file system that has a file.
func look(files []fs.FS, name string) (fs.FS, fs.FileInfo, error) {
	err := fs.ErrNotExist
	for _, fsys := range files {
		info, statErr := fs.Stat(fsys, name)
		if statErr == nil {
			return fsys, info, nil
		}
		if !errors.Is(statErr, fs.ErrNotExist) {
			err = statErr
		}
	}
	return nil, nil, err
}

// supply brings the images of a source into the store, as far as they are for a platform.
func (p *packer) supply(ctx context.Context, s sourced, target ocispec.Platform) (_ []supplied, err error) {
	if s.Platform != "" {
		if target, err = platforms.Parse(s.Platform); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Source, err)
		}
	}
	a, err := p.openSource(ctx, s)
	var format *archive.FormatError
	if s.found && errors.As(err, &format) {
		p.say("%s is not packed as images: %v", s.Origins[0].File, format)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Origins[0], err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	images, err := p.choose(a, s, target)
	if err != nil || len(images) == 0 {
		return nil, err
	}
	packed, err := p.importImages(ctx, a, s, images)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Origins[0], err)
	}
	var out []supplied
	for _, pi := range packed {
		pi.Platform, pi.App = platforms.Format(platforms.Normalize(target)), s.App
		for _, origin := range s.Origins {
			pi.Origins = append(pi.Origins, origin.String())
		}
		out = append(out, supplied{image: pi, source: s.Source})
	}
	return out, nil
}

func (p *packer) importImages(ctx context.Context, a *archive.Archive, s sourced, images []archive.Image) ([]clusterimage.PackedImage, error) {
	task := p.o.Display.Task("reading " + s.Source)
	track := task.Track(s.Source, 0)
	packed, err := a.Import(ctx, p.o.Store, images, archive.ImportOptions{Compression: string(p.o.Compression), Advance: track.Advance})
	track.Done(err)
	task.Done(err)
	return packed, err
}

// choose picks the image of every name that fits the platform best. What a list asks for and the archive does not have is
// an error; an archive that was only found may hold other platforms.
func (p *packer) choose(a *archive.Archive, s sourced, target ocispec.Platform) ([]archive.Image, error) {
	if s.Name != "" {
		if err := a.Rename(s.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Origins[0], err)
		}
	}
	var errs []error
	for _, i := range a.Unnamed {
		err := &UnnamedError{Source: s.Source, Config: i.Config.Digest.String()}
		if s.found {
			p.say("%v", err)
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.Origins[0], err))
	}
	match := clusterimage.Matcher(target)
	best, have := map[string]archive.Image{}, map[string][]string{}
	for _, i := range a.Images {
		have[i.Name] = append(have[i.Name], platforms.Format(i.Platform))
		if i.Platform.Architecture != "" && !match.Match(i.Platform) {
			continue
		}
		if other, ok := best[i.Name]; !ok || match.Less(i.Platform, other.Platform) {
			best[i.Name] = i
		}
	}
	var out []archive.Image
	for _, name := range slices.Sorted(maps.Keys(have)) {
		i, ok := best[name]
		switch {
		case ok:
			out = append(out, i)
		case s.found:
			p.say("%s of %s is not packed for %s: it is for %v", name, s.Origins[0].File, platforms.Format(platforms.Normalize(target)), have[name])
		default:
			errs = append(errs, fmt.Errorf("%s: %s: %w", s.Origins[0], s.Source, &clusterimage.PlatformError{
				Image: name, Want: platforms.Format(platforms.Normalize(target)), Have: slices.Compact(slices.Sorted(slices.Values(have[name]))),
			}))
		}
	}
	return out, errors.Join(errs...)
}

// UnnamedError says that an image of an archive has no name.
type UnnamedError struct{ Source, Config string }

func (e *UnnamedError) Error() string {
	return fmt.Sprintf("%s has the image %s without a name: it is not packed", e.Source, e.Config)
}

// Hint says how to name it.
func (e *UnnamedError) Hint() string {
	return "write the name behind it: " + e.Source + "@registry.example.com/team/app:v1"
}
