// SPDX-License-Identifier: Apache-2.0

// Package layout is the form of a ClusterImage that a BuildKit frontend can make: an ordinary OCI image, or an index of
// one for each platform, whose last layers hold an OCI layout with the packed images. (A frontend returns file systems;
// it cannot add manifests to an index.) Adopt makes a ClusterImage of it.
package layout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// Dir is the folder of the OCI layout, relative to the root of the rootfs. Its index.json has the entries that the
	// index of a ClusterImage has for the images of one platform: an image list, and each image.
	Dir = ".clusterimage"
	// Label of the config says which layers hold Dir, and nothing else: numbers with commas, counted from 0, or from -1
	// for the last one. Empty: the rootfs packs no images. Where the label is missing, the image is of another kind.
	Label = "io.sealer.images.layers"
	// LabelSource of an adopted config is the digest of the manifest that it was made of.
	LabelSource = "io.sealer.source.manifest"
	// AnnotationSource of an adopted index is the digest of the image that it was made of.
	AnnotationSource = "io.sealer.source.digest"
)

// maxLayers bounds the label, and with it the work that it can ask for.
const maxLayers = 4096

// FormatLayers makes the value of Label.
func FormatLayers(layers []int) string {
	words := make([]string, len(layers))
	for i, n := range layers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// ParseLayers reads the value of Label for an image of that many layers. The result is sorted, counted from 0.
func ParseLayers(label string, total int) ([]int, error) {
	if label == "" {
		return nil, nil
	}
	var out []int
	for word := range strings.SplitSeq(label, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("label %s: %q is no number", Label, word)
		}
		if n < 0 {
			n += total
		}
		if n < 0 || n >= total || slices.Contains(out, n) || len(out) == maxLayers {
			return nil, fmt.Errorf("label %s=%q does not fit an image of %d layers", Label, label, total)
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

// BlobPath is where a blob lies, relative to the root of the rootfs.
func BlobPath(d digest.Digest) string {
	return Dir + "/" + ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// parseBlobPath is the other way; false for what is no blob.
func parseBlobPath(path string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(path, Dir+"/"+ocispec.ImageBlobsDir+"/")
	if !ok {
		return "", false
	}
	algorithm, hex, _ := strings.Cut(rest, "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return d, d.Validate() == nil && BlobPath(d) == path
}

// Error says that an image has the label, and is not what the label says.
type Error struct {
	Digest digest.Digest // of the manifest
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("reading the container images inside %s: %v", e.Digest, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// Hint says what may have happened.
func (e *Error) Hint() string {
	if errdefs.IsNotFound(e.Err) {
		return "it is not complete in the store: pull it again"
	}
	return "a tool that flattens or reorders layers has changed the image: build it again, or copy the original"
}
