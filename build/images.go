// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
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
// turned out to ask for. No image is looked up twice, and none that an archive supplies.
type packer struct {
	o       Options
	in      *inputs
	context fs.FS // of archives; no symbolic link leads out of it

	mu       sync.Mutex
	said     map[string]bool
	found    map[string][]imagelist.Image // by platform, what the rootfs asks registries for
	supplied map[string]supplied          // by name and platform
	archives bool                         // the rootfs names some, or holds them
	clashes  []error
	guessed  map[string]clusterimage.PackedImage
	read     chan struct{} // closed when the guess has read its archives
	done     chan struct{} // closed when the guesses are there
	close    func() error

	denied []policy.Violation // what images left out
}

func newPacker(o Options, in *inputs) (*packer, error) {
	root, err := os.OpenRoot(o.ContextDir)
	if err != nil {
		return nil, fmt.Errorf("opening the build context: %w", err)
	}
	done := make(chan struct{})
	close(done)
	return &packer{
		o: o, in: in, context: root.FS(), close: root.Close, said: map[string]bool{},
		found: map[string][]imagelist.Image{}, supplied: map[string]supplied{}, guessed: map[string]clusterimage.PackedImage{}, read: done, done: done,
	}, nil
}

func imageKey(name, platform string) string { return name + " " + platform }

func requestKey(r registry.ImageRequest) string {
	return imageKey(r.Name, platforms.Format(platforms.Normalize(r.Platform)))
}

// say warns once.
func (p *packer) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	p.mu.Lock()
	again := p.said[line]
	p.said[line] = true
	p.mu.Unlock()
	if !again {
		p.o.Warn(line)
	}
}

// guess starts to fetch. What fails is tried again, and reported, when it turns out to be needed.
func (p *packer) guess(ctx context.Context) {
	images, archives := p.imagesInContext(ctx)
	archives = append(archives, sources(p.in.listed, true, p.context)...)
	reqs, err := p.likely(images)
	reqs, _ = permitted(p.o, reqs)
	if err != nil || len(reqs)+len(archives) == 0 {
		return
	}
	p.read, p.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.done)
		names, ok := p.guessArchives(ctx, archives)
		close(p.read)
		reqs = slices.DeleteFunc(reqs, func(r registry.ImageRequest) bool {
			return names[requestKey(r)] || r.Absent != nil || p.in.locks.obey != nil && r.Digest == ""
		})
		if !ok || len(reqs) == 0 {
			return
		}
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

// likely is what registries will probably be asked for.
func (p *packer) likely(images []imagelist.Image) ([]registry.ImageRequest, error) {
	byPlatform := map[string][]imagelist.Image{}
	for _, pl := range p.o.Platforms {
		byPlatform[platforms.FormatAll(pl)] = slices.Concat(images, fromRegistries(p.in.listed))
	}
	return p.requests(byPlatform)
}

// guessArchives reads the archives that the build probably needs, and returns the names that registries need not be asked
// for; false: one cannot be read, and nobody knows what it holds.
func (p *packer) guessArchives(ctx context.Context, archives []sourced) (map[string]bool, bool) {
	names := map[string]bool{}
	for _, s := range archives {
		for _, pl := range p.o.Platforms {
			got, err := p.supply(ctx, s, pl)
			if err != nil {
				return nil, false
			}
			for _, one := range got {
				names[imageKey(one.image.Name, one.image.Platform)] = true
			}
		}
	}
	return names, true
}

func (p *packer) fetch(ctx context.Context, name string, reqs []registry.ImageRequest) ([]clusterimage.PackedImage, error) {
	task := p.o.Display.Task(name)
	pack := p.o.Registry.PackImages
	if p.o.resolveOnly {
		pack = p.o.Registry.ResolveImages
	}
	packed, err := pack(ctx, p.o.Store, reqs)
	task.Done(err)
	return packed, err
}

func (p *packer) wait() { <-p.done }

// add notes what a platform's rootfs asks for, and reads the archives that it names or holds.
func (p *packer) add(ctx context.Context, platform ocispec.Platform, images []imagelist.Image, rootfs fs.FS) error {
	if p.o.Mode == Lite {
		return nil
	}
	p.mu.Lock()
	p.found[platforms.FormatAll(platform)] = fromRegistries(images)
	p.mu.Unlock()
	list := sources(images, false, p.context, rootfs)
	if len(list) > 0 {
		p.mu.Lock()
		p.archives = true
		p.mu.Unlock()
	}
	for i := range list {
		if list[i].found {
			list[i].files = []fs.FS{rootfs}
		}
	}
	if err := p.readArchives(ctx, list, platform); err != nil || !p.o.resolveOnly {
		return err
	}
	return errLooked
}

func (p *packer) readArchives(ctx context.Context, list []sourced, platform ocispec.Platform) error {
	if len(list) > 0 {
		<-p.read
	}
	var errs []error
	for _, s := range list {
		got, err := p.supply(ctx, s, platform)
		if err != nil {
			errs = append(errs, err)
		}
		for _, one := range got {
			p.take(one)
		}
	}
	return errors.Join(errs...)
}

// take notes an image of an archive. Two archives may hold the same image, but not two images of one name.
func (p *packer) take(one supplied) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := imageKey(one.image.Name, one.image.Platform)
	other, ok := p.supplied[key]
	if !ok {
		p.supplied[key] = one
		return
	}
	if other.image.Manifest.Digest != one.image.Manifest.Digest {
		p.clashes = append(p.clashes, fmt.Errorf("%s for %s is %s in %s and %s in %s", one.image.Name, one.image.Platform,
			other.image.Manifest.Digest, other.source, one.image.Manifest.Digest, one.source))
		return
	}
	other.image.Origins = append(other.image.Origins, one.image.Origins...)
	p.supplied[key] = other
}

// images are the packed images of all platforms, and where those come from that are not from registries.
func (p *packer) images(ctx context.Context) ([]clusterimage.PackedImage, map[string]string, error) {
	p.wait()
	all := map[string][]imagelist.Image{}
	for _, pl := range p.o.Platforms {
		if err := p.readArchives(ctx, sources(p.in.listed, true, p.context), pl); err != nil {
			return nil, nil, err
		}
		id := platforms.FormatAll(pl)
		all[id] = imagelist.Merge(p.found[id], fromRegistries(p.in.listed))
	}
	reqs, err := p.requests(all)
	if err := errors.Join(append(p.clashes, err)...); err != nil {
		return nil, nil, err
	}
	reqs, p.denied = permitted(p.o, reqs)
	var out []clusterimage.PackedImage
	var missing []registry.ImageRequest
	for _, r := range reqs {
		if own, ok := p.supplied[requestKey(r)]; ok {
			own.image.Origins = append(own.image.Origins, r.Origins...)
			own.image.App = cmp.Or(own.image.App, r.App)
			p.supplied[requestKey(r)] = own
			continue
		}
		if have, ok := p.guessed[requestKey(r)]; ok {
			have.Origins, have.App = r.Origins, r.App
			out = append(out, have)
			continue
		}
		missing = append(missing, r)
	}
	if err := p.unlocked(missing); err != nil {
		return nil, nil, err
	}
	if len(missing) > 0 {
		packed, err := p.fetch(ctx, fmt.Sprintf("fetching %d container images", len(missing)), missing)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, slices.DeleteFunc(packed, func(pi clusterimage.PackedImage) bool { return pi.Manifest.Digest == "" })...)
	}
	from := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(p.supplied)) {
		own := p.supplied[key]
		if p.ignored(own.image.Name, own.image.Origins) {
			continue
		}
		from[key] = own.source
		out = append(out, own.image)
	}
	for _, problem := range p.in.ignored.Unused() {
		p.say("%s", problem)
	}
	return out, from, p.verify(out, from)
}

// ignored tells whether an image is not to be packed, and says so.
func (p *packer) ignored(name string, origins []string) bool {
	p.mu.Lock()
	pattern, at := p.in.ignored.Match(name)
	p.mu.Unlock()
	if pattern == "" {
		return false
	}
	p.say("%s (%s) is not packed: %s has the pattern %s", name, strings.Join(origins, ", "), at, pattern)
	return true
}

// absent leaves out what reads like an image and is none, or that nobody has, or of which nobody knows: addresses that are
// none, and registries that refuse to answer, are what a text that is no image leads to.
func (p *packer) absent(r registry.ImageRequest, err error) bool {
	if registry.MayPass(err) {
		return false
	}
	why := ": "
	if !registry.IsAbsent(err) {
		why = "; whether it exists could not be found out: "
	}
	p.leave(r, why, err)
	return true
}

func (p *packer) leave(r registry.ImageRequest, why string, err error) {
	p.say("%s (%s) reads like an image and is not packed%s%v", r.Name, strings.Join(r.Origins, ", "), why, err)
}

// unlocked reports the requests that a lock should know and does not.
func (p *packer) unlocked(reqs []registry.ImageRequest) error {
	if p.in.locks.obey == nil {
		return nil
	}
	var errs []error
	for _, r := range reqs {
		if r.Digest == "" {
			errs = append(errs, &NotLockedError{File: p.o.LockFile(), Name: r.Name, Platform: platforms.Format(r.Platform), Origins: r.Origins})
		}
	}
	return errors.Join(errs...)
}

// verify compares everything with the lock.
func (p *packer) verify(images []clusterimage.PackedImage, from map[string]string) error {
	var errs []error
	for _, pi := range images {
		errs = append(errs, p.in.locks.check(pi, from[imageKey(pi.Name, pi.Platform)], p.o.LockFile()))
	}
	return errors.Join(errs...)
}

// requests turns lists into what is to be fetched: an image without a platform of its own for each that asks for it, one
// with a platform for that one alone.
func (p *packer) requests(lists map[string][]imagelist.Image) ([]registry.ImageRequest, error) {
	var out []registry.ImageRequest
	index := map[string]int{}
	var errs []error
	for _, pl := range p.o.Platforms {
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
			if p.ignored(r.Name, r.Origins) {
				continue
			}
			r.Absent = p.o.gone
			if img.Candidate && !p.in.locks.compares(r.Name, want) {
				r.Absent = p.absent
			}
			if p.in.locks.obey != nil {
				locked, ok := p.in.locks.obey.Image(r.Name, platforms.Format(want))
				if r.Digest = locked.Top(); !ok && img.Candidate {
					p.leave(r, ": ", &NotLockedError{File: p.o.LockFile(), Name: r.Name, Platform: platforms.Format(want)})
					continue
				}
			}
			if _, ok := index[requestKey(r)]; !ok {
				index[requestKey(r)] = len(out)
				out = append(out, r)
			}
		}
	}
	return out, errors.Join(errs...)
}
