// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names of the archive's entries beside blobs.
const (
	// ContentsFile says what an archive of sealer holds. Other tools ignore it.
	ContentsFile = "sealer.json"

	contentsVersion = "v1"
	layoutFile      = ocispec.ImageLayoutFile
	indexFile       = ocispec.ImageIndexFile
	dockerFile      = "manifest.json"
	blobsFolder     = "blobs"
)

// Limits on what is read into memory, in bytes.
const (
	maxIndex    = 64 << 20
	maxContents = 64 << 20
	// maxBlob bounds the size that an entry may claim: 1 TiB.
	maxBlob = 1 << 40
	// maxEntries bounds the number of entries of an archive.
	maxEntries = 1 << 20
)

// Contents is the document "sealer.json" of an archive, its second entry.
type Contents struct {
	SchemaVersion string `json:"schemaVersion"`
	// Size is that of the whole archive, in bytes.
	Size int64 `json:"size"`
	// Images are what the archive has, in the order of index.json.
	Images []Member `json:"images"`
	// Since are the images that must be there first; none for a full archive.
	Since []Member `json:"since,omitempty"`
	// Missing are the blobs that the images need and that the archive leaves
	// out because those of Since have them.
	Missing []ocispec.Descriptor `json:"missing,omitempty"`
}

// Member is an image of an archive.
type Member struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	// Platforms are those that are in the archive; none means all that the image has.
	Platforms []string `json:"platforms,omitempty"`
}

// ContentsVersionError says that an archive was written by a later sealer.
type ContentsVersionError struct{ Version string }

func (e *ContentsVersionError) Error() string {
	return fmt.Sprintf("%s has schemaVersion %q, this version of sealer reads %q", ContentsFile, e.Version, contentsVersion)
}

// Hint tells the user what to do.
func (e *ContentsVersionError) Hint() string {
	return "use the version of sealer that wrote the archive"
}

func parseContents(data []byte) (*Contents, error) {
	var c Contents
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("reading %s: %w", ContentsFile, err)
	}
	if c.SchemaVersion != contentsVersion {
		return nil, &ContentsVersionError{Version: c.SchemaVersion}
	}
	for _, d := range c.Missing {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("reading %s: blob %q: %w", ContentsFile, d.Digest, err)
		}
		if d.Size < 0 || d.Size > maxBlob {
			return nil, fmt.Errorf("reading %s: %s has a size of %d", ContentsFile, d.Digest, d.Size)
		}
	}
	return &c, nil
}

// member finds an image's entry; nil where there is none.
func (c *Contents) member(d digest.Digest) *Member {
	if c == nil {
		return nil
	}
	for i := range c.Images {
		if c.Images[i].Digest == d {
			return &c.Images[i]
		}
	}
	return nil
}
