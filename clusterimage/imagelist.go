// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageList is imagelist.json: every packed image of one platform, with all
// its names. It is what sealer reads; annotations are for other tools.
type imageList struct {
	SchemaVersion string      `json:"schemaVersion"`
	Platform      string      `json:"platform"`
	Images        []listImage `json:"images"`
}

type listImage struct {
	Name     string              `json:"name"`
	Manifest ocispec.Descriptor  `json:"manifest"`
	Index    *ocispec.Descriptor `json:"index,omitempty"`
	Size     int64               `json:"size"`
	Origins  []string            `json:"origins,omitempty"`
	App      string              `json:"app,omitempty"`
}

// newImageList makes the document of one platform from images of that platform
// only, sorted already.
func newImageList(platform string, images []PackedImage) imageList {
	list := imageList{SchemaVersion: SchemaVersion, Platform: platform, Images: []listImage{}}
	for _, p := range images {
		li := listImage{Name: p.Name, Manifest: bare(p.Manifest), Size: p.Size, Origins: p.Origins, App: p.App}
		if p.Index != nil {
			idx := bare(*p.Index)
			li.Index = &idx
		}
		list.Images = append(list.Images, li)
	}
	return list
}

func parseImageList(data []byte) (imageList, error) {
	var list imageList
	if err := json.Unmarshal(data, &list); err != nil {
		return imageList{}, fmt.Errorf("reading imagelist.json: %w", err)
	}
	if list.SchemaVersion != SchemaVersion {
		return imageList{}, &SchemaVersionError{Document: "imagelist.json", Version: list.SchemaVersion}
	}
	for _, li := range list.Images {
		if err := checkDescriptor(li.Manifest, IsManifest); err != nil {
			return imageList{}, fmt.Errorf("reading imagelist.json: image %q: %w", li.Name, err)
		}
		if li.Index == nil {
			continue
		}
		if err := checkDescriptor(*li.Index, IsIndex); err != nil {
			return imageList{}, fmt.Errorf("reading imagelist.json: image %q: %w", li.Name, err)
		}
	}
	return list, nil
}

func checkDescriptor(d ocispec.Descriptor, kind func(string) bool) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 || d.Size > maxManifest {
		return fmt.Errorf("%s has a size of %d", d.Digest, d.Size)
	}
	if !kind(d.MediaType) {
		return fmt.Errorf("%s has the media type %q", d.Digest, d.MediaType)
	}
	return nil
}

func (list imageList) packed() []PackedImage {
	out := make([]PackedImage, 0, len(list.Images))
	for _, li := range list.Images {
		out = append(out, PackedImage{
			Name: li.Name, Platform: list.Platform, Manifest: li.Manifest, Index: li.Index,
			Size: li.Size, Origins: li.Origins, App: li.App,
		})
	}
	return out
}

// bare keeps of a descriptor what identifies the bytes.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
