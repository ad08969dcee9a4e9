// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/attest"
	"github.com/sealerio/sealer/build/sbom"
	"github.com/sealerio/sealer/clusterimage"
)

// billOfMaterials lists what is in a rootfs, and the images that are packed for its platform.
func billOfMaterials(ctx context.Context, o Options, rootfs ocispec.Descriptor, images []clusterimage.PackedImage) (_ attest.Statement, err error) {
	task := o.Display.Task("listing what is in the rootfs for " + platforms.FormatAll(*rootfs.Platform))
	defer func() { task.Done(err) }()
	cs := o.Store.Content()
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, cs, rootfs, &m); err != nil {
		return attest.Statement{}, err
	}
	doc := sbom.Document{Rootfs: rootfs, Platform: *rootfs.Platform, Version: o.Version, Created: *o.Epoch}
	if doc.Contents, err = sbom.Scan(ctx, cs, m.Layers); err != nil {
		return attest.Statement{}, err
	}
	match := clusterimage.Matcher(*rootfs.Platform)
	for _, pi := range images {
		p, err := platforms.Parse(pi.Platform)
		if err != nil {
			return attest.Statement{}, err
		}
		if !match.Match(p) {
			continue
		}
		license, err := imageLicense(ctx, cs, pi)
		if err != nil {
			return attest.Statement{}, err
		}
		doc.Images = append(doc.Images, sbom.Image{Name: pi.Name, Platform: p, Digest: pi.Manifest.Digest, License: license})
	}
	return attest.Statement{PredicateType: attest.PredicateSPDX, Predicate: doc.SPDX()}, nil
}

// imageLicense is what an image says of its licences, in its manifest or its config; "" where it says nothing.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md
func imageLicense(ctx context.Context, p content.Provider, pi clusterimage.PackedImage) (string, error) {
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, p, pi.Manifest, &m); err != nil {
		return "", fmt.Errorf("image %s: %w", pi.Name, err)
	}
	if v := m.Annotations[ocispec.AnnotationLicenses]; v != "" {
		return v, nil
	}
	var config ocispec.Image
	if err := clusterimage.ReadJSON(ctx, p, m.Config, &config); err != nil {
		return "", fmt.Errorf("image %s: %w", pi.Name, err)
	}
	return config.Config.Labels[ocispec.AnnotationLicenses], nil
}
