// SPDX-License-Identifier: Apache-2.0

// Package clusterimage is the ClusterImage format: an OCI image index that
// holds the rootfs of a cluster for each platform, and the unmodified manifests
// of every container image the cluster needs. The package composes such an index
// and reads one; it moves no layers and asks no network.
package clusterimage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Artifact and media types.
const (
	// ArtifactType is the artifactType of the index.
	ArtifactType = "application/vnd.sealer.clusterimage.v1"
	// ImageListArtifactType is the artifactType of the manifest that lists the
	// packed container images, and the media type of its first layer.
	ImageListArtifactType = "application/vnd.sealer.imagelist.v1+json"
	// DocumentsMediaType is the media type of the second layer of an image
	// list: a tar of blobs/<algorithm>/<hex>, compressed with zstd.
	DocumentsMediaType = "application/vnd.sealer.documents.v1.tar+zstd"
)

// Annotations on the index's descriptors.
const (
	AnnotationRole     = "io.sealer.role"
	AnnotationName     = ocispec.AnnotationRefName
	AnnotationPlatform = "io.sealer.image.platform"
	AnnotationIndex    = "io.sealer.image.index"
	AnnotationApp      = "io.sealer.image.app"
)

// Annotations on the entries that attestations have, as docker buildx writes them. They have no role.
// See https://github.com/moby/buildkit/blob/v0.33.1/docs/attestations/attestation-storage.md
const (
	AnnotationReferenceType   = "vnd.docker.reference.type"
	AnnotationReferenceDigest = "vnd.docker.reference.digest"
	// ReferenceAttestation is the value of AnnotationReferenceType.
	ReferenceAttestation = "attestation-manifest"
)

// Values of AnnotationRole.
const (
	RoleRootfs         = "rootfs"
	RoleImageList      = "imagelist"
	RoleContainerImage = "container-image"
)

// Labels in the config of a rootfs.
const (
	LabelVersion               = "io.sealer.version"
	LabelClusterRuntime        = "cluster.alpha.sealer.io/cluster-runtime-type"
	LabelClusterRuntimeVersion = "cluster.alpha.sealer.io/cluster-runtime-version"
	LabelContainerRuntime      = "cluster.alpha.sealer.io/container-runtime-type"
	// LabelExtension holds the JSON of an Extension.
	LabelExtension = "io.sealer.clusterimage"
)

// Limits on what is read into memory, in bytes. Registries commonly refuse
// manifests beyond 4 MiB; the room above is for stores that do not.
const (
	maxManifest  = 32 << 20
	maxImageList = 64 << 20
	// maxDocuments bounds the unpacked documents of one image list.
	maxDocuments = 512 << 20
)

// Media types of Docker that OCI registries serve beside OCI's own.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// IsIndex tells whether a media type is an image index (or Docker's manifest list).
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}

// IsManifest tells whether a media type is an image manifest, OCI's or Docker's schema 2.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// ErrNotClusterImage matches, with errors.Is, every *NotClusterImageError.
var ErrNotClusterImage = errors.New("not a ClusterImage")

// NotClusterImageError says that content is another kind of image.
type NotClusterImageError struct {
	Descriptor ocispec.Descriptor
	// Kind is what it is instead: "an image index", "an image manifest".
	Kind string
}

func (e *NotClusterImageError) Error() string {
	return fmt.Sprintf("%s is %s, not a ClusterImage", e.Descriptor.Digest, e.Kind)
}

// Is makes errors.Is(err, ErrNotClusterImage) hold.
func (e *NotClusterImageError) Is(target error) bool { return target == ErrNotClusterImage }

// PackedImage is one container image for one platform.
type PackedImage struct {
	// Name is the full reference with its domain, as the cluster will ask for
	// it: docker.io/library/nginx:1.27, quay.io/a/b@sha256:…
	Name string
	// Platform is os/arch[/variant], normalised.
	Platform string
	// Manifest is the upstream manifest for Platform.
	Manifest ocispec.Descriptor
	// Index is the upstream index document that named Manifest; nil where the
	// name stands for a single manifest.
	Index *ocispec.Descriptor
	// Size is the sum of manifest, config and layers, in bytes.
	Size int64
	// Origins say who asked for the image: "imageList:3", "manifests/a.yaml:12".
	Origins []string
	// App is the application that asked for it; "" where none did.
	App string
}

// Image is a ClusterImage as read from an index.
type Image struct {
	Descriptor ocispec.Descriptor
	Index      ocispec.Index
	Rootfs     []Rootfs
	// Images are sorted by name, then platform. Those of a platform whose image
	// list is not in the store (a pull of one platform) are not among them.
	Images []PackedImage
	// Foreign are index entries of other roles, kept as they are: attestations,
	// and roles that a later version knows.
	Foreign []ocispec.Descriptor
	// Older is the tool that made the image, where it was not this one: ToolSealer, ToolSealos. Index then
	// says what is there, and is no document.
	Older string
}

// Rootfs is one platform of a ClusterImage.
type Rootfs struct {
	Descriptor ocispec.Descriptor
	Platform   ocispec.Platform
	// Absent is set where the store holds another platform only; the fields
	// below are then empty.
	Absent    bool
	Manifest  ocispec.Manifest
	Config    ocispec.Image
	Extension Extension
}

// PlatformError says that an image has nothing for a platform.
type PlatformError struct {
	Image string
	Want  string
	// Have are the platforms it has.
	Have []string
}

func (e *PlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("%s has nothing for %s", e.Image, e.Want)
	}
	return fmt.Sprintf("%s has nothing for %s, it has %s", e.Image, e.Want, strings.Join(e.Have, ", "))
}

// Platform returns the rootfs for a platform. Variants follow containerd's
// rules: arm64 is arm64/v8, and arm/v7 takes arm/v6 where there is no better.
// The error is a *PlatformError.
func (img *Image) Platform(want ocispec.Platform) (Rootfs, error) {
	best := -1
	match := Matcher(want)
	have := make([]string, 0, len(img.Rootfs))
	for i, r := range img.Rootfs {
		have = append(have, platforms.Format(platforms.Normalize(r.Platform)))
		if match.Match(r.Platform) && (best < 0 || match.Less(r.Platform, img.Rootfs[best].Platform)) {
			best = i
		}
	}
	if best < 0 {
		slices.Sort(have)
		return Rootfs{}, &PlatformError{
			Image: img.Descriptor.Digest.String(),
			Want:  platforms.Format(platforms.Normalize(want)),
			Have:  slices.Compact(have),
		}
	}
	return img.Rootfs[best], nil
}

// Matcher matches the platforms that can stand for want: its own, and lesser
// variants of the same architecture, best first. Other than containerd's own
// matcher it takes neither 386 for amd64 nor arm for arm64.
func Matcher(want ocispec.Platform) platforms.MatchComparer {
	want = platforms.Normalize(want)
	return sameArchitecture{MatchComparer: platforms.Only(want), arch: want.Architecture}
}

type sameArchitecture struct {
	platforms.MatchComparer
	arch string
}

func (m sameArchitecture) Match(p ocispec.Platform) bool {
	return platforms.Normalize(p).Architecture == m.arch && m.MatchComparer.Match(p)
}

// About is the digest of the manifest that an attestation speaks of; "" for entries that are none.
func About(d ocispec.Descriptor) digest.Digest {
	if d.Annotations[AnnotationReferenceType] != ReferenceAttestation {
		return ""
	}
	return digest.Digest(d.Annotations[AnnotationReferenceDigest])
}

func compareImages(a, b PackedImage) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform))
}
