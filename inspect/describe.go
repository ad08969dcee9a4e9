// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/signature"
)

// Kinds of images beside those of older tools, see clusterimage.Image.Older.
const (
	KindClusterImage = "ClusterImage"
	KindImage        = "image"
)

// Description is what an image says of itself.
type Description struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	// Kind is KindClusterImage, KindImage, or the older tool.
	Kind        string                `json:"kind"`
	Size        int64                 `json:"size"` // bytes of all blobs that are there, each once
	Annotations map[string]string     `json:"annotations,omitempty"`
	Rootfs      []Rootfs              `json:"rootfs"`
	Images      []Packed              `json:"images"`
	Attested    []Attestation         `json:"attestations,omitempty"`
	Signatures  []signature.Signature `json:"signatures,omitempty"` // not verified
}

// Rootfs is one platform. An ordinary image has no Extension.
type Rootfs struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	// Absent: the store has other platforms only.
	Absent      bool                   `json:"absent,omitempty"`
	Created     *time.Time             `json:"created,omitempty"`
	Annotations map[string]string      `json:"annotations,omitempty"` // of the manifest
	Labels      map[string]string      `json:"labels,omitempty"`
	Env         []string               `json:"env,omitempty"`
	Extension   clusterimage.Extension `json:"clusterImage,omitzero"`
	Size        int64                  `json:"size"`
	Layers      []ocispec.Descriptor   `json:"layers"`
	// ConfigDigest and Config are the image's config: entrypoint, user, history, the layers uncompressed, and so on.
	ConfigDigest string         `json:"configDigest,omitempty"`
	Config       *ocispec.Image `json:"config,omitempty"`
}

func newRootfs(platform ocispec.Platform, desc ocispec.Descriptor, m ocispec.Manifest, config ocispec.Image) Rootfs {
	r := Rootfs{
		Platform: platforms.Format(platform), Digest: desc.Digest.String(), Created: config.Created, Annotations: m.Annotations,
		Labels: config.Config.Labels, Env: config.Config.Env, Layers: m.Layers, ConfigDigest: m.Config.Digest.String(), Config: &config,
	}
	for _, l := range m.Layers {
		r.Size += l.Size
	}
	return r
}

// Packed is a container image inside.
type Packed struct {
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Digest   string   `json:"digest"`
	Index    string   `json:"index,omitempty"`
	Size     int64    `json:"size"`
	Origins  []string `json:"origins,omitempty"`
	App      string   `json:"app,omitempty"`
	// Tree says that it is in the registry's folder of an older tool.
	Tree bool `json:"registryTree,omitempty"`
}

// Attestation is what the builder has written down about a rootfs.
type Attestation struct {
	Digest     string   `json:"digest"`
	For        string   `json:"for,omitempty"`
	Predicates []string `json:"predicates,omitempty"`
}

// Annotations of attestations.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
const (
	annotationReferenceDigest = "vnd.docker.reference.digest"
	annotationPredicate       = "in-toto.io/predicate-type"
)

// Describe reads an image's documents. Of one of an older tool the layers are read too, where they are at hand.
func Describe(ctx context.Context, s *Subject) (*Description, error) { return describe(ctx, s, true) }

// Summarize is Describe without signatures, and without looking into layers.
func Summarize(ctx context.Context, s *Subject) (*Description, error) { return describe(ctx, s, false) }

func describe(ctx context.Context, s *Subject, all bool) (*Description, error) {
	d := &Description{
		Name: s.Name, Digest: s.Descriptor.Digest.String(), MediaType: s.Descriptor.MediaType, Kind: KindImage,
		Rootfs: []Rootfs{}, Images: []Packed{},
	}
	img, err := s.Image(ctx)
	switch {
	case errors.Is(err, clusterimage.ErrNotClusterImage):
		if err := d.plain(ctx, s); err != nil {
			return nil, fmt.Errorf("reading %s: %w", s.Name, err)
		}
	case err != nil:
		return nil, err
	default:
		if err := d.clusterImage(ctx, s, img, all); err != nil {
			return nil, err
		}
	}
	blobs, err := s.blobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.Name, err)
	}
	for _, b := range blobs {
		d.Size += b.Size
	}
	if all && s.Signatures != nil {
		if d.Signatures, err = signature.List(ctx, s.Signatures, s.Descriptor); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Description) clusterImage(ctx context.Context, s *Subject, img *clusterimage.Image, all bool) error {
	d.Kind = cmp.Or(img.Older, KindClusterImage)
	d.MediaType = img.Descriptor.MediaType
	d.Annotations = img.Index.Annotations
	for _, r := range img.Rootfs {
		row := absentRootfs(r.Platform, r.Descriptor)
		if !r.Absent {
			row = newRootfs(r.Platform, r.Descriptor, r.Manifest, r.Config)
			row.Extension = r.Extension
		}
		d.Rootfs = append(d.Rootfs, row)
	}
	for _, i := range img.Images {
		row := Packed{Name: i.Name, Platform: i.Platform, Digest: i.Manifest.Digest.String(), Size: i.Size, Origins: i.Origins, App: i.App}
		if i.Index != nil {
			row.Index = i.Index.Digest.String()
		}
		d.Images = append(d.Images, row)
	}
	inTrees, err := treeImages(ctx, s, img, all)
	if err != nil {
		return err
	}
	d.Images = append(d.Images, inTrees...)
	d.Attested, err = attestations(ctx, s.Content, img.Foreign)
	return err
}

// treeImages are those in registry's folders of older tools. Where the tool has not listed them, the layers are looked through if they are at hand.
func treeImages(ctx context.Context, s *Subject, img *clusterimage.Image, look bool) ([]Packed, error) {
	var out []Packed
	for _, r := range img.Rootfs {
		if r.Absent || r.Extension.RegistryTree == nil {
			continue
		}
		list := r.Extension.RegistryTree.Images
		if look && s.Local {
			found, err := clusterimage.ReadTree(ctx, s.Content, r.Manifest.Layers)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", s.Name, err)
			}
			list = joinTree(list, found)
		}
		for _, i := range list {
			out = append(out, Packed{
				Name: cmp.Or(i.Name, i.Path), Platform: cmp.Or(i.Platform, platforms.Format(r.Platform)), Digest: i.Digest, Size: i.Size, App: i.App, Tree: true,
				Origins: []string{"registry/ of " + r.Extension.RegistryTree.Tool},
			})
		}
	}
	slices.SortFunc(out, func(a, b Packed) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform)) })
	return out, nil
}

// joinTree gives what was found the names that the tool has listed.
func joinTree(listed, found []clusterimage.TreeImage) []clusterimage.TreeImage {
	out := slices.Clone(found)
	for i, f := range out {
		for _, l := range listed {
			if l.Path == f.Path {
				out[i].Name, out[i].App = l.Name, l.App
			}
		}
	}
	return out
}

func attestations(ctx context.Context, p content.Provider, entries []ocispec.Descriptor) ([]Attestation, error) {
	var out []Attestation
	for _, d := range entries {
		if d.Annotations[annotationReferenceDigest] == "" || !clusterimage.IsManifest(d.MediaType) {
			continue
		}
		a := Attestation{Digest: d.Digest.String(), For: d.Annotations[annotationReferenceDigest]}
		var m ocispec.Manifest
		if err := clusterimage.ReadJSON(ctx, p, d, &m); err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("reading attestation %s: %w", d.Digest, err)
		}
		for _, l := range m.Layers {
			if kind := l.Annotations[annotationPredicate]; kind != "" {
				a.Predicates = append(a.Predicates, kind)
			}
		}
		out = append(out, a)
	}
	return out, nil
}
