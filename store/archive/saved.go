// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// savedList is the list of images in what docker save writes.
// See https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format
const savedList = "manifest.json"

// savedImage is an entry of that list.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func parseSaved(data []byte) ([]savedImage, error) {
	var list []savedImage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", savedList, err)
	}
	return list, nil
}

// savedNames are the names in the list, by the digest of the config.
func (a *Archive) savedNames(data []byte) (map[digest.Digest][]string, error) {
	list, err := parseSaved(data)
	if err != nil {
		return nil, err
	}
	names := map[digest.Digest][]string{}
	for _, s := range list {
		config, err := a.document(s.Config)
		if err != nil {
			return nil, fmt.Errorf("%s: config: %w", savedList, err)
		}
		d := digest.FromBytes(config)
		for _, tag := range s.RepoTags {
			if name := fullName(tag); name != "" {
				names[d] = append(names[d], name)
			}
		}
	}
	return names, nil
}

// saved finds the images of docker save's own format: configs, whose digest is the image's ID, and layers that are tars.
func (a *Archive) saved(data []byte) ([]Image, error) {
	list, err := parseSaved(data)
	if err != nil {
		return nil, err
	}
	var out []Image
	for i, s := range list {
		image, err := a.savedImage(s)
		if err != nil {
			return nil, fmt.Errorf("image %d of %s (%s): %w", i+1, savedList, strings.Join(s.RepoTags, ", "), err)
		}
		named := false
		for _, tag := range s.RepoTags {
			if image.Name = fullName(tag); image.Name != "" {
				named = true
				out = append(out, image)
			}
		}
		if !named {
			image.Name = ""
			out = append(out, image)
		}
	}
	if len(out) == 0 {
		return nil, &FormatError{savedList + " is empty"}
	}
	return out, nil
}

func (a *Archive) savedImage(s savedImage) (Image, error) {
	config, err := a.document(s.Config)
	if err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	d := digest.FromBytes(config)
	// Its name says its digest; older programs wrote other names.
	if id := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimPrefix(strings.TrimSuffix(path.Base(s.Config), ".json"), "sha256:")); id.Validate() == nil && id != d {
		return Image{}, fmt.Errorf("config: %w", &clusterimage.DigestError{Want: id, Got: d})
	}
	image := Image{
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: d, Size: int64(len(config))},
		config: config,
	}
	if image.Platform, err = configPlatform(config); err != nil {
		return Image{}, err
	}
	var parsed ocispec.Image
	if err := json.Unmarshal(config, &parsed); err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	if len(parsed.RootFS.DiffIDs) != len(s.Layers) {
		return Image{}, fmt.Errorf("the config has %d layers and the list %d", len(parsed.RootFS.DiffIDs), len(s.Layers))
	}
	for i, name := range s.Layers {
		if err := parsed.RootFS.DiffIDs[i].Validate(); err != nil {
			return Image{}, fmt.Errorf("layer %d: %q: %w", i+1, parsed.RootFS.DiffIDs[i], err)
		}
		e, err := a.resolve(name)
		if err != nil {
			return Image{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		image.layers = append(image.layers, layer{entry: e.name, diffID: parsed.RootFS.DiffIDs[i]})
	}
	return image, nil
}
