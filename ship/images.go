// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
)

// imageEntry is an image that an archive promises.
type imageEntry struct {
	name string
	desc ocispec.Descriptor
	// platforms are those that the archive has; nil: all, or nobody knows.
	platforms []ocispec.Platform
	// whole is set where all platforms (or those above) were promised.
	whole bool
}

// parseIndexFile reads index.json. contents is nil for archives of others.
func parseIndexFile(data []byte, contents *Contents) ([]imageEntry, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	var images []imageEntry
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("entry %q: %w", d.Digest, err)
		}
		if !clusterimage.IsIndex(d.MediaType) && !clusterimage.IsManifest(d.MediaType) {
			continue // Docker and others keep attestations and signatures here, too
		}
		e := imageEntry{desc: d, name: cmp.Or(d.Annotations[annotationContainerdName], d.Annotations[ocispec.AnnotationRefName])}
		e.desc.Annotations = maps.Clone(d.Annotations)
		for _, key := range []string{annotationContainerdName, ocispec.AnnotationRefName, ocispec.AnnotationCreated} {
			delete(e.desc.Annotations, key)
		}
		if m := contents.member(d.Digest); m != nil {
			e.whole = true
			for _, text := range m.Platforms {
				p, err := platforms.Parse(text)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", ContentsFile, err)
				}
				e.platforms = append(e.platforms, p)
			}
		}
		images = append(images, e)
	}
	if len(images) == 0 {
		return nil, errors.New("it names no image")
	}
	return images, nil
}

// checkBase looks for the blobs that the archive leaves out.
func (l *loader) checkBase(ctx context.Context, c *Contents) error {
	missing, err := Missing(ctx, l.st, c.Missing)
	if err != nil || len(missing) == 0 {
		return err
	}
	e := &BaseError{Archive: l.name, Since: c.Since, Blobs: len(missing), First: missing[0].Digest}
	for _, m := range missing {
		e.Bytes += m.Size
	}
	return e
}

// tag names the images of the archive, once it is sure that all are whole.
func (l *loader) tag(ctx context.Context, images []imageEntry) (Result, error) {
	if err := l.rename(images); err != nil {
		return Result{}, err
	}
	var res Result
	for i := range images {
		name, err := l.imageName(images[i])
		if err != nil {
			return Result{}, err
		}
		images[i].name = name
		have, err := l.complete(ctx, images[i])
		if err != nil {
			return Result{}, err
		}
		res.Images = append(res.Images, Loaded{Name: name, Digest: images[i].desc.Digest, Platforms: have})
	}
	for i, img := range images {
		desc := img.desc
		if len(desc.Annotations) == 0 {
			desc.Annotations = nil
		}
		// What a BuildKit frontend made becomes a ClusterImage, as in a pull.
		desc, adopted, err := layout.Adopt(ctx, l.st.Content(), desc)
		if err != nil {
			return Result{}, fmt.Errorf("loading %q: %w", l.name, err)
		}
		if adopted {
			res.Images[i].Digest = desc.Digest
		}
		if index, err := clusterimage.ReadIndex(ctx, l.st.Content(), desc); err == nil && clusterimage.IsClusterImage(index) {
			desc.ArtifactType = clusterimage.ArtifactType
		}
		if err := l.st.Tag(ctx, img.name, desc); err != nil {
			return Result{}, fmt.Errorf("loading %q: %w", l.name, err)
		}
		res.Images[i].Name = img.name
	}
	res.Read, res.Skipped = l.read.Load(), l.skipped.Load()
	return res, nil
}

// rename gives the images the name that the user chose. Several, which have tags alone, keep those behind it.
func (l *loader) rename(images []imageEntry) error {
	if l.o.Name == "" {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(l.o.Name)
	if err != nil {
		return fmt.Errorf("loading %q: reading the image name %q: %w", l.name, l.o.Name, err)
	}
	if len(images) == 1 {
		images[0].name = reference.TagNameOnly(named).String()
		return nil
	}
	for i := range images {
		tagged, err := reference.WithTag(named, images[i].name)
		if err != nil || !reference.IsNameOnly(named) {
			e := &SeveralError{Archive: l.name}
			for _, img := range images {
				e.Images = append(e.Images, cmp.Or(img.name, img.desc.Digest.String()))
			}
			return e
		}
		images[i].name = tagged.String()
	}
	return nil
}

// imageName is the full name; skopeo and others may write a tag alone.
func (l *loader) imageName(img imageEntry) (string, error) {
	if !strings.ContainsAny(img.name, "/:") {
		return "", &NamelessError{Archive: l.name, Digest: img.desc.Digest, Found: img.name}
	}
	named, err := reference.ParseNormalizedNamed(img.name)
	if err != nil {
		return "", fmt.Errorf("loading %q: reading the image name %q: %w", l.name, img.name, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// complete checks that the store has all of an image, and lists its platforms.
// Archives of others may leave out platforms, but not all of them.
func (l *loader) complete(ctx context.Context, img imageEntry) ([]string, error) {
	blobs, err := Blobs(ctx, l.st.Content(), img.desc, img.platforms)
	var missing []ocispec.Descriptor
	if err == nil {
		missing, err = Missing(ctx, l.st, blobs)
	}
	lacks, absent := errors.AsType[*MissingError](err)
	if len(missing) > 0 {
		lacks, absent = &MissingError{Digest: missing[0].Digest}, true
	}
	if err != nil && !absent {
		return nil, fmt.Errorf("loading %q: image %s: %w", l.name, img.name, err)
	}
	if absent && img.whole {
		return nil, &ForeignError{Archive: l.name, Why: fmt.Sprintf("it is cut or damaged: %s of image %s is not in it", lacks.Digest, img.name)}
	}
	have, all, err := Platforms(ctx, l.st, img.desc)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("loading %q: image %s: %w", l.name, img.name, err)
	}
	if absent && (len(have) == 0 || len(have) == len(all)) {
		return nil, &ForeignError{Archive: l.name, Why: fmt.Sprintf("%s of image %s is not in it", lacks.Digest, img.name)}
	}
	return formatAll(have), nil
}
