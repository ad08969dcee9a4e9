// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/policy"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
)

func registryPull(p ocispec.Platform) registry.PullOptions {
	return registry.PullOptions{Platforms: []ocispec.Platform{p}}
}

// packer fetches container images beside the solve: first those that the context probably asks for, then what the rootfs
// turned out to ask for. No image is looked up twice.
type packer struct {
	o Options

	mu      sync.Mutex
	found   map[string][]imagelist.Image // by platform, what the rootfs asks for
	guessed map[string]clusterimage.PackedImage
	done    chan struct{} // closed when the guesses are there

	denied []policy.Violation // what images left out
}

func newPacker(o Options) *packer {
	done := make(chan struct{})
	close(done)
	return &packer{o: o, found: map[string][]imagelist.Image{}, guessed: map[string]clusterimage.PackedImage{}, done: done}
}

func requestKey(r registry.ImageRequest) string {
	return r.Name + " " + platforms.FormatAll(r.Platform)
}

// guess starts to fetch. What fails is tried again, and reported, when it turns out to be needed.
func (p *packer) guess(ctx context.Context, in *inputs) {
	reqs, err := p.likely(in)
	reqs, _ = permitted(p.o, reqs)
	if err != nil || len(reqs) == 0 {
		return
	}
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		packed, err := p.fetch(ctx, fmt.Sprintf("fetching %d container images", len(reqs)), reqs)
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, r := range reqs {
			if err == nil && i < len(packed) {
				p.guessed[requestKey(r)] = packed[i]
			}
		}
	}()
}

// likely is what will probably be asked for.
func (p *packer) likely(in *inputs) ([]registry.ImageRequest, error) {
	likely := append(imagesInContext(p.o.ContextDir, in), in.listed...)
	byPlatform := map[string][]imagelist.Image{}
	for _, pl := range p.o.Platforms {
		byPlatform[platforms.FormatAll(pl)] = likely
	}
	return requests(p.o.Platforms, byPlatform)
}

func (p *packer) fetch(ctx context.Context, name string, reqs []registry.ImageRequest) ([]clusterimage.PackedImage, error) {
	task := p.o.Display.Task(name)
	packed, err := p.o.Registry.PackImages(ctx, p.o.Store, reqs)
	task.Done(err)
	return packed, err
}

func (p *packer) wait() { <-p.done }

// add notes what a platform's rootfs asks for.
func (p *packer) add(_ context.Context, platform ocispec.Platform, images []imagelist.Image) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found[platforms.FormatAll(platform)] = images
	return nil
}

// images are the packed images of all platforms.
func (p *packer) images(ctx context.Context, in *inputs) ([]clusterimage.PackedImage, error) {
	p.wait()
	all := map[string][]imagelist.Image{}
	for _, pl := range p.o.Platforms {
		id := platforms.FormatAll(pl)
		all[id] = imagelist.Merge(p.found[id], in.listed)
	}
	reqs, err := requests(p.o.Platforms, all)
	if err != nil {
		return nil, err
	}
	reqs, p.denied = permitted(p.o, reqs)
	out := make([]clusterimage.PackedImage, len(reqs))
	var missing []registry.ImageRequest
	var at []int
	for i, r := range reqs {
		if have, ok := p.guessed[requestKey(r)]; ok {
			have.Origins, have.App = r.Origins, r.App
			out[i] = have
			continue
		}
		missing, at = append(missing, r), append(at, i)
	}
	if len(missing) == 0 {
		return out, nil
	}
	packed, err := p.fetch(ctx, fmt.Sprintf("fetching %d container images", len(missing)), missing)
	if err != nil {
		return nil, err
	}
	for i, pi := range packed {
		out[at[i]] = pi
	}
	return out, nil
}

// requests turns lists into what is to be fetched: an image without a platform of its own for each that asks for it, one
// with a platform for that one alone.
func requests(target []ocispec.Platform, lists map[string][]imagelist.Image) ([]registry.ImageRequest, error) {
	var out []registry.ImageRequest
	index := map[string]int{}
	var errs []error
	for _, pl := range target {
		for _, img := range lists[platforms.FormatAll(pl)] {
			want := pl
			if img.Platform != "" {
				parsed, err := platforms.Parse(img.Platform)
				if err != nil {
					errs = append(errs, fmt.Errorf("image %s: %w", img.Name, err))
					continue
				}
				want = platforms.Normalize(parsed)
			}
			r := registry.ImageRequest{Name: img.Name, Platform: want, App: img.App}
			for _, origin := range img.Origins {
				r.Origins = append(r.Origins, origin.String())
			}
			if _, ok := index[requestKey(r)]; !ok {
				index[requestKey(r)] = len(out)
				out = append(out, r)
			}
		}
	}
	return out, errors.Join(errs...)
}

// imagesInContext is a guess at what the rootfs will ask for: the lists and manifests that COPY lines bring from the
// context. It reads nothing else, and says nothing of what it cannot read.
func imagesInContext(dir string, in *inputs) []imagelist.Image {
	var out []imagelist.Image
	for _, c := range in.contexts {
		for _, source := range c.Sources {
			if strings.ContainsAny(source, "*?[$") || strings.Contains(source, "://") {
				continue
			}
			out = append(out, imagesInSource(filepath.Join(dir, filepath.Join("/", source)), c.Dest)...)
		}
	}
	return imagelist.Merge(out)
}

func imagesInSource(file, dest string) []imagelist.Image {
	info, err := os.Stat(file)
	if err != nil {
		return nil
	}
	dest = path.Join("/", dest)
	switch {
	case info.IsDir() && dest == "/":
		result, err := imagelist.Discover(os.DirFS(file))
		if err != nil {
			return nil
		}
		return result.Images
	case info.IsDir() && dest == "/manifests" && filepath.Base(file) == "manifests":
		result, err := imagelist.Discover(onlyManifests{os.DirFS(filepath.Dir(file))})
		if err != nil {
			return nil
		}
		return result.Images
	case info.Mode().IsRegular() && filepath.Base(file) == "imageList" && info.Size() <= maxTextFile:
		data, err := readText(file)
		if err != nil {
			return nil
		}
		images, err := imagelist.ParseList("imageList", data)
		if err != nil {
			return nil
		}
		return images
	}
	return nil
}

// onlyManifests hides what lies beside the folder manifests.
type onlyManifests struct{ fs.FS }

func (o onlyManifests) Open(name string) (fs.File, error) {
	if name != "manifests" && !strings.HasPrefix(name, "manifests/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return o.FS.Open(name)
}
