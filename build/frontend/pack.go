// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
	"github.com/sealerio/sealer/imagelist"
)

const (
	lookups = 8 // at a time
	// maxGroups bounds how many layers the packed images become, one for each image where there are fewer: tools that
	// load an image into a daemon take 127 layers.
	maxGroups = 64
)

// packer puts the images of one platform into layers: what a caller in the same process does with a store, a gateway
// image has to do with file systems.
type packer struct {
	b      *builder
	target ocispec.Platform
	at     time.Time

	mu     sync.Mutex
	docs   contentutil.Buffer // manifests, configs, indexes
	blobs  map[digest.Digest]blob
	inBase map[digest.Digest]bool // blobs that the base's layers have
}

// pack returns the layers with the images, and the label that says so. images are what the rootfs asks for; those that
// base has packed are added.
func (b *builder) pack(ctx context.Context, base *convert.Base, images []imagelist.Image, target ocispec.Platform, at time.Time) ([]llb.State, string, error) {
	images, err := b.fromRegistries(ctx, images)
	if err != nil {
		return nil, "", err
	}
	p := &packer{b: b, target: target, at: at, docs: contentutil.NewBuffer(), blobs: map[digest.Digest]blob{}, inBase: map[digest.Digest]bool{}}
	inherited, baseLayers, err := p.inherit(ctx, base)
	if err != nil {
		return nil, "", fmt.Errorf("reading the images that %s has packed: %w", base.Name, err)
	}
	if len(images)+len(inherited) == 0 {
		return nil, "", nil
	}
	if err := b.canFetchBlobs(); err != nil {
		return nil, "", err
	}
	packed, groups, err := p.lookup(ctx, images)
	if err != nil {
		return nil, "", err
	}
	for _, i := range inherited {
		same := func(have packedImage) bool { return have.Name == i.Name && have.Platform == i.Platform }
		if !slices.ContainsFunc(packed, same) {
			packed, groups = append(packed, i), append(groups, i.layers)
		}
	}
	all := make([]clusterimage.PackedImage, len(packed))
	for i, one := range packed {
		all[i] = one.PackedImage
	}
	entries, _, err := clusterimage.ComposeImages(ctx, p.docs, all)
	if err != nil {
		return nil, "", err
	}
	first, err := p.documentsLayer(ctx, entries)
	if err != nil {
		return nil, "", err
	}
	layers := append([]llb.State{first}, p.imageLayers(groups)...)
	places := baseLayers
	for i := range layers {
		places = append(places, i-len(layers))
	}
	return layers, layout.FormatLayers(places), nil
}

// packedImage is an image with the layers that it needs.
type packedImage struct {
	clusterimage.PackedImage
	layers []digest.Digest
}

// lookup resolves every image, and says which layers each of them has.
func (p *packer) lookup(ctx context.Context, images []imagelist.Image) ([]packedImage, [][]digest.Digest, error) {
	out := make([]packedImage, len(images))
	groups := make([][]digest.Digest, len(images))
	failed := make([]error, len(images))
	var g errgroup.Group
	g.SetLimit(lookups)
	for i, img := range images {
		g.Go(func() error {
			one, err := p.image(ctx, img)
			if err != nil && img.Candidate && ctx.Err() == nil {
				p.b.say(ctx, fmt.Sprintf("%s (%s) reads like an image and is not packed: %v", img.Name, img.Origins[0], err))
				return nil
			}
			if err != nil {
				failed[i] = fmt.Errorf("image %s (%s): %w", img.Name, img.Origins[0], err)
				return nil
			}
			out[i], groups[i] = one, one.layers
			return nil
		})
	}
	_ = g.Wait() // failures are in failed
	if err := errors.Join(failed...); err != nil {
		return nil, nil, err
	}
	var packed []packedImage
	var layers [][]digest.Digest
	for i := range out {
		if out[i].Manifest.Digest != "" { // else it is a candidate that does not exist
			packed, layers = append(packed, out[i]), append(layers, groups[i])
		}
	}
	return packed, layers, nil
}

func (p *packer) image(ctx context.Context, img imagelist.Image) (packedImage, error) {
	want := p.target
	if img.Platform != "" {
		parsed, err := platforms.Parse(img.Platform)
		if err != nil {
			return packedImage{}, err
		}
		want = platforms.Normalize(parsed)
	}
	named, err := reference.ParseNormalizedNamed(img.Name)
	if err != nil {
		return packedImage{}, err
	}
	repository := reference.TrimNamed(named).Name()
	id := img.Name
	if digested, ok := named.(reference.Digested); ok {
		id = repository + "@" + digested.Digest().String()
	}
	_, top, _, err := p.b.gateway.ResolveImageConfig(ctx, id, sourceresolver.Opt{
		LogName:  "[images] resolve " + img.Name,
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &want, ResolveMode: p.b.ui.ImageResolveMode.String()},
	})
	if err != nil {
		return packedImage{}, err
	}
	out := packedImage{PackedImage: clusterimage.PackedImage{Name: img.Name, Platform: platforms.Format(want), App: img.App}}
	for _, o := range img.Origins {
		out.Origins = append(out.Origins, o.String())
	}
	desc, data, err := p.fetch(ctx, repository, top)
	if err != nil {
		return out, err
	}
	if clusterimage.IsIndex(desc.MediaType) {
		index := desc
		out.Index = &index
		var list ocispec.Index
		if err := json.Unmarshal(data, &list); err != nil {
			return out, fmt.Errorf("reading %s: %w", top, err)
		}
		entry, err := choose(list, want, img.Name)
		if err != nil {
			return out, err
		}
		if desc, data, err = p.fetch(ctx, repository, entry.Digest); err != nil {
			return out, err
		}
	}
	if !clusterimage.IsManifest(desc.MediaType) {
		return out, fmt.Errorf("%s is of the type %q, which sealer does not pack", desc.Digest, desc.MediaType)
	}
	out.Manifest = desc
	return out, p.manifest(ctx, repository, data, &out)
}

// manifest notes what a manifest names.
func (p *packer) manifest(ctx context.Context, repository string, data []byte, out *packedImage) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("reading %s: %w", out.Manifest.Digest, err)
	}
	config := fetched(repository, m.Config.Digest)
	text, err := p.b.readBlob(ctx, config)
	if err == nil {
		err = p.note(ctx, config, text)
	}
	if err != nil {
		return fmt.Errorf("reading the config %s: %w", m.Config.Digest, err)
	}
	out.Size = out.Manifest.Size + m.Config.Size
	for _, l := range m.Layers {
		if !clusterimage.Distributable(l) {
			continue
		}
		if err := l.Digest.Validate(); err != nil {
			return fmt.Errorf("reading %s: %w", out.Manifest.Digest, err)
		}
		out.Size += l.Size
		out.layers = append(out.layers, l.Digest)
		p.keep(fetched(repository, l.Digest))
	}
	return nil
}

// fetch brings a manifest or an index among the documents.
func (p *packer) fetch(ctx context.Context, repository string, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	doc, data, err := p.b.document(ctx, repository, d)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	mediaType, err := mediaTypeOf(data)
	if err != nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("reading %s: %w", d, err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, data, p.note(ctx, doc, data)
}

// note keeps a document: its blob for the layout, its bytes for the image list.
func (p *packer) note(ctx context.Context, doc blob, data []byte) error {
	p.keep(doc)
	return put(ctx, p.docs, doc.digest, data)
}

func put(ctx context.Context, cs content.Ingester, d digest.Digest, data []byte) error {
	w, err := content.OpenWriter(ctx, cs, content.WithRef(d.String()), content.WithDescriptor(ocispec.Descriptor{Digest: d, Size: int64(len(data))}))
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit(ctx, int64(len(data)), d)
}

func (p *packer) keep(one blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.blobs[one.digest]; !ok {
		p.blobs[one.digest] = one
	}
}

// choose finds a platform in an index.
func choose(index ocispec.Index, want ocispec.Platform, name string) (ocispec.Descriptor, error) {
	match := clusterimage.Matcher(want)
	var best *ocispec.Descriptor
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" || !clusterimage.IsManifest(d.MediaType) {
			continue
		}
		have = append(have, platforms.Format(platforms.Normalize(*d.Platform)))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &d
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, &clusterimage.PlatformError{Image: name, Want: platforms.Format(want), Have: have}
	}
	return *best, best.Digest.Validate()
}

// documentsLayer is the layer with the layout's index and all documents.
func (p *packer) documentsLayer(ctx context.Context, entries []ocispec.Descriptor) (llb.State, error) {
	index, err := json.Marshal(ocispec.Index{Versioned: versioned(), MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
	if err != nil {
		return llb.State{}, err
	}
	// What was composed here is among the documents, and no blob of any registry.
	for _, d := range entries {
		if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
			continue
		}
		var m ocispec.Manifest
		if err := clusterimage.ReadJSON(ctx, p.docs, d, &m); err != nil {
			return llb.State{}, err
		}
		for _, one := range append([]ocispec.Descriptor{d, m.Config}, m.Layers...) {
			data, err := content.ReadBlob(ctx, p.docs, one)
			if err != nil {
				return llb.State{}, err
			}
			p.keep(blob{digest: one.Digest, data: data})
		}
	}
	var here []blob
	for d, one := range p.blobs {
		if _, err := p.docs.Info(ctx, d); err == nil && !p.inBase[d] {
			here = append(here, one)
		}
	}
	created := llb.WithCreatedTime(p.at)
	dir := "/" + layout.Dir
	action := p.folders().
		Mkfile(dir+"/"+ocispec.ImageLayoutFile, 0o644, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`), created).
		Mkfile(dir+"/"+ocispec.ImageIndexFile, 0o644, index, created)
	return llb.Scratch().File(p.place(action, here), llb.WithCustomName("[images] listing the packed images"), llb.Platform(p.target)), nil
}

// folders begins every layer: the same folders in each of them.
func (p *packer) folders() *llb.FileAction {
	return llb.Mkdir("/"+layout.Dir+"/"+ocispec.ImageBlobsDir+"/"+digest.Canonical.String(), 0o755, llb.WithParents(true), llb.WithCreatedTime(p.at))
}

// place puts blobs at their places, in the order of their digests.
func (p *packer) place(action *llb.FileAction, blobs []blob) *llb.FileAction {
	slices.SortFunc(blobs, func(a, b blob) int { return cmp.Compare(a.digest, b.digest) })
	for _, one := range blobs {
		path := "/" + layout.BlobPath(one.digest)
		if one.data != nil {
			action = action.Mkfile(path, 0o644, one.data, llb.WithCreatedTime(p.at))
			continue
		}
		action = action.Copy(one.state, "/"+one.digest.Encoded(), path, &llb.CopyInfo{CreateDestPath: true, CreatedTime: &p.at})
	}
	return action
}

// imageLayers are the layers with the images' own layers: each blob once, those of an image together.
func (p *packer) imageLayers(groups [][]digest.Digest) []llb.State {
	seen := map[digest.Digest]bool{}
	var sets [][]blob
	for _, group := range groups {
		var set []blob
		for _, d := range group {
			if !seen[d] && !p.inBase[d] {
				seen[d] = true
				set = append(set, p.blobs[d])
			}
		}
		if len(set) > 0 {
			sets = append(sets, set)
		}
	}
	var out []llb.State
	per := (len(sets) + maxGroups - 1) / maxGroups
	for some := range slices.Chunk(sets, max(per, 1)) {
		set := slices.Concat(some...)
		out = append(out, llb.Scratch().File(p.place(p.folders(), set),
			llb.WithCustomName(fmt.Sprintf("[images] packing %d layers", len(set))), llb.Platform(p.target)))
	}
	return out
}
