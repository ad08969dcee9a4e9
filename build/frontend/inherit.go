// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
)

func versioned() specs.Versioned { return specs.Versioned{SchemaVersion: 2} }

// inherit finds what the base has packed: in its layers, where a frontend made it, else beside it in its index. It
// returns the layers of the base that hold images.
func (p *packer) inherit(ctx context.Context, base *convert.Base) ([]packedImage, []int, error) {
	if base == nil || base.Config.Config.Labels[clusterimage.LabelExtension] == "" {
		return nil, nil, nil
	}
	if label, ok := base.Config.Config.Labels[layout.Label]; ok {
		places, err := layout.ParseLayers(label, len(base.Config.RootFS.DiffIDs))
		if err != nil || len(places) == 0 {
			return nil, nil, err
		}
		images, err := p.fromLayers(ctx, base)
		return images, places, err
	}
	images, err := p.fromIndex(ctx, base)
	return images, nil, err
}

// fromLayers reads the layout in a base's files. All its blobs are there already.
func (p *packer) fromLayers(ctx context.Context, base *convert.Base) ([]packedImage, error) {
	ref, err := p.b.solve(ctx, base.State, true)
	if err != nil {
		return nil, err
	}
	files := newRefFS(ctx, ref)
	data, err := readFile(ctx, ref, "/"+layout.Dir+"/"+ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	have, err := fs.ReadDir(files, layout.Dir+"/"+ocispec.ImageBlobsDir+"/"+digest.Canonical.String())
	if err != nil {
		return nil, err
	}
	for _, e := range have {
		if d := digest.NewDigestFromEncoded(digest.Canonical, e.Name()); d.Validate() == nil {
			p.inBase[d] = true
		}
	}
	read := func(d ocispec.Descriptor) error {
		data, err := readFile(ctx, ref, "/"+layout.BlobPath(d.Digest))
		if err != nil {
			return err
		}
		if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
			return &clusterimage.DigestError{Want: d.Digest, Got: got}
		}
		return put(ctx, p.docs, d.Digest, data)
	}
	return p.lists(ctx, index, read, nil)
}

// fromIndex reads the image lists in the index that a ClusterImage in a registry is.
func (p *packer) fromIndex(ctx context.Context, base *convert.Base) ([]packedImage, error) {
	named, err := reference.ParseNormalizedNamed(base.Name)
	if err != nil {
		return nil, err
	}
	d, err := digest.Parse(base.Digest)
	if err != nil {
		return nil, err
	}
	repository := reference.TrimNamed(named).Name()
	_, data, err := p.b.document(ctx, repository, d)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	if !clusterimage.IsClusterImage(index) {
		p.b.say(ctx, fmt.Sprintf("%s names one platform of a ClusterImage by its manifest: the images that it has packed are not inherited", base.Name))
		return nil, nil
	}
	read := func(d ocispec.Descriptor) error {
		var data []byte
		var err error
		if clusterimage.IsManifest(d.MediaType) {
			_, data, err = p.b.document(ctx, repository, d.Digest)
		} else {
			data, err = p.b.readBlob(ctx, fetched(repository, d.Digest))
		}
		if err != nil {
			return err
		}
		return put(ctx, p.docs, d.Digest, data)
	}
	return p.lists(ctx, index, read, func(d digest.Digest) { p.keep(fetched(repository, d)) })
}

// lists reads the image lists of the platform that is built, with the documents that they name. read brings one blob
// among the documents; layer is told of each layer.
func (p *packer) lists(ctx context.Context, index ocispec.Index, read func(ocispec.Descriptor) error, layer func(digest.Digest)) ([]packedImage, error) {
	var out []packedImage
	match := clusterimage.Matcher(p.target)
	for _, d := range index.Manifests {
		platform, err := platforms.Parse(d.Annotations[clusterimage.AnnotationPlatform])
		if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList || err != nil || !match.Match(platform) {
			continue
		}
		if err := read(d); err != nil {
			return nil, err
		}
		var m ocispec.Manifest
		if err := clusterimage.ReadJSON(ctx, p.docs, d, &m); err != nil {
			return nil, err
		}
		for _, l := range m.Layers {
			if err := read(l); err != nil {
				return nil, err
			}
		}
		for doc, err := range clusterimage.ReadDocuments(ctx, p.docs, d) {
			if err == nil {
				err = p.note(ctx, blob{digest: doc.Digest, data: doc.Data}, doc.Data)
			}
			if err != nil {
				return nil, err
			}
		}
		images, err := clusterimage.ReadImageList(ctx, p.docs, d)
		if err != nil {
			return nil, err
		}
		for _, img := range images {
			one := packedImage{PackedImage: img}
			var m ocispec.Manifest
			if err := clusterimage.ReadJSON(ctx, p.docs, img.Manifest, &m); err != nil {
				return nil, errors.Join(fmt.Errorf("image %s", img.Name), err)
			}
			for _, l := range m.Layers {
				if !clusterimage.Distributable(l) {
					continue
				}
				one.layers = append(one.layers, l.Digest)
				if layer != nil {
					layer(l.Digest)
				}
			}
			out = append(out, one)
		}
	}
	return out, nil
}
